"""A complete result with made-up round numbers, in the shape that `lavolta demo` writes."""

from __future__ import annotations

from typing import Any

import pytest

PARTS = ("attention.query", "attention.key", "attention.value", "attention.output", "ffn.up", "ffn.down")


def _level(index: int, layers: int) -> dict[str, Any]:
    sparsity = (0.0, 0.4, 0.5, 0.6, 0.7, 0.78)[index]
    kept = {
        f"layers.{layer}.{part}": max(0.0, min(1.0, (1 - sparsity) * (0.8 + 0.4 * ((layer + place) % 5) / 4)))
        for layer in range(layers)
        for place, part in enumerate(PARTS)
    }
    return {
        "name": f"L{index}",
        "sparsity": sparsity,
        "fidelity": 1.0 - 0.16 * sparsity**2,
        "score": None,
        "latency_ms": 14.0 * (1 - 0.8 * sparsity),
        "dense_latency_ms": 13.2,
        "device_latency_ms": 92.0 - 2 * index,
        "device_energy_mj": 31.0 * (1 - sparsity) + 3,
        "freq_mhz": 1400 - 200 * index,
        "kept_by_layer": kept,
    }


@pytest.fixture
def sample_result() -> dict[str, Any]:
    levels = [_level(index, layers=6) for index in range(6)]
    titles = {
        "E1": ("no reconfiguration (E1): 1400 MHz and level L0 for the whole charge", 402_113, 0, 11.2, 1.0),
        "E2": (
            "hardware only (E2): level L0 throughout, 1400 MHz with level L0 above 67 % of the charge; 800 MHz below",
            548_020,
            301_204,
            15.2,
            1.0,
        ),
        "E3": (
            "hardware and software (E3, RT3): 1400 MHz with level L0 above 67 % of the charge; 800 MHz with L3 below",
            1_203_441,
            0,
            33.4,
            0.961,
        ),
        "dial": (
            "ours: among frequency and level pairs whose predicted latency meets the deadline: the lowest energy",
            1_391_200,
            0,
            38.6,
            0.943,
        ),
    }
    policies = {
        name: {
            "title": title,
            "inferences": inferences,
            "misses": misses,
            "time_h": hours,
            "curve": [[hours * i / 50, (1 - i / 50) ** (1.0 if name != "dial" else 0.9)] for i in range(51)],
            "energy_by_level_mj": {level["name"]: 4e6 + 1e6 * i for i, level in enumerate(levels)},
            "time_by_level_h": {level["name"]: hours * (1 + i) / 21 for i, level in enumerate(levels)},
            "mean_fidelity": fidelity,
        }
        for name, (title, inferences, misses, hours, fidelity) in titles.items()
    }
    return {
        "format": 1,
        "levels": levels,
        "model": {"name": "all-MiniLM-L6-v2", "layers": 6, "hidden": 384, "prunable_weights": 10_616_832},
        "device": {
            "name": "odroid-xu3-a7",
            "title": "Hardkernel Odroid-XU3, Cortex-A7 cluster (Exynos 5422), voltages of RT3",
            "power": "CPU only, one core",
            "battery_mwh": 11_100,
        },
        "deadline_ms": 95.0,
        "period_ms": 100.0,
        "switch_us_p50": 0.61,
        "switch_us_p99": 2.34,
        "bytes_moved_per_switch": 0,
        "policies": policies,
        "our_policy": "dial",
        "baseline_policy": "E1",
        "inferences_per_charge": {name: policy["inferences"] for name, policy in policies.items()},
        "deadline_misses": {name: policy["misses"] for name, policy in policies.items()},
        "improvement": 1_391_200 / 402_113,
        "baseline": "the dense model at the highest clock, one request each 100 ms, until the battery is empty",
        "assumptions": [
            {"text": "Dynamic power is 90 uW per MHz and square volt and core.", "label": "published"},
            {"text": "Memory and board power are not counted.", "label": "assumed"},
        ],
        "environment": {"cpu": "x86-64 with AVX-512", "threads": 1, "date": "2026-11-22", "load": [0.5, 1.25]},
        "seconds": {"read the model": 3.1, "train": 402.0, "search": 33.0},
    }
