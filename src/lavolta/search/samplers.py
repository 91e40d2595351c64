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
from lavolta.search.evolution import EvolutionSampler
from lavolta.search.ratios import RatioSpace, ShortList
from lavolta.search.spaces import Actions, SearchSpace


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


class FirstChildren(BaseSampler):
    """The given children as the first trials, whatever the inner sampler would propose; then the inner sampler.

    Args:
        inner: asked from trial ``len(children)`` on.
        names: of the steps.
        children: one action per step each.
    """

    def __init__(self, inner: BaseSampler, names: Sequence[str], children: Sequence[Actions]) -> None:
        self._inner = inner
        self._children = [dict(zip(names, child, strict=True)) for child in children]

    def _given(self, trial: FrozenTrial) -> dict[str, int] | None:
        return self._children[trial.number] if trial.number < len(self._children) else None

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        given = self._given(trial)
        return {} if given is not None else self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {} if self._given(trial) is not None else self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        given = self._given(trial)
        if given is not None:
            return given[param_name]
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._inner.after_trial(study, trial, state, values)


def make_sampler(
    name: str, space: SearchSpace[Any], seed: int = 0, controller: ControllerConfig | None = None
) -> BaseSampler:
    """An Optuna sampler for any study and storage: "reinforce" (the RNN controller), "evolve", "random" or "tpe".

    The children that a space of ratios names come first.

    Raises:
        UserInputError: for an unknown name or a negative seed.
    """
    if seed < 0:
        raise UserInputError(f"seed is {seed}; it must be 0 or more.")
    made: BaseSampler
    if name == "reinforce":
        made = ReinforceSampler(space, seed, controller)
    elif name == "evolve":
        made = EvolutionSampler(space, seed)
    elif name == "random":
        made = SeededPerTrial(lambda s: optuna.samplers.RandomSampler(seed=s), seed)
    elif name == "tpe":
        made = SeededPerTrial(lambda s: optuna.samplers.TPESampler(seed=s), seed)
    else:
        raise UserInputError(f"sampler is {name!r}; choose one of {', '.join(SAMPLERS)}.")
    if isinstance(space, (RatioSpace, ShortList)):
        return FirstChildren(made, [step.name for step in space.steps], space.first_children)
    return made
