"""A zTT-like policy: the clock is learned on line by reinforcement, the level stays.

zTT (MobiSys 2021) learns CPU and GPU clocks of a phone with a deep Q-network from the frame rate, the power and the
temperature. This is the same idea at the size of our problem: one clock, a table instead of a network, and the response
time of a request instead of the frame rate. It is labelled "zTT-like" wherever it appears.
"""

from __future__ import annotations

import numpy as np

from lavolta.runtime.policy import Outcome, State
from lavolta.runtime.scenario import Choice, Scenario
from lavolta.runtime.stock_policies import fixed_choices

CLOCKS = 8
"""Clocks that it chooses among, evenly spaced over the steps."""
SLACK_BUCKETS = 6
POWER_WEIGHT = 0.5
"""Weight of saved power beside a met deadline."""
LATE_REWARD = 0.5
"""Most that a late answer earns."""
LEARNING_RATE, DISCOUNT = 0.2, 0.5
EXPLORE_START, EXPLORE_END, EXPLORE_RUNS = 0.5, 0.01, 400
"""Share of random clocks: falls from the first to the second over so many runs."""


class ZttLikePolicy:
    """Q-learning over (present clock, slack of the last response) to the next clock; reward: on time, and little power.

    Args:
        level: the level for the whole charge.
        seed: of its exploration.
        cluster: the scenario's first where not given.
    """

    breaks_ns: tuple[int, ...] | None = None

    def __init__(self, scenario: Scenario, level: str, seed: int = 0, cluster: str | None = None) -> None:
        place = "" if cluster is None else f" on {cluster}"
        same = fixed_choices(scenario, level, scenario.threads[0], cluster)
        self.name = f"ztt-like:{level}{place}"
        self.words = (
            f"zTT-like: level {level}{place} for the whole charge; clock: Q-learning from response time and power"
        )
        picked = sorted({round(index) for index in np.linspace(0, len(same) - 1, min(CLOCKS, len(same)))})
        self._choices: list[Choice] = [same[index] for index in picked]
        options = [scenario.option(choice) for choice in self._choices]
        least = min(option.cell_uw for option in options)
        self._thrift = [least / option.cell_uw if option.cell_uw else 1.0 for option in options]
        self._seed = seed
        self.restart()

    def restart(self) -> None:
        count = len(self._choices)
        self._rng = np.random.default_rng(self._seed)
        # Hopeful at first, so that every clock is tried.
        self._values = np.full((count, SLACK_BUCKETS, count), (1.0 + POWER_WEIGHT) / (1.0 - DISCOUNT))
        self._slack = SLACK_BUCKETS - 1
        self._place = (count - 1, self._slack)
        self._action = count - 1
        self._runs = 0

    def choose(self, state: State) -> Choice:
        present = next((i for i, choice in enumerate(self._choices) if choice == state.current), len(self._choices) - 1)
        self._place = (present, self._slack)
        explore = EXPLORE_END + (EXPLORE_START - EXPLORE_END) * max(0.0, 1 - self._runs / EXPLORE_RUNS)
        if self._rng.random() < explore:
            self._action = int(self._rng.integers(len(self._choices)))
        else:
            self._action = int(np.argmax(self._values[self._place]))
        return self._choices[self._action]

    def observe(self, outcome: Outcome) -> None:
        used = outcome.response_ns / outcome.deadline_ns
        # As zTT: full reward on time, a part of it by speed otherwise, and power counts only when on time.
        late = LATE_REWARD * min(1.0, outcome.deadline_ns / outcome.run_ns)
        reward = 1.0 + POWER_WEIGHT * self._thrift[self._action] if used <= 1.0 else late
        self._slack = min(SLACK_BUCKETS - 1, int(used * (SLACK_BUCKETS - 1)))
        after = (self._action, self._slack)
        value = self._values[self._place][self._action]
        goal = reward + DISCOUNT * float(self._values[after].max())
        self._values[self._place][self._action] = value + LEARNING_RATE * (goal - value)
        self._runs += 1
