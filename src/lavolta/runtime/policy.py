"""What every policy sees and answers: the state of a request, the protocol, and what is told after a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from lavolta.runtime.scenario import Choice, Option


@dataclass(frozen=True)
class State:
    """What a policy knows when a request starts. Whole units, so that a plan neither drifts nor flips by rounding.

    Args:
        charge_fj, capacity_fj: what is left, and what a full battery holds.
        time_ns: since the start.
        waited_ns: how long this request has waited already.
        current: the choice in force; none before the first request.
        behind_ns: how long each request behind this one has waited, oldest first.
        charge_known: false where nothing reads the battery; the two numbers of the charge mean nothing then.
        on_ac: something else than the battery feeds the device.
        limit_mhz: the highest clock allowed at present (heat), by cluster; without those that have no such limit.
        clock_mhz: the clocks that the system has chosen, by cluster; empty where the policy sets them.
    """

    charge_fj: int
    capacity_fj: int
    time_ns: int
    waited_ns: int = 0
    current: Choice | None = None
    behind_ns: tuple[int, ...] = ()
    charge_known: bool = True
    on_ac: bool = False
    limit_mhz: Mapping[str, float] = field(default_factory=dict)
    clock_mhz: Mapping[str, float] = field(default_factory=dict)

    @property
    def charge(self) -> float:
        """Share of the capacity that is left, 0 to 1."""
        return self.charge_fj / self.capacity_fj

    @property
    def time_h(self) -> float:
        return self.time_ns / 3.6e12


class Policy(Protocol):
    """Chooses for every request.

    Attributes:
        name: short and stable.
        words: what it does, with its thresholds, in one sentence.
        breaks_ns: a promise that lets a simulation look for the next change instead of asking at every request: while
            one choice is repeated at a constant rhythm, the policy changes its mind at most once between two of these
            times before the change is acted on. None promises nothing.
    """

    @property
    def name(self) -> str: ...

    @property
    def words(self) -> str: ...

    @property
    def breaks_ns(self) -> tuple[int, ...] | None: ...

    def choose(self, state: State) -> Choice:
        """How the request that starts now runs."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What a run turned out to be.

    Args:
        option: what was predicted.
        start_ns: when the request was taken up, on the policy's clock.
        run_ns: how long the run took, changes of clock and level left out; at the clock that it began with.
        response_ns: from the arrival of the request to its result.
        deadline_ns: how long it was allowed to take.
        energy_share: measured over predicted energy since the last outcome that had one; none where nothing measures.
        timed: false where ``run_ns`` says nothing: a run that was cut short before it could take what was predicted.
    """

    option: Option
    start_ns: int
    run_ns: int
    response_ns: int
    deadline_ns: int
    energy_share: float | None = None
    timed: bool = True


@runtime_checkable
class Learner(Protocol):
    """A policy that learns from what happened."""

    def restart(self) -> None:
        """Forget everything: a new charge begins."""
        ...

    def observe(self, outcome: Outcome) -> None:
        """Learn from one finished run."""
        ...


@runtime_checkable
class OwnClock(Protocol):
    """A policy whose clock moves by itself, also within a run, as a kernel's governor does."""

    def restart(self) -> None:
        """A new charge begins: the processor has been idle for long."""
        ...

    def run(self, start_ns: int, times_ns: Mapping[float, int], /) -> Sequence[tuple[float, int]]:
        """The clock during a run that starts at ``start_ns``; runs are given in order, between them all is idle.

        Args:
            times_ns: clock in MHz to the time that the whole run takes at it.

        Returns:
            ``(clock in MHz, nanoseconds)`` one after another, until the run is done.
        """
        ...
