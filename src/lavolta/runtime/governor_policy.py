"""The governor as a policy of the simulation: with its predictions as they are, or learning from what happens."""

from __future__ import annotations

from lavolta.runtime.governor import Demand, Goal, Governor
from lavolta.runtime.governor_memory import Memory
from lavolta.runtime.policy import Outcome, State
from lavolta.runtime.scenario import Choice, Scenario


class LavoltaPolicy:
    """Ours: among the choices that keep the deadline, the cheapest, or the most accurate one that the charge can carry.

    With neither ``until_h`` nor ``reserve``: the lowest energy per period, idle time included. With ``until_h``: the
    best score whose consumption, repeated until then, leaves ``reserve``; the cheapest where none does. With
    ``reserve`` alone: the best score until that share is left, then the cheapest. The plan covers the
    remaining charge and is renewed at every request; less charge never leads to a hungrier choice.

    Args:
        margin: share by which a run may take longer than predicted.
        min_score: levels below this score are not used.
        until_h: how long the charge has to last, from the start.
        reserve: share of the capacity to keep.

    Raises:
        InfeasibleError: no allowed level keeps the deadline.
        UserInputError: a value outside its range.
    """

    name = "lavolta"

    def __init__(
        self,
        scenario: Scenario,
        margin: float = 0.0,
        min_score: float | None = None,
        until_h: float | None = None,
        reserve: float | None = None,
    ) -> None:
        goal = Goal(until_h=until_h, reserve=reserve, min_score=min_score, margin=margin)
        self._governor = Governor(scenario, goal)
        # At the wanted hour every choice that leaves the reserve becomes affordable: a second reason to change.
        self.breaks_ns: tuple[int, ...] | None = () if goal.until_ns is None else (goal.until_ns,)
        self.words = words_of(goal)

    def choose(self, state: State) -> Choice:
        return self._governor.decide(state).option.choice


class GovernorPolicy:
    """Ours as it runs on a device that lets it set the clock: with what it has learned of the predictor's errors, and
    with runs whose clock is raised when they take long.

    Args:
        goal: what is wanted beside the deadline.
        demand: expected requests between two times, for irregular arrivals.
        raises: whether a run's clock may be raised before its end, also by moving it to another cluster.
    """

    name = "lavolta"
    breaks_ns: tuple[int, ...] | None = None

    def __init__(
        self, scenario: Scenario, goal: Goal | None = None, demand: Demand | None = None, raises: bool = True
    ) -> None:
        self._governor = Governor(scenario, goal, demand, raises, raises)
        self._memory = Memory()
        self.words = words_of(self._governor.goal)

    def restart(self) -> None:
        self._memory = Memory()

    def choose(self, state: State) -> Choice:
        return self._governor.decide(state, self._memory).option.choice

    def observe(self, outcome: Outcome) -> None:
        self._memory = self._governor.learn(self._memory, outcome)


def words_of(goal: Goal) -> str:
    """The goal in one sentence."""
    text = "the lowest energy per period, idle included"
    keep = f"{100 * goal.reserve:g} %" if goal.reserve else ""
    if goal.until_h is not None:
        left = f" with {keep} left" if keep else ""
        text = f"the most accurate choice with which the charge lasts {goal.until_h:g} h{left}, else the cheapest"
    elif goal.reserve is not None:
        text = f"the most accurate choice until {keep or '0 %'} is left, then the cheapest"
    elif goal.mean_score is not None:
        text = f"the lowest energy per period with a mean score of at least {goal.mean_score:g}"
    floor = "" if goal.min_score is None else f", score at least {goal.min_score:g}"
    return (
        f"ours: among frequencies, levels and clusters whose predicted latency plus {100 * goal.margin:g} % "
        f"meets the deadline{floor}: {text}"
    )
