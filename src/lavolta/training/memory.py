"""The C library's allocator, told to keep what a training step frees: the next step wants it again."""

from __future__ import annotations

import contextlib
import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Parameters of ``mallopt`` in glibc's ``malloc.h``."""

_KEPT_BYTES = 2**31 - 1
_GROWTH_BYTES = 64 * 2**20


def keep_freed_memory() -> None:
    """For a process that trains until it ends: freed memory stays with it.

    By default glibc gives large blocks back to the system and a step pays for every page of its activations anew: a
    sixth of the time of a step. Where there is another C library this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_TOP_PAD, _GROWTH_BYTES)
