"""Measure the device this runs on: time the engine at every clock and thread count, and read power.

What is timed comes in through `Bench`, so that this part needs no engine; `lavolta.runtime.kernel_timing` has the real
one. `lavolta.devices.profiling` turns the measurements into a profile.
"""

from __future__ import annotations

import os
import random
import time
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from lavolta.devices.fitting import LatencySample
from lavolta.devices.identity import PROC
from lavolta.devices.journal import Journal
from lavolta.devices.sources.cpufreq import LinuxFrequencyControl
from lavolta.devices.sources.linux import SYSFS, LinuxSource
from lavolta.devices.sources.reading import Degree
from lavolta.devices.survey import ClusterSurvey, Survey
from lavolta.devices.work import Work
from lavolta.progress import Progress

_PROBE_EVERY = 6
"""Beyond the highest clock and one thread, one case in so many is timed: few coefficients depend on those."""
_CLOCK_TOLERANCE = 0.03


class BenchCase(Protocol):
    """One inference that can be timed."""

    @property
    def key(self) -> str:
        """Short and unique."""
        ...

    @property
    def shape_name(self) -> str:
        """The shape of the model; shapes are held out one by one."""
        ...


class Bench(Protocol):
    """What is timed."""

    @property
    def isa(self) -> str:
        """The instruction set that runs."""
        ...

    @property
    def instruction_sets(self) -> Sequence[str]: ...

    @property
    def tokens_per_register(self) -> int: ...

    def cases(self, quick: bool) -> Sequence[BenchCase]: ...

    def work(self, case: Any) -> Work: ...

    def measure_ms(self, case: Any, threads: int) -> float:
        """The shortest of a few runs."""
        ...

    def burn(self, threads: int, time_s: float) -> None:
        """Keep so many cores busy."""
        ...

    def switch_us(self) -> float:
        """Time of one switch of the level."""
        ...

    def use(self, cpus: Sequence[int]) -> None:
        """Run on these CPUs from now on; none: wherever the system likes."""
        ...


@dataclass(frozen=True)
class Options:
    """How to profile.

    Args:
        quick: fewer shapes, tokens, clocks and rounds: minutes instead of an hour on a phone.
        power_s: how long power is looked at, idle and busy each; 0 reads no power.
        max_threads: most threads to time; all cores where not given.
        rounds: how often everything is timed at the highest clock with one thread, in different orders; the shortest
            time counts. Other settings have half as many.
    """

    quick: bool = False
    power_s: float = 10.0
    max_threads: int | None = None
    rounds: int = 6

    @property
    def used_rounds(self) -> int:
        return 2 if self.quick else self.rounds


@dataclass(frozen=True)
class Machine:
    """What the profiler touches of the machine; tests give their own.

    Args:
        root, proc: where sysfs and procfs are mounted.
        sleep: let the device idle.
        allowed: CPUs that this program may use; none: all of them.
    """

    root: Path = SYSFS
    proc: Path = PROC
    sleep: Callable[[float], None] = time.sleep
    allowed: Collection[int] | None = field(default_factory=lambda: os.sched_getaffinity(0))


