"""What a monitor, a scraper and an operator are told, as plain data."""

from __future__ import annotations

from typing import Any

from lavolta.devices.sources import Reading
from lavolta.runtime.governor_policy import words_of
from lavolta.serve.service import Service


def status(service: Service) -> dict[str, Any]:
    """The present: device, clock, level, last answers, queue. docs/reference/http.md has the fields."""
    recorder, governor = service.recorder, service.governed.governor
    profile, totals = governor.scenario.profile, recorder.totals()
    reading = recorder.reading or Reading(0.0)
    last = recorder.last()
    return {
        "model": service.model.spec.name,
        "device": {
            "name": profile.name,
            "title": profile.title,
            "simulated": service.governed.device is not None,
            "cluster": governor.scenario.used_cluster.name,
            "speed": service.pace.speed,
        },
        "goal": words_of(governor.goal),
        "deadline_ms": service.deadline_ms,
        "uptime_s": recorder.uptime_s,
        "stopping": service.stopping,
        "charge_share": reading.charge_share,
        "charge_mwh": reading.charge_mwh,
        "capacity_mwh": reading.capacity_mwh,
        "power_mw": reading.power_mw,
        "power_from": reading.power_from,
        "on_ac": reading.on_ac,
        "temperature_c": reading.temperature_c,
        "freq_mhz": dict(reading.freq_mhz),
        "freq_limit_mhz": dict(reading.freq_limit_mhz),
        "unknown": reading.words(),
        "clock": governor.clock.degree.value,
        "clock_why": governor.clock.why,
        "level": None if last is None else last["level"],
        "levels": [level.name for level in governor.scenario.levels],
        "pinned": governor.pinned,
        "queue": {"depth": service.depth, "limit": service.limit},
        "totals": {
            "answers": totals.answers,
            "late": totals.late,
            "cut_short": totals.cut_short,
            "energy_mj": totals.energy_mj,
            "by_level": totals.levels,
            "refused": totals.refused,
        },
        "recent": recorder.recent(),
        "last": last,
    }


def levels(service: Service) -> dict[str, Any]:
    """The dial: each level with its score and what the profile predicts where it is fastest; and the model."""
    scenario, spec = service.governed.governor.scenario, service.model.spec
    quickest_mhz = 0.0
    found = []
    for level, known in zip(service.model.manifest["levels"], scenario.levels, strict=True):
        options = [option for choice, option in scenario.options.items() if choice.level == known.name]
        quickest = min(options, key=lambda option: (option.latency_ns, option.load_uw))
        quickest_mhz = quickest.choice.freq_mhz
        found.append(
            {
                "name": known.name,
                "sparsity": level["sparsity"],
                "score": known.score,
                "predicted_ms": quickest.latency_ns / 1e6,
                "predicted_mj": quickest.load_uw * quickest.latency_ns / 1e12,
            }
        )
    return {
        "levels": found,
        "freq_mhz": quickest_mhz,
        "pinned": service.governed.governor.pinned,
        "model": {
            "name": spec.name,
            "task": spec.task,
            "labels": list(spec.labels),
            "max_tokens": spec.max_tokens,
            "vocab": spec.vocab,
            "outputs": spec.outputs or spec.hidden,
        },
    }
