"""What `compress` does where it is not told; shared by Python and the command line, which imports nothing heavy."""

from __future__ import annotations

DEVICE = "odroid-xu3-a7"
LEVELS = 6
MAX_SPARSITY = 0.8
"""A level that is sparser costs more quality than the energy is worth to most; the user may ask for one."""
TOKENS = 128
STEPS = 500
BATCH_SIZE = 32
LR = 4e-4
PRECISION = "int8"
