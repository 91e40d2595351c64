"""What `prune` does where it is not told; shared by Python and the command line, which imports nothing heavy."""

from __future__ import annotations

METHOD = "auto"
BEST, BEST_LADDER = "gradual-sparsegpt", "spd"
"""What `METHOD` stands for, for one level and for several: see the tables of `experiments/spd`."""

SPARSITY = 0.9
EPOCHS = 12.0
BATCH_SIZE, TEACHER_BATCH_SIZE = 8, 32
"""Rows of a step. Small ones for the student: between two cuts it is updates that mend, not rows seen."""

MAX_TOKENS = 128
TEACHER_EPOCHS = 4.0
TEACHER_LR = 1e-4
POOLING = "cls"
CELL_ROWS = 1

METHODS = {
    "spd": "sparse progressive distillation: grafting by chance, only the layers trained, distilled layer by layer",
    "spd-constant": "the same with the grafting probability of its first phase throughout",
    "layer-kd-frozen": "the same without grafting: student layers alone from the beginning",
    "gmp-kd-layers": "gradual magnitude pruning with SPD's distillation of layers, all weights trained",
    "gmp-kd": "gradual magnitude pruning, distilled from the dense model's outputs, all weights trained",
    "gmp": "gradual magnitude pruning on labels, all weights trained",
    "gradual-sparsegpt": "gradual pruning by second order, compensated at every cut, else the training of gmp-kd",
    "gradual-sparsegpt+spd": "gradual pruning by second order, compensated at every cut, else the training of SPD",
    "movement": "movement pruning, distilled from the dense model's outputs, all weights trained",
    "magnitude": "one-shot by magnitude, then the training of gmp-kd",
    "wanda": "one-shot by weight times input, compared in each row, then the training of gmp-kd",
    "sparsegpt": "one-shot by second order with compensation, then the training of gmp-kd",
    "sparsegpt+spd": "one-shot by second order with compensation, then the training of SPD",
}
"""Name to what it does; `lavolta.systems.spd.methods` has how."""

LADDERS = ("spd", "spd-constant", "layer-kd-frozen", "gmp-kd-layers", "gmp-kd", "gmp", "magnitude")
"""Methods that leave an order in which cells were dropped, from which denser levels can be made."""

SEARCHED = {"aebert": "magnitude"} | {f"aebert+{method}": method for method in METHODS}
"""Methods of the command whose ratios are searched first, and the method of the table that then prunes."""

CANDIDATES, QUICK_CANDIDATES = 100, 6
PROXY, TOKENS = "kl", 128
"""What a search ranks by, and the length of the inference that a device's budget is for."""

QUICK_ROWS, QUICK_STEPS, QUICK_TOKENS, QUICK_BATCH, QUICK_CUTS = 48, 12, 32, 8, 1
"""A slice of the data and a few steps, to see that everything works."""
