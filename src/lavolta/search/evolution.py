"""An Optuna sampler that changes the best children a little: for spaces with dozens of ordered steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lavolta.errors import UserInputError
from lavolta.search.spaces import SearchSpace

PARENTS = 8
"""A child has one of so many best children as its parent."""
CHANGED_SHARE = 0.3
"""Share of the steps that a child has otherwise than its parent, on average."""
SPREADS = (0.03, 0.08, 0.2)
"""Standard deviations of a change, as shares of a step's range; one of them is drawn for each child."""


class EvolutionSampler(BaseSampler):
    """Mutation of the best completed children; it keeps nothing that a crash could lose.

    Random vectors of many ratios are far from each other and from every good one; TPE needs hundreds of trials to learn
    one of dozens of dimensions. A child near a good one is good more often. The values are those of this class, not of
    a paper.

    The chance of trial ``n`` comes from ``(seed, n)`` alone. Before the first completed child, one is drawn at random.

    Args:
        space: gives the steps; parents are taken as it settles them.
        seed: 0 or more.
    """

    def __init__(self, space: SearchSpace[Any], seed: int = 0) -> None:
        self._space = space
        self._seed = seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        del study, trial
        return {step.name: IntDistribution(0, step.choices - 1) for step in self._space.steps}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, int]:
        del search_space
        steps = self._space.steps
        chance = np.random.default_rng([self._seed, trial.number])
        most = np.array([step.choices - 1 for step in steps])
        sign = 1.0 if study.direction is StudyDirection.MAXIMIZE else -1.0
        done = [
            other
            for other in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if other.value is not None and all(step.name in other.params for step in steps)
        ]
        if not done:
            drawn = chance.integers(0, most + 1)
        else:
            best = sorted(done, key=lambda other: (-sign * float(other.value or 0.0), other.number))[:PARENTS]
            parent = best[int(chance.integers(len(best)))]
            start = np.array(self._space.settle([int(parent.params[step.name]) for step in steps]))
            spread = SPREADS[int(chance.integers(len(SPREADS)))]
            change = np.rint(chance.normal(0.0, spread, len(steps)) * most)
            chosen = chance.random(len(steps)) < CHANGED_SHARE
            drawn = np.clip(start + np.where(chosen, change, 0.0), 0, most)
        return {step.name: int(action) for step, action in zip(steps, drawn, strict=True)}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        del study, trial
        raise UserInputError(
            f"the sampler has no step {param_name!r} with {param_distribution}; suggest the steps of its space only."
        )
