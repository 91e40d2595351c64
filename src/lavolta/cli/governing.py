"""What `lavolta govern` and `lavolta serve` share: a goal in words, a scenario from a bundle and a profile."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lavolta.cli.simulate import USUAL_TOKENS, count_of, levels_of
from lavolta.errors import UserInputError

if TYPE_CHECKING:
    from lavolta.devices import DeviceProfile
    from lavolta.runtime.engine import Model
    from lavolta.runtime.governor import Goal
    from lavolta.runtime.governor_loop import Served
    from lavolta.runtime.scenario import Scenario

_HOURS = {"h": 1.0, "m": 1 / 60, "min": 1 / 60, "s": 1 / 3600}
HEAT_BAND_C = 15.0
"""How far below the limit of a profile the clock begins to fall."""
MARGIN = 0.2
TOLD_SHARE = 0.01
"""Share of the wanted time by which a charge may end too early before it is said."""
RHYTHM_ANSWERS = 32
"""Answers after which the rhythm of requests counts as known."""

Deadline = Annotated[float, typer.Option("--deadline-ms", help="Longest allowed time of one answer, in ms.")]
Until = Annotated[
    str | None, typer.Option("--until", help="How long the charge has to last, such as 8h or 90min; best score.")
]
Reserve = Annotated[
    str | None, typer.Option("--reserve", help="Share of the charge to keep, such as 10%; best score until then.")
]
MinScore = Annotated[float | None, typer.Option("--min-score", help="Use no level below this score.")]
MeanScore = Annotated[
    float | None, typer.Option("--mean-score", help="Lowest energy with at least this score on average.")
]
Margin = Annotated[
    float, typer.Option("--margin", min=0.0, help="Share by which a run may take longer than predicted.")
]
Device = Annotated[
    str | None, typer.Option("--device", help="A device name or a .toml profile; absent: that of the bundle.")
]
Simulate = Annotated[
    bool, typer.Option("--simulate", help="A device in numbers: its time and battery, this computer's answers.")
]
Tokens = Annotated[
    int | None, typer.Option("--tokens", min=1, help="Tokens of one request; absent: as the bundle was made for.")
]
Threads = Annotated[int, typer.Option("--threads", min=1, max=256, help="Threads of the engine.")]
Clusters = Annotated[
    list[str] | None,
    typer.Option("--cluster", help="A cluster of the device that may be used; repeat it. Absent: all of them."),
]
KeepClock = Annotated[bool, typer.Option("--keep-clock", help="Leave the clock to the system.")]
Sysfs = Annotated[Path, typer.Option("--sysfs", help="Where the system shows its devices.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the simulated device's timing noise.")]


def goal_of(
    until: str | None, reserve: str | None, min_score: float | None, mean_score: float | None, margin: float
) -> Goal:
    """The goal of the options.

    Raises:
        UserInputError: a time or a share that cannot be read, or goals that exclude each other.
    """
    from lavolta.runtime.governor import Goal

    return Goal(_hours(until), _share("--reserve", reserve), min_score, mean_score, margin)


def scenario_of(
    bundle: Path,
    device: str | None,
    deadline_ms: float,
    period_ms: float | None,
    tokens: int | None,
    threads: int,
    goal: Goal,
    wanted: list[str] | None,
    simulate: bool,
) -> tuple[Scenario, Goal, int]:
    """The scenario of a bundle on a device, the goal with the device's limits of heat, and the tokens of a request.

    Args:
        period_ms: rhythm of the requests; where not given, it is learned.
        wanted, simulate: see `_clusters`.
    """
    from lavolta.devices import DEFAULT, Accounting, load
    from lavolta.runtime.bundle import BundleFile
    from lavolta.runtime.scenario import Scenario

    opened = BundleFile.open(bundle)
    made_for = opened.manifest["device"]
    profile = load(device or str(made_for.get("name", DEFAULT)))
    if profile.thermal is not None:
        limit_c = profile.thermal.limit_c
        goal = replace(goal, warn_c=limit_c - HEAT_BAND_C, max_c=limit_c)
    length = tokens or count_of(made_for.get("tokens"), min(USUAL_TOKENS, opened.spec.max_tokens))
    names = _clusters(profile, wanted, simulate)
    scenario = Scenario(
        profile,
        levels_of(opened, length),
        deadline_ms,
        period_ms or deadline_ms,
        (min(threads, profile.cluster(names[0]).cores),),
        clusters=names,
        accounting=Accounting.BOARD,
        gap_ms=0.0 if period_ms is None else None,
    )
    return scenario, goal, length


def _clusters(profile: DeviceProfile, wanted: list[str] | None, simulate: bool) -> tuple[str, ...]:
    """The clusters to choose among: those that were asked for, else all whose cores are known to be here."""
    if wanted:
        return tuple(wanted)
    names = profile.cluster_names
    here = os.sched_getaffinity(0)
    cpus = [profile.cluster(name).cpus for name in names]
    if simulate or all(known is not None and here.issuperset(known) for known in cpus):
        return names
    return names[:1]


def models_of(
    bundle: Path, scenario: Scenario, threads: int, named: bool, simulate: bool, opened: ExitStack
) -> dict[str, Model]:
    """The model on the cores of each cluster; wherever the engine likes where there is only one and none was named, and
    of a simulated device.

    Args:
        named: whether clusters were asked for.
        opened: closes the models.
    """
    from lavolta.runtime.engine import open_bundle

    def open_model(cores: Sequence[int] | None) -> Model:
        return opened.enter_context(open_bundle(bundle, threads=threads, cores=cores))

    if simulate:
        return {"": open_model(None)}
    clusters = scenario.used_clusters
    pinned = named or len(clusters) > 1
    for cluster in clusters:
        if cluster.cpus is None and pinned:
            raise UserInputError(
                f"the profile does not say which CPUs cluster {cluster.name} has; add `cpus` to it, or name no cluster."
            )
    return {cluster.name: open_model(cluster.cpus if pinned else None) for cluster in clusters}


class Told:
    """Says on stderr, once, that the charge cannot do what was asked for.

    Where the rhythm of requests is learned, a few have to come first: it is taken for a quick one until then.
    """

    def __init__(self, goal: Goal, scenario: Scenario) -> None:
        self._goal, self._told = goal, False
        self._first = 0 if scenario.gap_ms is None else RHYTHM_ANSWERS

    def __call__(self, answer: Served) -> None:
        from lavolta.runtime.governor import Reason

        if self._told:
            return
        goal = self._goal
        short_h = None if answer.index < self._first else answer.short_h
        if answer.reason == Reason.UNKNOWN.value:
            words = "the charge is not known: until it is, answers come at the lowest energy."
        elif short_h is not None and goal.until_h is not None and short_h > TOLD_SHARE * goal.until_h:
            kept = f" down to {100 * goal.reserve:g} %" if goal.reserve else ""
            words = (
                f"even at the lowest energy the charge is spent{kept} {short_h:.1f} h before the "
                f"{goal.until_h:g} h are over; wish for less, or allow a longer deadline."
            )
        else:
            return
        self._told = True
        # Nobody who reads is no reason to stop serving.
        with suppress(OSError):
            print(f"lavolta: {words}", file=sys.stderr, flush=True)


def _hours(words: str | None) -> float | None:
    if words is None:
        return None
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(h|min|m|s)\s*", words)
    if found is None:
        raise UserInputError(f"--until {words} is no time; write it as 8h, 90min or 45s.")
    hours = float(found[1]) * _HOURS[found[2]]
    if not hours > 0:
        raise UserInputError(f"--until {words} is over at once; give a time above 0.")
    return hours


def _share(option: str, words: str | None) -> float | None:
    if words is None:
        return None
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(%?)\s*", words)
    if found is None:
        raise UserInputError(f"{option} {words} is no share; write it as 10% or 0.1.")
    share = float(found[1]) / (100 if found[2] else 1)
    if not share < 1:
        raise UserInputError(f"{option} {words} leaves nothing to spend; give less than 100%.")
    return share
