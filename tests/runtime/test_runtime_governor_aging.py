"""What a governor learned of a level that it no longer uses: a slow hour is not held against it for ever."""

import itertools
import math
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from lavolta import devices
from lavolta.devices import Work
from lavolta.runtime.governor import Goal, Governor
from lavolta.runtime.governor_memory import TRUSTED, UNTESTED, WINDOW, Memory
from lavolta.runtime.policy import Outcome, State
from lavolta.runtime.scenario import Choice, LevelWork, Option, Scenario

BASE = devices.load("odroid-xu3-a7")
CLUSTER = BASE.cluster().name
# At 1400 MHz: 59.5 and 16.7 ms.
LEVELS = tuple(
    LevelWork(name, Work(8, 16, macs, 0.0, 0.0, 0.0), score)
    for name, macs, score in (("M1", 50e6, 0.9), ("M4", 14e6, 0.7))
)
RATIOS = st.integers(500, 3000)


def run(memory: Memory, level: str, ratio_milli: int) -> Memory:
    option = Option(Choice(1400.0, 1, level, CLUSTER), 10**6, 1, 1, 0.9)
    return memory.learn(Outcome(option, 0, 1000 * ratio_milli, 1000 * ratio_milli, 10**9))


@settings(max_examples=25)
@given(
    before=st.lists(RATIOS, min_size=TRUSTED, max_size=WINDOW),
    after=st.lists(RATIOS, min_size=1, max_size=9),
    margin=st.floats(0.0, 0.3),
)
def test_a_level_without_runs_is_not_slower_than_what_runs(before: list[int], after: list[int], margin: float) -> None:
    memory = Memory()
    for ratio in before:
        memory = run(memory, "M1", ratio)
    learned = memory.factor_milli(CLUSTER, "M1", 0.0)
    for index, ratio in zip(range(UNTESTED), itertools.cycle(after), strict=False):
        # Until then it counts; from then on it never looks slower than it was.
        assert memory.factor_milli(CLUSTER, "M1", 0.0) == learned, index
        memory = run(memory, "M4", ratio)
    for ratio in after:
        memory = run(memory, "M4", ratio)
        now, others = memory.factor_milli(CLUSTER, "M1", 0.0), memory.overall.factor_milli(0.0)
        assert min(learned, 1000) <= now <= min(learned, max(1000, others))
    assert memory.factor_milli(CLUSTER, "M1", margin) <= math.ceil(max(1000, *after) * (1 + margin))


def served(
    governor: Governor, memory: Memory, requests: int, slowdown: Callable[[str], float]
) -> tuple[list[str], Memory]:
    """The levels of so many requests on mains power, where the best level in time is taken."""
    state, levels = State(1, 1, 0, on_ac=True), []
    for _ in range(requests):
        option = governor.decide(state, memory).option
        levels.append(option.choice.level)
        run_ns = round(slowdown(option.choice.level) * option.latency_ns)
        memory = governor.learn(memory, Outcome(option, 0, run_ns, run_ns, 75 * 10**6))
    return levels, memory


def test_a_slow_hour_ends_the_use_of_a_level_and_its_end_brings_it_back() -> None:
    governor = Governor(Scenario(BASE, LEVELS, 75.0, 75.0), Goal(margin=0.1))
    slow, memory = served(governor, Memory(), TRUSTED + 4, lambda _: 1.5)
    assert slow == ["M1"] * TRUSTED + ["M4"] * 4
    quick, memory = served(governor, memory, UNTESTED + 1, lambda _: 1.0)
    assert quick == ["M4"] * (UNTESTED - 4) + ["M1"] * 5


def test_a_level_that_stays_slow_costs_two_late_answers_a_time() -> None:
    governor = Governor(Scenario(BASE, LEVELS, 75.0, 75.0), Goal(margin=0.1))
    _, memory = served(governor, Memory(), TRUSTED, lambda _: 1.5)
    levels, _ = served(governor, memory, 3 * UNTESTED, lambda level: 1.5 if level == "M1" else 1.0)
    assert 0 < levels.count("M1") <= 2 * 3
