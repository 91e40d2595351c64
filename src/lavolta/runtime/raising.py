"""One change of clock or cluster within a run: it begins slowly and is raised in time, should it turn out to be slow.

Most runs take less than the time that has to be kept free for the slowest of them. A run that begins at a clock at
which only those would come late, and goes on at a higher clock from the last moment at which that still helps, keeps
the same promise for less energy. The moment is a plain timer: nobody has to know how far the run has come.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from lavolta.runtime.hull import time_energy_hull
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
        change_ns: time of the change of clock, and of cluster.

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
        option: its choice has what it is raised to, and the moment; its prediction is that of what it begins with.
        above_fj: mean energy above idle, changes of clock and cluster included.
    """

    option: Option
    above_fj: int


def raised_options(
    scenario: Scenario,
    options: Sequence[Option],
    p99_ns: Callable[[Option], int],
    room_ns: Callable[[Option], int],
    margin: float,
    moves: bool = False,
) -> Iterator[RaisedOption]:
    """For each level, cluster and thread count: options that begin below the lowest clock that always fits.

    Args:
        options: without raises.
        p99_ns: the longest that an option may take.
        room_ns: how long it may take to be in time; the same for all options of a level, cluster and thread count.
        margin: share by which a run may take longer or shorter than usual.
        moves: whether the rest of a run can be moved to another cluster. So a cluster that is too slow for the slowest
            runs serves all others.
    """
    kinds: dict[tuple[str, str, int], list[Option]] = {}
    for option in sorted(options, key=lambda o: (o.choice.kind, o.choice.freq_mhz)):
        kinds.setdefault(option.choice.kind, []).append(option)
    idle_uw = scenario.idle_uw[1]
    worth = {kind: time_energy_hull(same, idle_uw) for kind, same in kinds.items()}
    cheapest_fj: dict[str, int] = {}
    for option in options:
        if p99_ns(option) <= room_ns(option):
            above_fj = (option.cell_uw - idle_uw) * option.latency_ns
            level = option.choice.level
            cheapest_fj[level] = min(above_fj, cheapest_fj.get(level, above_fj))
    for kind, same in kinds.items():
        level, cluster, threads = kind
        room = room_ns(same[0])
        fits = next((place for place, option in enumerate(same) if p99_ns(option) <= room), len(same))
        least_mhz = same[fits].choice.freq_mhz if fits < len(same) else math.inf
        highs = [high for high in worth[kind] if high.choice.freq_mhz >= least_mhz]
        for other in kinds if moves else ():
            if other[0] == level and other[1] != cluster and other[2] == threads:
                highs += worth[other]
        for low in same[max(0, fits - LOWER_CLOCKS) : fits]:
            if (low.cell_uw - idle_uw) * low.latency_ns >= cheapest_fj.get(level, math.inf):
                continue
            low_ns = p99_ns(low)
            raises = [
                raised for high in highs if (raised := _raise(scenario, low, low_ns, high, p99_ns(high), margin, room))
            ]
            if raises:
                # Made for the cheapest alone: a plan looks at hundreds of them.
                above_fj, freq_mhz, after_ns, moved_to = min(raises)
                choice = replace(low.choice, raise_mhz=freq_mhz, raise_after_ns=after_ns, raise_cluster=moved_to)
                yield RaisedOption(replace(low, choice=choice), above_fj)


def _raise(
    scenario: Scenario, low: Option, low_ns: int, high: Option, high_ns: int, margin: float, room_ns: int
) -> tuple[int, float, int, str] | None:
    """What a raise costs above idle, and its clock, moment and cluster; none where it does not help.

    Args:
        low_ns, high_ns: the longest that the whole run may take at each.
    """
    if high_ns >= low_ns:
        return None
    change_ns = scenario.switch_ns(low.choice, high.choice)
    after_ns = latest_raise_ns(low_ns, high_ns, change_ns, room_ns)
    if after_ns <= 0:
        return None
    # There and, before the next run, back again.
    changes_fj = scenario.switch_fj(low.choice, high.choice) + scenario.switch_fj(high.choice, low.choice)
    idle_uw = scenario.idle_uw[1]
    moved = high.choice.cluster != low.choice.cluster
    # How long a usual run takes, over the prediction; another cluster may be off by another factor.
    alone_ns = low.latency_ns
    usual = low_ns / alone_ns / (1 + margin)
    rest_ns = high_ns * alone_ns / low_ns if moved else float(high.latency_ns)
    low_uw, high_uw = low.cell_uw - idle_uw, high.cell_uw - idle_uw
    total = 0.0
    for place in SPREAD:
        slowdown = usual * (1 + margin * place)
        first_ns = min(after_ns, slowdown * alone_ns)
        rest = slowdown - first_ns / alone_ns
        total += low_uw * first_ns
        if rest > 0:
            total += high_uw * rest * rest_ns + changes_fj
    # As that of other options: of a run that takes as long as predicted.
    above_fj = round(total / len(SPREAD) / usual)
    return above_fj, high.choice.freq_mhz, after_ns, high.choice.cluster if moved else ""
