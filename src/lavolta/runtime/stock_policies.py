"""What a Linux system does by itself: one level for the whole charge, and the clock as the kernel's governors move it.

Models of `performance`, `powersave`, `ondemand` and `schedutil` after Linux' Documentation/admin-guide/pm/cpufreq.rst,
drivers/cpufreq/cpufreq_ondemand.c and kernel/sched/cpufreq_schedutil.c, with the defaults named below. The processor is
busy while a request runs and idle otherwise; nothing else runs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from lavolta.errors import UserInputError
from lavolta.runtime.policy import State
from lavolta.runtime.scenario import Choice, Scenario

SAMPLE_NS = 10_000_000
"""ondemand: time between two looks at the load; the kernel's cap on the usual default."""
UP_THRESHOLD = 0.95
"""ondemand: load above which the clock goes to the top (idle times are known exactly)."""
TICK_NS = 4_000_000
"""schedutil: time between two looks at the utilization (250 ticks a second)."""
HALF_LIFE_NS = 32_000_000
"""schedutil: half-life of the utilization signal (PELT)."""
HEADROOM = 1.25
"""schedutil: clock asked for, over the clock that the utilization fills."""
ESTIMATE_WEIGHT = 0.25
"""schedutil: weight of the last run in the estimate that a waking task brings along (UTIL_EST)."""


def fixed_choices(scenario: Scenario, level: str, threads: int, cluster: str | None = None) -> list[Choice]:
    """Everything that a policy with a fixed level on one cluster may choose, by rising clock.

    Raises:
        UserInputError: an unknown level or cluster, or a thread count that the cluster cannot run.
    """
    names = [known.name for known in scenario.levels]
    if level not in names:
        raise UserInputError(f"unknown level {level!r}; the levels are {', '.join(names)}.")
    home = scenario.used_cluster.name if cluster is None else cluster
    found = sorted(choice for choice in scenario.options if choice.kind == (level, home, threads))
    if not found:
        raise UserInputError(f"nothing runs {threads} thread(s) on cluster {home!r} here; name one of the scenario's.")
    return found


class StockPolicy(ABC):
    """One level, and the clock of a kernel governor.

    Args:
        level: its name.
        threads: the scenario's first count where not given.
        cluster: the scenario's first where not given.

    Raises:
        UserInputError: an unknown level or cluster.
    """

    governor: str
    rule: str
    breaks_ns: tuple[int, ...] | None = None

    def __init__(self, scenario: Scenario, level: str, threads: int | None = None, cluster: str | None = None) -> None:
        threads = scenario.threads[0] if threads is None else threads
        same = fixed_choices(scenario, level, threads, cluster)
        self._steps = [choice.freq_mhz for choice in same]
        place = "" if cluster is None else f" on {cluster}"
        self.name = f"{self.governor}:{level}{place}"
        self.words = f"stock Linux, {self.governor}: level {level}{place} for the whole charge; clock: {self.rule}"
        self._choice = same[0]
        self.restart()

    def choose(self, state: State) -> Choice:
        # The clock belongs to the governor below: a request starts at whatever it is.
        return state.current or self._choice

    @abstractmethod
    def restart(self) -> None: ...

    @abstractmethod
    def run(self, start_ns: int, times_ns: Mapping[float, int], /) -> Sequence[tuple[float, int]]: ...

    def _step_for(self, freq_mhz: float) -> float:
        """The lowest step that is at least this fast, else the top one."""
        return next((step for step in self._steps if step >= freq_mhz), self._steps[-1])


class Performance(StockPolicy):
    """Always the top clock: race to idle."""

    governor, rule = "performance", "always the highest clock"

    def restart(self) -> None:
        return None

    def run(self, _start_ns: int, times_ns: Mapping[float, int], /) -> Sequence[tuple[float, int]]:
        return [(self._steps[-1], times_ns[self._steps[-1]])]


class Powersave(StockPolicy):
    """Always the lowest clock."""

    governor, rule = "powersave", "always the lowest clock"

    def restart(self) -> None:
        return None

    def run(self, _start_ns: int, times_ns: Mapping[float, int], /) -> Sequence[tuple[float, int]]:
        return [(self._steps[0], times_ns[self._steps[0]])]


