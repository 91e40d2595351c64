"""Make a profile of the device this runs on, out of what `lavolta.devices.profiler` measures."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavolta.devices.fitting import Details, LatencyFit, fit_latency
from lavolta.devices.identity import read_identity
from lavolta.devices.journal import Journal
from lavolta.devices.loading import validate
from lavolta.devices.profile import CpuIdentity, DeviceProfile, Source
from lavolta.devices.profiler import Bench, Machine, Options, Run
from lavolta.devices.survey import Survey, survey
from lavolta.errors import UserInputError
from lavolta.progress import Progress, SilentProgress

_GUESS_MW_PER_MHZ = 1.0
_MOVE_US = 200.0
_OWN = "own measurement"
_JOURNAL_FORMAT = 2
"""Each round has a clock of its own; one for all rounds would be that of the hottest."""


@dataclass(frozen=True)
class Profiled:
    """A finished profile.

    Args:
        fits: by cluster.
        notes: sentences about what could not be had.
        measurements: timings that were fitted.
        resumed: entries that an earlier, killed run had left.
    """

    profile: DeviceProfile
    fits: dict[str, LatencyFit]
    notes: tuple[str, ...]
    measurements: int
    resumed: int


def profile_device(
    bench: Bench,
    name: str,
    journal_path: Path,
    options: Options | None = None,
    machine: Machine | None = None,
    progress: Progress | None = None,
) -> Profiled:
    """Profile the device that this runs on.

    Args:
        bench: what is timed.
        name: name of the profile.
        journal_path: where measurements are kept; a run that was killed goes on from it. Remove it when the profile is
            written, not earlier.
        progress: told what is being done.

    Raises:
        UserInputError: the journal belongs to another machine or plan, or too little could be measured.
    """
    options, machine = options or Options(), machine or Machine()
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        raise UserInputError(
            f"a profile cannot be called {name!r}; use lower-case letters, digits, '.', '_' and '-', or give --name."
        )
    identity = read_identity(bench.instruction_sets, machine.proc)
    found = survey(machine.root, machine.proc, options.quick, machine.allowed)
    cases = list(bench.cases(options.quick))
    header = {
        "format": _JOURNAL_FORMAT,
        "identity": identity.model_dump(mode="json"),
        "clusters": {cluster.name: list(cluster.cpus) for cluster in found.clusters},
        "plan": zlib.crc32("\n".join(case.key for case in cases).encode()),
        "options": [options.quick, options.power_s, options.max_threads, options.rounds],
    }
    with Journal(journal_path, header) as journal:
        run = Run(bench, cases, found, options, machine, journal, progress or SilentProgress())
        try:
            run.everything()
        finally:
            run.restore()
        return assemble(run, name, identity)


def safe_name(words: str) -> str:
    """A profile name out of any words."""
    return re.sub(r"[^a-z0-9._-]+", "-", words.lower()).strip("-._")[:64] or "this-device"


def assemble(run: Run, name: str, identity: CpuIdentity) -> Profiled:
    fits: dict[str, LatencyFit] = {}
    clusters = []
    details = Details(run.survey.near_cache_bytes, run.bench.tokens_per_register)
    measured_words = f"`lavolta device profile` on {identity.model or identity.architecture}"
    idle: list[float] = []
    power_from: set[str] = set()
    for cluster in run.survey.clusters:
        samples = run.samples(cluster)
        words = f"{len(samples)} timings by {measured_words}; the shortest of all rounds, errors on held-out shapes"
        source = Source(text=words, licence=_OWN, label="measured")
        fits[cluster.name] = fit_latency(samples, run.bench.isa, source, details)
        steps = []
        read = {mhz: run.power_mw(cluster, mhz) for mhz in cluster.known_mhz}
        for mhz in cluster.known_mhz:
            power = read[mhz]
            if power is not None and power["idle_mw"] is not None:
                idle.append(power["idle_mw"])
                power_from.add(str(power["from"]))
            steps.append({"freq_mhz": mhz, "active_mw": _active_mw(power, mhz)})
        clusters.append(
            {
                "name": cluster.name,
                "cores": len(cluster.cpus),
                "cpus": list(cluster.cpus),
                "steps_source": _source("cpufreq" if run.survey.degree.value != "none" else "procfs; no cpufreq here"),
                "power_source": _power_source(list(read.values()), measured_words),
                "steps": steps,
                "latency": [fits[cluster.name].coefficients.model_dump(exclude_none=True)],
            }
        )
    run.notes += [f"power: {reason}" for reason in run.power_reasons()]
    data = {
        "format": 1,
        "name": name,
        "title": run.survey.board or identity.model or name,
        "default_cluster": max(fits, key=lambda n: _speed(fits[n], run.survey, n)),
        "power": _idle(idle, power_from, measured_words),
        "switching": _switching(run),
        "battery": _battery(run.survey),
        "clusters": clusters,
        "cpu": identity.model_dump(),
    }
    if run.survey.limit_c is not None:
        data["thermal"] = {
            "limit_c": run.survey.limit_c,
            "source": _source("lowest passive trip point of the processor in sysfs"),
        }
    profile = validate(data, f"the profile of {name}")
    count = sum(fit.samples for fit in fits.values())
    return Profiled(profile, fits, tuple(dict.fromkeys(run.notes)), count, run.journal.resumed)


def _speed(fit: LatencyFit, found: Survey, name: str) -> float:
    """Cycles of the fastest clock over cycles per product: which cluster is the fast one."""
    fastest: float = max(mhz for cluster in found.clusters if cluster.name == name for mhz in cluster.known_mhz)
    cycles: float = min(fit.coefficients.cycles_per_kept_mac.values())
    return fastest / cycles


def _active_mw(power: dict[str, Any] | None, mhz: float) -> float:
    if power is None or power["idle_mw"] is None:
        return _GUESS_MW_PER_MHZ * mhz
    return max(float(power["busy_mw"] - power["idle_mw"]) / int(power["threads"]), 0.001)


def _power_source(read: Sequence[dict[str, Any] | None], words: str) -> dict[str, str]:
    known = [power for power in read if power is not None and power["idle_mw"] is not None]
    guess = f"{_GUESS_MW_PER_MHZ:g} mW per MHz and core, a guess"
    if not known:
        return _source(f"no power could be read: {guess}; energies of this profile mean nothing", "assumption")
    what = f"{known[0]['from']}: all cores of the cluster busy, minus idle, per core; {words}"
    if len(known) < len(read):
        return _source(f"{what}; clocks that could not be measured: {guess}", "assumption")
    return _source(what)


def _idle(idle: list[float], power_from: set[str], words: str) -> dict[str, Any]:
    if not idle:
        text = "no power could be read; both are set to 0"
        return {"idle_mw": 0.0, "board_mw": 0.0, "source": _source(text, "assumption")}
    least = min(idle)
    processor = all("processor only" in name for name in power_from)
    text = f"{', '.join(sorted(power_from))}, idle, least of all clocks; {words}; the two shares cannot be told apart"
    return {
        "idle_mw": least if processor else 0.0,
        "board_mw": 0.0 if processor else least,
        "source": _source(text),
    }


def _switching(run: Run) -> dict[str, Any]:
    clock = run.survey.transition_us
    words = "frequency: cpuinfo_transition_latency" if clock is not None else "frequency: a guess, no driver says it"
    return {
        "frequency_us": 100.0 if clock is None else clock,
        "frequency_uj": 0.0,
        "level_us": float(run.journal.get("switch_us") or 0.0),
        "level_uj": 0.0,
        # A move between clusters: cold caches, a megabyte from memory. Not measured.
        "cluster_us": _MOVE_US if len(run.survey.clusters) > 1 else 0.0,
        "cluster_uj": 0.0,
        "source": _source(
            f"{words}; level: measured; cluster: a guess; energies are not known",
            "assumption" if clock is None else "derived",
        ),
    }


def _battery(found: Survey) -> dict[str, Any]:
    if found.battery_mwh is None or found.battery_mv is None:
        text = "no battery could be read: 10 Wh, a small power bank"
        return {"capacity_mwh": 10_000.0, "nominal_mv": 3700.0, "source": _source(text, "assumption")}
    return {
        "capacity_mwh": found.battery_mwh,
        "nominal_mv": found.battery_mv,
        "source": _source("full charge and voltage in sysfs"),
    }


def _source(text: str, label: str = "measured") -> dict[str, str]:
    return {"text": text, "licence": _OWN if label == "measured" else "none needed", "label": label}
