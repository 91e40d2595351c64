"""RT3's RNN controller as an Optuna sampler: its state is a fold over the finished trials, so nothing is saved."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lavolta.errors import UserInputError
from lavolta.search.config import ControllerConfig
from lavolta.search.spaces import SearchSpace, Step

if TYPE_CHECKING:
    from lavolta.search._policy import Policy


class MovingAverage:
    """Exponential moving average with normalized weights: the reward `i` steps ago weighs `decay^i / sum_j decay^j`.

    The newest reward weighs most (in the authors' code the oldest does, by mistake).
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._total = 0.0
        self._weight = 0.0

    @property
    def value(self) -> float | None:
        """The average so far; `None` before the first reward."""
        return self._total / self._weight if self._weight else None

    def update(self, reward: float) -> None:
        self._total = self.decay * self._total + reward
        self._weight = self.decay * self._weight + 1.0


class ControllerState:
    """What the log of finished children makes of the controller."""

    def __init__(self, choices: Sequence[int], config: ControllerConfig, seed: int) -> None:
        from lavolta.search._policy import Policy

        self.policy: Policy = Policy(choices, config, seed)
        self.baseline = MovingAverage(config.baseline_decay)
        self.folded: list[tuple[str, int]] = []
        self._batch: list[tuple[tuple[int, ...], float]] = []
        self._batch_size = config.children_per_update

    def fold(self, key: tuple[str, int], actions: tuple[int, ...], reward: float) -> None:
        """Take in one finished child; the first has no past to compare with, so it teaches nothing but the baseline."""
        expected = self.baseline.value
        self.baseline.update(reward)
        self.folded.append(key)
        self._batch.append((actions, 0.0 if expected is None else reward - expected))
        if len(self._batch) == self._batch_size:
            self.policy.learn(self._batch)
            self._batch.clear()


class ReinforceSampler(BaseSampler):
    """REINFORCE over a search space, for any Optuna study and storage.

    Guarantees:

    * The controller is a pure function of `(space, seed, config)` and the completed trials in the order of
      completion. A new process replays them and stands where the old one stood; a living one folds only the new ones.
    * The chance of trial `n` comes from `(seed, n)` alone. With one worker, a study that was cut off anywhere and
      continued therefore draws the same children as one that ran through.
    * With several workers each folds every trial that is complete when it samples. A child may have been drawn from
      an older policy than the one that learns from it (stale gradients, uncorrected); workers that see the same log
      agree.
    * Failed, pruned and running trials teach nothing. Parameters that a trial has already (enqueued, or written
      before a cut) are kept, and the other steps are drawn given them.

    Args:
        space: gives the steps.
        seed: 0 or more.
    """

    def __init__(self, space: SearchSpace[Any], seed: int = 0, config: ControllerConfig | None = None) -> None:
        self.steps: tuple[Step, ...] = space.steps
        self.seed = seed
        self.config = config or ControllerConfig()
        self._state: ControllerState | None = None
        self._lock = threading.Lock()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        del study, trial  # the steps are known beforehand
        return {step.name: IntDistribution(0, step.choices - 1) for step in self.steps}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, int]:
        del search_space  # it is what `infer_relative_search_space` gave
        given = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        fixed = {index: int(given[step.name]) for index, step in enumerate(self.steps) if step.name in given}
        uniforms = np.random.default_rng([self.seed, trial.number]).random(len(self.steps))
        with self._lock:
            actions = self._synchronized(study).policy.sample(uniforms, fixed)
        return {step.name: action for step, action in zip(self.steps, actions, strict=True)}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        del study, trial
        raise UserInputError(
            f"the controller has no step {param_name!r} with {param_distribution}; suggest the steps of its space only."
        )

    def _synchronized(self, study: Study) -> ControllerState:
        if len(study.directions) != 1:
            raise UserInputError("the controller learns from one reward; make the study with one direction.")
        sign = 1.0 if study.direction is StudyDirection.MAXIMIZE else -1.0
        log = sorted(
            (trial.datetime_complete, trial.number, tuple(trial.params[step.name] for step in self.steps), trial.value)
            for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if trial.value is not None
            and all(0 <= trial.params.get(step.name, -1) < step.choices for step in self.steps)
        )
        keys = [(study.study_name, number) for _, number, _, _ in log]
        state = self._state
        # Another worker's trial may surface before ones that were folded already: the log's order rules, so start over.
        if state is None or keys[: len(state.folded)] != state.folded:
            state = ControllerState([step.choices for step in self.steps], self.config, self.seed)
            self._state = state
        done = len(state.folded)
        for key, (_, _, actions, reward) in zip(keys[done:], log[done:], strict=True):
            state.fold(key, actions, sign * reward)
        return state