class _Segments:
    """The work of one run, done piece by piece at changing clocks."""

    def __init__(self, times_ns: Mapping[float, int]) -> None:
        self._times_ns = times_ns
        self._left = 1.0
        self.pieces: list[tuple[float, int]] = []

    @property
    def done(self) -> bool:
        return self._left <= 0.0

    def advance(self, freq_mhz: float, most_ns: int) -> int:
        """Run at a clock for at most a time; returns the time taken."""
        whole_ns = self._times_ns[freq_mhz]
        needed_ns = max(1, math.ceil(self._left * whole_ns))
        taken = min(needed_ns, most_ns)
        self._left = 0.0 if taken == needed_ns else self._left - taken / whole_ns
        if self.pieces and self.pieces[-1][0] == freq_mhz:
            taken_before = self.pieces.pop()[1]
            self.pieces.append((freq_mhz, taken_before + taken))
        else:
            self.pieces.append((freq_mhz, taken))
        return taken


class Ondemand(StockPolicy):
    """Looks at the load of the last sample: top clock above a threshold, else in proportion."""

    governor = "ondemand"
    rule = f"every {SAMPLE_NS // 10**6} ms: the highest clock above {100 * UP_THRESHOLD:g} % load, else in proportion"

    def restart(self) -> None:
        self._freq = self._steps[0]
        self._sample = 0
        self._busy_ns = 0

    def run(self, start_ns: int, times_ns: Mapping[float, int], /) -> Sequence[tuple[float, int]]:
        self._look(start_ns // SAMPLE_NS)
        work, now = _Segments(times_ns), start_ns
        while not work.done:
            end_ns = (self._sample + 1) * SAMPLE_NS
            # At the top a fully busy sample changes nothing: run to the end at once.
            full = self._freq == self._steps[-1] and now % SAMPLE_NS == 0
            taken = work.advance(self._freq, 1 << 62 if full else end_ns - now)
            now += taken
            if full:
                self._sample, self._busy_ns = now // SAMPLE_NS, now % SAMPLE_NS
                continue
            self._busy_ns += taken
            self._look(now // SAMPLE_NS)
        return work.pieces

    def _look(self, sample: int) -> None:
        """Close the samples before this one; all but the first of them were idle."""
        if sample > self._sample:
            self._freq = self._wanted(self._busy_ns / SAMPLE_NS) if sample == self._sample + 1 else self._steps[0]
            self._sample, self._busy_ns = sample, 0

    def _wanted(self, load: float) -> float:
        if load > UP_THRESHOLD:
            return self._steps[-1]
        wanted = self._steps[0] + load * (self._steps[-1] - self._steps[0])
        return min(self._steps, key=lambda step: abs(step - wanted))


class Schedutil(StockPolicy):
    """Follows the scheduler's utilization signal with 25 % of headroom."""

    governor = "schedutil"
    rule = f"{HEADROOM:g} x utilization x highest clock, half-life {HALF_LIFE_NS // 10**6} ms, estimated at wake-up"

    def restart(self) -> None:
        self._signal = 0.0
        self._estimate = 0.0
        self._last_ns = 0

    def run(self, start_ns: int, times_ns: Mapping[float, int], /) -> Sequence[tuple[float, int]]:
        top = self._steps[-1]
        self._signal *= _decay(start_ns - self._last_ns)
        work, now = _Segments(times_ns), start_ns
        while not work.done:
            freq = self._step_for(HEADROOM * max(self._signal, self._estimate) * top)
            # At the top the signal only rises: nothing changes until the end.
            steady = freq == top and HEADROOM * max(self._signal, self._estimate) >= 1.0
            taken = work.advance(freq, 1 << 62 if steady else TICK_NS)
            kept = _decay(taken)
            self._signal = self._signal * kept + (1.0 - kept) * freq / top
            now += taken
        self._last_ns = now
        smooth = self._estimate + ESTIMATE_WEIGHT * (self._signal - self._estimate)
        self._estimate = max(smooth, self._signal)
        return work.pieces


def _decay(time_ns: int) -> float:
    return float(0.5 ** (time_ns / HALF_LIFE_NS))


STOCK: tuple[type[StockPolicy], ...] = (Performance, Powersave, Ondemand, Schedutil)
"""The kernel's governors, in the order of reports."""
