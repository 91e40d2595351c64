"""Samplers by name, all with chance bound to the trial's number, so that a study continues as it would have gone on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from lavolta.errors import UserInputError
from lavolta.search.config import SAMPLERS, ControllerConfig
from lavolta.search.controller import ReinforceSampler
from lavolta.search.spaces import SearchSpace


class SeededPerTrial(BaseSampler):
    """A fresh inner sampler for each trial, seeded by `(seed, trial number)`: it keeps nothing that a crash could lose.

    Args:
        make: inner sampler from its seed; what it learns it must read from the study, as Optuna's own samplers do.
        seed: 0 or more.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make = make
        self._seed = seed
        self._inner: dict[int, BaseSampler] = {}

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        words = np.random.SeedSequence([self._seed, trial.number]).generate_state(1)
        self._inner[trial.number] = self._make(int(words[0]))
        self._inner[trial.number].before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._inner[trial.number].infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._inner[trial.number].sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._inner[trial.number].sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._inner.pop(trial.number).after_trial(study, trial, state, values)


def make_sampler(
    name: str, space: SearchSpace[Any], seed: int = 0, controller: ControllerConfig | None = None
) -> BaseSampler:
    """An Optuna sampler for any study and storage: "reinforce" (the RNN controller), "random" or "tpe".

    Raises:
        UserInputError: for an unknown name or a negative seed.
    """
    if seed < 0:
        raise UserInputError(f"seed is {seed}; it must be 0 or more.")
    if name == "reinforce":
        return ReinforceSampler(space, seed, controller)
    if name == "random":
        return SeededPerTrial(lambda s: optuna.samplers.RandomSampler(seed=s), seed)
    if name == "tpe":
        return SeededPerTrial(lambda s: optuna.samplers.TPESampler(seed=s), seed)
    raise UserInputError(f"sampler is {name!r}; choose one of {', '.join(SAMPLERS)}.")
