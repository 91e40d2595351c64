"""One change of clock within a run: it begins slowly and is raised in time, should it turn out to be slow.

Most runs take less than the time that has to be kept free for the slowest of them. A run that begins at a clock at
which only those would come late, and goes on at a higher clock from the last moment at which that still helps, keeps
the same promise for less energy. The moment is a plain timer: nobody has to know how far the run has come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from lavolta.runtime.scenario import Option, Scenario

LOWER_CLOCKS = 3
"""Clocks below the lowest one that always fits, at which a run may begin."""
SPREAD = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""Where in the margin a run is thought to end, each as often as the others, when energy is predicted."""
ROUNDING_NS = 8
"""A few roundings to whole nanoseconds, which must not make an answer late."""


def latest_raise_ns(low_ns: int, high_ns: int, change_ns: int, room_ns: int) -> int:
    """The latest moment, from its begin on, to raise the clock of a run that must end within ``room_ns``.

    After ``t`` at the low clock at least ``t / low_ns`` of the work is done, so the run takes at most
    ``t + change + (1 - t / low) * high``, wherever in it the delays are.

    Args:
        low_ns, high_ns: the longest that the whole run may take at each clock; the first is the longer one.
        change_ns: time of the change of clock.

    Returns:
        A time; not above 0 where the high clock is too slow.
    """
    return (room_ns - change_ns - high_ns - ROUNDING_NS) * low_ns // (low_ns - high_ns)


def slowdown_of(run_ns: int, low: Option, high: Option, raised_ns: int, change_ns: int) -> float:
    """How many times the prediction a run took that was raised ``raised_ns`` after its begin.

    Args:
        run_ns: from its begin to its end, the change of clock of ``change_ns`` included.
        low, high: what was predicted at the two clocks.
    """
    # run = raised + change + high * (s - raised / low), solved for s.
    return (run_ns - raised_ns - change_ns) / high.latency_ns + raised_ns / low.latency_ns


@dataclass(frozen=True)
class RaisedOption:
    """An option with a raise, and what it costs.

    Args:
        option: its choice has the higher clock and the moment; its prediction is that of the lower clock.
        above_fj: mean energy above idle, changes of clock included.
    """

    option: Option
    above_fj: int


def raised_options(
    scenario: Scenario,
    options: Sequence[Option],
    p99_ns: Callable[[Option], int],
    room_ns: Callable[[Option], int],
    margin: float,
) -> Iterator[RaisedOption]:
    """For each level, cluster and thread count: options that begin below the lowest clock that always fits.

    Args:
        options: without raises.
        p99_ns: the longest that an option may take.
        room_ns: how long it may take to be in time; the same for all options of a level, cluster and thread count.
        margin: share by which a run may take longer or shorter than usual.
    """
    for _, group in groupby(
        sorted(options, key=lambda o: (o.choice.kind, o.choice.freq_mhz)), key=lambda o: o.choice.kind
    ):
        same = list(group)
        room = room_ns(same[0])
        fits = next((place for place, option in enumerate(same) if p99_ns(option) <= room), 0)
        for low in same[max(0, fits - LOWER_CLOCKS) : fits]:
            found = [
                raised
                for high in same[fits:]
                if (raised := _raised(scenario, low, high, p99_ns, margin, room)) is not None
            ]
            if found:
                yield min(found, key=lambda raised: (raised.above_fj, raised.option.choice))


def _raised(
    scenario: Scenario, low: Option, high: Option, p99_ns: Callable[[Option], int], margin: float, room_ns: int
) -> RaisedOption | None:
    if p99_ns(high) >= p99_ns(low):
        return None
    change_ns = scenario.switch_ns(low.choice, high.choice)
    after_ns = latest_raise_ns(p99_ns(low), p99_ns(high), change_ns, room_ns)
    if after_ns <= 0:
        return None
    # There and, before the next run, back again.
    changes_fj = scenario.switch_fj(low.choice, high.choice) + scenario.switch_fj(high.choice, low.choice)
    idle_uw = scenario.idle_uw[1]
    # How long a usual run takes, over the prediction.
    usual = p99_ns(low) / low.latency_ns / (1 + margin)
    total = 0.0
    for place in SPREAD:
        slowdown = usual * (1 + margin * place)
        first_ns = min(after_ns, slowdown * low.latency_ns)
        rest = slowdown - first_ns / low.latency_ns
        total += (low.cell_uw - idle_uw) * first_ns
        if rest > 0:
            total += (high.cell_uw - idle_uw) * rest * high.latency_ns + changes_fj
    choice = replace(low.choice, raise_mhz=high.choice.freq_mhz, raise_after_ns=after_ns)
    # As that of other options: of a run that takes as long as predicted.
    return RaisedOption(replace(low, choice=choice), round(total / len(SPREAD) / usual))
