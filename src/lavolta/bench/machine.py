"""What a measurement ran on: a number means little without its processor."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from lavolta.runtime.engine import instruction_sets
from lavolta.runtime.measure import cpu_name

# Linux's names of what decides the speed of a matrix product.
_FLAGS = (
    "avx2",
    "fma",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
    "neon",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)


def machine() -> dict[str, Any]:
    """Processor, instruction sets, cores, governor and load, as plain JSON."""
    return {
        "cpu": cpu_name(),
        "architecture": platform.machine(),
        "cpu_flags": cpu_flags(),
        "instruction_sets": list(instruction_sets()),
        "amx": has_amx(),
        "cores": cores(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "load_before": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def cpu_flags() -> list[str]:
    """The processor's features that matter for matrix products, by Linux's names."""
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            present = set(value.split())
            return [flag for flag in _FLAGS if flag in present]
    return []


def has_amx() -> bool:
    """Whether the processor has matrix tiles (AMX): some peers use them without saying so."""
    return "amx_int8" in cpu_flags()


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return None
