"""What a simulation and its policies look at: a device, the levels of a model, a deadline and a rhythm of requests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from lavolta.devices.charge import to_ns, to_uw
from lavolta.devices.energy import Accounting, idle_mw, run_mw
from lavolta.devices.latency import latency_ms, require_feasible
from lavolta.devices.profile import Cluster, DeviceProfile
from lavolta.devices.work import Work
from lavolta.errors import InfeasibleError, UserInputError


@dataclass(frozen=True)
class LevelWork:
    """One level of a model: its work per inference, and its score (any scale, higher is better)."""

    name: str
    work: Work
    score: float


@dataclass(frozen=True, order=True)
class Choice:
    """How the next inference runs.

    Args:
        cluster: whose cores run it, at that cluster's clock.
        raise_mhz, raise_after_ns: a run that has not ended so long after it began goes on at this clock; 0: no run
            does.
        raise_cluster: where it goes on; where it began, if empty.
    """

    freq_mhz: float
    threads: int
    level: str
    cluster: str
    raise_mhz: float = 0.0
    raise_after_ns: int = 0
    raise_cluster: str = ""

    @property
    def plain(self) -> Choice:
        """The same without a change of clock in mid-run."""
        return Choice(self.freq_mhz, self.threads, self.level, self.cluster) if self.raise_mhz else self

    @property
    def kind(self) -> tuple[str, str, int]:
        """What choices share that differ in their clocks alone."""
        return self.level, self.cluster, self.threads

    @property
    def raised(self) -> Choice:
        """What the run goes on with, once its clock was raised."""
        return Choice(self.raise_mhz, self.threads, self.level, self.raise_cluster or self.cluster)


@dataclass(frozen=True)
class Option:
    """A choice and what the predictor says of it, in whole units; of one with a raise, at the clock it begins with."""

    choice: Choice
    latency_ns: int
    load_uw: int
    cell_uw: int
    score: float


@dataclass(frozen=True)
class Scenario:
    """A workload on a device: requests with a rhythm and a deadline.

    Args:
        levels: at least one, names differ; any order.
        deadline_ms: from the arrival of a request to its result.
        period_ms: time between requests; for irregular arrivals, their mean.
        gap_ms: for irregular arrivals, the shortest time between two of them; absent: every period.
        threads: thread counts that a policy may choose from; fixed policies take the first.
        clusters: clusters that a policy may choose from, by name; fixed policies take the first. The profile's default
            alone where none is named. A thread count that is more than a later cluster has is not offered there.
        isa: the profile's default where not named.
        accounting: whose power counts.

    Raises:
        UserInputError: a value outside its range.
    """

    profile: DeviceProfile
    levels: tuple[LevelWork, ...]
    deadline_ms: float
    period_ms: float
    threads: tuple[int, ...] = (1,)
    clusters: tuple[str, ...] = ()
    isa: str | None = None
    accounting: Accounting = Accounting.CPU
    gap_ms: float | None = None

    def __post_init__(self) -> None:
        for name in ("deadline_ms", "period_ms"):
            value = getattr(self, name)
            if not (math.isfinite(value) and to_ns(value) >= 1):
                raise UserInputError(f"{name} is {value}; give a positive number of milliseconds.")
        if self.gap_ms is not None and not 0.0 <= self.gap_ms <= self.period_ms:
            raise UserInputError(f"gap_ms is {self.gap_ms}; give 0 to the mean period of {self.period_ms:g} ms.")
        names = [level.name for level in self.levels]
        if not names:
            raise UserInputError("there is no level to run; give at least one.")
        if len(set(names)) != len(names):
            raise UserInputError(f"two levels have the same name among {', '.join(names)}; rename one.")
        for level in self.levels:
            if not math.isfinite(level.score):
                raise UserInputError(f"the score of level {level.name} is {level.score}; give a finite number.")
        if len(set(self.clusters)) != len(self.clusters):
            raise UserInputError(f"a cluster is named twice among {', '.join(self.clusters)}; name it once.")
        cores = self.used_clusters[0].cores
        if not self.threads or any(not 1 <= count <= cores for count in self.threads):
            raise UserInputError(
                f"threads {self.threads} do not fit cluster {self.used_cluster.name}; give 1 to {cores}."
            )

    @cached_property
    def used_clusters(self) -> tuple[Cluster, ...]:
        """Those that a policy may choose from."""
        return tuple(self.profile.cluster(name) for name in self.clusters) or (self.profile.cluster(),)

    @property
    def used_cluster(self) -> Cluster:
        """The one that fixed policies take."""
        return self.used_clusters[0]

    @cached_property
    def deadline_ns(self) -> int:
        return to_ns(self.deadline_ms)

    @cached_property
    def period_ns(self) -> int:
        return to_ns(self.period_ms)

    @cached_property
    def limit_ns(self) -> int:
        """The longest run that keeps the deadline and the rhythm. Irregular requests may queue: only the deadline."""
        return self.deadline_ns if self.gap_ms is not None else min(self.deadline_ns, self.period_ns)

    def at_clocks(self, clocks_mhz: Mapping[str, float]) -> dict[Choice, Option]:
        """Every choice at clocks that somebody else has set, also between the steps; the next step's power counts.

        Args:
            clocks_mhz: of each cluster that may be used.
        """
        found: dict[Choice, Option] = {}
        for cluster in self.used_clusters:
            freq_mhz = clocks_mhz.get(cluster.name)
            if freq_mhz is not None:
                steps = cluster.steps
                power_step = next((step for step in steps if step.freq_mhz >= freq_mhz), steps[-1])
                found.update(self._options(cluster, freq_mhz, power_step.freq_mhz))
        return found

    @cached_property
    def idle_uw(self) -> tuple[int, int]:
        """Power between requests: of the load, and of the cell."""
        load = idle_mw(self.profile, self.accounting)
        return self._cell(load)

    @cached_property
    def options(self) -> dict[Choice, Option]:
        """Every choice that the battery can supply, with its prediction."""
        found: dict[Choice, Option] = {}
        for cluster in self.used_clusters:
            for step in cluster.steps:
                found.update(self._options(cluster, step.freq_mhz, step.freq_mhz))
        return found

    def option(self, choice: Choice) -> Option:
        """The prediction of a choice.

        Raises:
            InfeasibleError: the battery cannot supply it.
            UserInputError: it is not a choice of this scenario.
        """
        known = self.options.get(choice.plain)
        if known is not None:
            return replace(known, choice=choice) if choice.raise_mhz else known
        names = {cluster.name for cluster in self.used_clusters}
        known_level = choice.level in {level.name for level in self.levels}
        if known_level and choice.threads in self.threads and choice.cluster in names:
            load = run_mw(self.profile, choice.freq_mhz, choice.threads, self.accounting, choice.cluster)
            self._cell(load)
        raise UserInputError(f"{choice} is not a choice here: unknown level, thread count, cluster or frequency.")

    def switch_ns(self, before: Choice | None, after: Choice) -> int:
        """Time that going from one choice to another takes; the first choice of a charge is free."""
        return 0 if before is None else _changed(before, after, *self._switch_times_ns)

    def switch_fj(self, before: Choice | None, after: Choice) -> int:
        """Energy that it takes beside the idle power of that time."""
        return 0 if before is None else _changed(before, after, *self._switch_energies_fj)

    @cached_property
    def _switch_times_ns(self) -> tuple[int, int, int]:
        cost = self.profile.switching
        return to_ns(cost.frequency_us / 1e3), to_ns(cost.level_us / 1e3), to_ns(cost.cluster_us / 1e3)

    @cached_property
    def _switch_energies_fj(self) -> tuple[int, int, int]:
        cost = self.profile.switching
        return round(cost.frequency_uj * 1e9), round(cost.level_uj * 1e9), round(cost.cluster_uj * 1e9)

    @cached_property
    def full_switch_ns(self) -> int:
        """Time of a change of everything that can change: frequency, level, and cluster where there are several."""
        frequency, level, cluster = self._switch_times_ns
        return frequency + level + cluster * (len(self.used_clusters) > 1)

    @cached_property
    def clock_switch_ns(self) -> int:
        """Time of a change of frequency alone."""
        return self._switch_times_ns[0]

    def period_fj(self, option: Option) -> int:
        """Energy of one period: the run and the idle time after it (none, where the run is longer)."""
        idle_ns = max(0, self.period_ns - option.latency_ns)
        return option.cell_uw * option.latency_ns + self.idle_uw[1] * idle_ns

    def fitting(self, margin: float = 0.0, with_switch: bool = True) -> list[Option]:
        """Options whose predicted latency, times ``1 + margin``, keeps deadline and rhythm.

        Args:
            with_switch: whether a change of frequency and level before the run has to fit too.
        """
        switch_ns = self.full_switch_ns if with_switch else 0
        return [
            option
            for option in self.options.values()
            if math.ceil(option.latency_ns * (1 + margin)) + switch_ns <= self.limit_ns
        ]

    def refuse(self, why: str = "") -> InfeasibleError:
        """The error for a scenario that no option fits; it names the closest level and what would be needed."""
        limit_ms = self.limit_ns / 1e6
        binding = "" if self.deadline_ns <= self.period_ns else f" (a request every {self.period_ms:g} ms)"
        works = {level.name: level.work for level in self.levels}
        try:
            require_feasible(self.profile, works, limit_ms, max(self.threads), self.isa, self.used_cluster.name)
        except InfeasibleError as error:
            return InfeasibleError(f"{str(error)[:-1]}{binding}.")
        return InfeasibleError(f"no level keeps {limit_ms:g} ms on {self.profile.name}{binding}{why}.")

    def _options(self, cluster: Cluster, freq_mhz: float, power_mhz: float) -> dict[Choice, Option]:
        found: dict[Choice, Option] = {}
        for threads in self.threads:
            if threads > cluster.cores:
                continue
            try:
                load_uw, cell_uw = self._cell(run_mw(self.profile, power_mhz, threads, self.accounting, cluster.name))
            except InfeasibleError:
                continue
            for level in self.levels:
                time_ms = latency_ms(self.profile, level.work, freq_mhz, threads, self.isa, cluster.name)
                choice = Choice(freq_mhz, threads, level.name, cluster.name)
                found[choice] = Option(choice, max(1, to_ns(time_ms)), load_uw, cell_uw, level.score)
        return found

    def _cell(self, load_mw: float) -> tuple[int, int]:
        load_uw = to_uw(load_mw)
        return load_uw, max(load_uw, to_uw(self.profile.battery.cell_mw(load_mw)))


def _changed(before: Choice, after: Choice, frequency: int, level: int, cluster: int) -> int:
    """What a change costs; another cluster has another clock, which is set too."""
    moved = before.cluster != after.cluster
    clock = moved or before.freq_mhz != after.freq_mhz
    return frequency * clock + level * (before.level != after.level) + cluster * moved