@dataclass
class Run:
    """The measurements of one device, made or read from the journal.

    Attributes:
        notes: sentences about what could not be had.
    """

    bench: Bench
    cases: list[BenchCase]
    survey: Survey
    options: Options
    machine: Machine
    journal: Journal
    progress: Progress
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = {cluster.name: cluster.cpus for cluster in self.survey.clusters}
        self.control = LinuxFrequencyControl(self.machine.root, names)
        self.source = LinuxSource(self.machine.root, clusters=names)
        self.notes += self.survey.notes
        if self.survey.degree is Degree.NONE:
            # What procfs shows wanders from look to look; a run that goes on keeps the clock of its first part.
            first = self.journal.get("nominal_mhz") or self.survey.clusters[0].steps_mhz[0]
            self.journal.put("nominal_mhz", first)
            clusters = tuple(replace(c, steps_mhz=(first,), known_mhz=(first,)) for c in self.survey.clusters)
            self.survey = replace(self.survey, clusters=clusters)

    def everything(self) -> None:
        settings = [
            (c, mhz, threads) for c in self.survey.clusters for mhz in c.steps_mhz for threads in self._threads(c)
        ]
        rounds = {setting: self._rounds(*setting) for setting in settings}
        with self.progress.stage("time the kernels", sum(rounds.values())) as stage:
            for round_ in range(self.options.used_rounds):
                for cluster, mhz, threads in (setting for setting in settings if round_ < rounds[setting]):
                    stage.note(f"{cluster.name}, {mhz:g} MHz, {threads} thread(s)")
                    self._time(cluster, mhz, threads, round_)
                    stage.advance()
        if self.options.power_s > 0:
            burns = [(c, mhz, threads) for c, mhz, threads in settings if threads == self._threads(c)[-1]]
            with self.progress.stage("read power", len(burns)) as stage:
                for cluster, mhz, threads in burns:
                    stage.note(f"{cluster.name}, {mhz:g} MHz")
                    self._power(cluster, mhz, threads)
                    stage.advance()
        if self.journal.get("switch_us") is None:
            self.journal.put("switch_us", self.bench.switch_us())

    def restore(self) -> None:
        self.control.release()
        self.bench.use(())

    def samples(self, cluster: ClusterSurvey) -> list[LatencySample]:
        """The shortest time of all rounds, with the clock of its round, for every setting and case."""
        found = []
        for mhz in cluster.steps_mhz:
            for threads in self._threads(cluster):
                rounds = range(self._rounds(cluster, mhz, threads))
                clocks = [self.journal.get(self._clock_key(cluster, mhz, threads, r)) or mhz for r in rounds]
                for case in self._cases(cluster, mhz, threads):
                    times = [self.journal.get(self._key(cluster, mhz, threads, r, case)) for r in rounds]
                    known = [(time_ms, clocks[r]) for r, time_ms in enumerate(times) if time_ms is not None]
                    if known:
                        time_ms, real_mhz = min(known)
                        found.append(LatencySample(self.bench.work(case), real_mhz, threads, time_ms, case.shape_name))
        return found

    def power_mw(self, cluster: ClusterSurvey, mhz: float) -> dict[str, Any] | None:
        """Busy and idle power at a clock, and what measured it; none where it could not be read."""
        found = self.journal.get(f"power|{cluster.name}|{mhz:g}")
        return found if isinstance(found, dict) and found.get("busy_mw") is not None else None

    def power_reasons(self) -> list[str]:
        """Why power could not be read, each sentence once."""
        found = {
            str(entry["why"])
            for cluster in self.survey.clusters
            for mhz in cluster.steps_mhz
            if isinstance(entry := self.journal.get(f"power|{cluster.name}|{mhz:g}"), dict) and entry["why"]
        }
        return sorted(found)

    def _threads(self, cluster: ClusterSurvey) -> list[int]:
        most = min(len(cluster.cpus), self.options.max_threads or len(cluster.cpus))
        return list(range(1, most + 1))

    def _rounds(self, cluster: ClusterSurvey, mhz: float, threads: int) -> int:
        most = self.options.used_rounds
        return most if self._is_main(cluster, mhz, threads) else -(-most // 2)

    @staticmethod
    def _is_main(cluster: ClusterSurvey, mhz: float, threads: int) -> bool:
        """Whether this setting is the one that most coefficients depend on."""
        return threads == 1 and mhz == cluster.steps_mhz[-1]

    def _cases(self, cluster: ClusterSurvey, mhz: float, threads: int) -> list[BenchCase]:
        if self._is_main(cluster, mhz, threads):
            return self.cases
        return [case for case in self.cases if zlib.crc32(case.key.encode()) % _PROBE_EVERY == 0]

    def _key(self, cluster: ClusterSurvey, mhz: float, threads: int, round_: int, case: BenchCase) -> str:
        return f"time|{cluster.name}|{mhz:g}|{threads}|{round_}|{case.key}"

    def _clock_key(self, cluster: ClusterSurvey, mhz: float, threads: int, round_: int) -> str:
        return f"clock|{cluster.name}|{mhz:g}|{threads}|{round_}"

    def _time(self, cluster: ClusterSurvey, mhz: float, threads: int, round_: int) -> None:
        cases = self._cases(cluster, mhz, threads)
        if all(self.journal.get(self._key(cluster, mhz, threads, round_, case)) is not None for case in cases):
            return
        self._settle(cluster, mhz)
        # Another order each round: what disturbs for a while then meets different cases.
        models: dict[str, list[BenchCase]] = {}
        for case in cases:
            models.setdefault(case.key.rsplit("/", 2)[0], []).append(case)
        order = sorted(models)
        random.Random(round_).shuffle(order)
        keys = {self._key(cluster, mhz, threads, round_, case): case for model in order for case in models[model]}
        missing = [key for key in keys if self.journal.get(key) is None]
        for key in missing:
            time_ms = self.bench.measure_ms(keys[key], threads)
            if key == missing[-1]:
                # Before the last time is kept: no round is whole without its clock.
                self._note_clock(cluster, mhz, threads, round_)
            self.journal.put(key, time_ms)

    def _settle(self, cluster: ClusterSurvey, mhz: float) -> None:
        self.bench.use(cluster.cpus)
        if mhz in self.control.clusters.get(cluster.name, ()):
            self.control.set_mhz(cluster.name, mhz)

    def _note_clock(self, cluster: ClusterSurvey, mhz: float, threads: int, round_: int) -> None:
        """The clock that the system really ran in this round: heat and other programs have their say."""
        real = self.source.read().freq_mhz.get(cluster.name)
        differs = real is not None and abs(real / mhz - 1) > _CLOCK_TOLERANCE
        self.journal.put(self._clock_key(cluster, mhz, threads, round_), real if differs else mhz)
        if differs and self.survey.degree is Degree.SETS:
            self.notes.append(f"asked for {mhz:g} MHz, cluster {cluster.name} ran at {real:g} MHz in a round.")

    def _power(self, cluster: ClusterSurvey, mhz: float, threads: int) -> None:
        key = f"power|{cluster.name}|{mhz:g}"
        if self.journal.get(key) is not None:
            return
        self._settle(cluster, mhz)
        busy = self._looks(lambda step_s: self.bench.burn(threads, step_s))
        idle = self._looks(self.machine.sleep)
        last = self.source.read()
        self.journal.put(
            key,
            {
                "busy_mw": busy,
                "idle_mw": idle,
                "threads": threads,
                "from": last.power_from,
                "why": last.why("power_mw"),
            },
        )

    def _looks(self, spend: Callable[[float], None]) -> float | None:
        """Mean power while time is spent; the first look, which may still show what was before, does not count."""
        steps = max(3, round(self.options.power_s))
        seen = []
        for step in range(steps + 1):
            spend(self.options.power_s / steps)
            power_mw = self.source.read().power_mw
            if step and power_mw is not None:
                seen.append(power_mw)
        return sum(seen) / len(seen) if seen else None
