"""The controller: a true moving average, the right gradient, learning, and a state that is a fold over the log."""

from __future__ import annotations

import datetime
import subprocess
import sys

import numpy as np
import optuna
import pytest
import torch

from lavolta.errors import UserInputError
from lavolta.search import ControllerConfig, ReinforceSampler, make_sampler
from lavolta.search._policy import Policy
from lavolta.search.controller import MovingAverage
from lavolta.search.spaces import Step

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Matches:
    """A toy space: the reward is the share of steps whose action is the hidden one."""

    def __init__(self, hidden: tuple[int, ...] = (2, 0, 3, 1), choices: int = 4) -> None:
        self.hidden = hidden
        self.steps = tuple(Step(f"s{i}", choices) for i in range(len(hidden)))

    def run(self, study: optuna.Study, trials: int, sign: float = 1.0) -> list[float]:
        rewards = []
        for _ in range(trials):
            trial = study.ask()
            actions = [trial.suggest_int(step.name, 0, step.choices - 1) for step in self.steps]
            rewards.append(float(np.mean(np.equal(actions, self.hidden))))
            study.tell(trial, sign * rewards[-1])
        return rewards


def study_with(sampler: optuna.samplers.BaseSampler, direction: str = "maximize") -> optuna.Study:
    return optuna.create_study(sampler=sampler, direction=direction, study_name="toy")


def params(study: optuna.Study) -> list[dict[str, int]]:
    return [trial.params for trial in study.trials]


def test_moving_average_by_hand():
    average = MovingAverage(0.5)
    assert average.value is None
    seen = []
    for reward in (1.0, 3.0, 5.0):
        average.update(reward)
        seen.append(average.value)
    # Weights 1; then 1/3, 2/3; then 1/7, 2/7, 4/7: the newest weighs most.
    assert seen == [1.0, pytest.approx(7 / 3), pytest.approx(27 / 7)]


def test_moving_average_without_memory_is_the_last_reward():
    average = MovingAverage(0.0)
    for reward in (4.0, -2.0):
        average.update(reward)
    assert average.value == -2.0


def test_gradient_of_the_heads_is_that_of_the_formula():
    """For a softmax head, d log pi(a) / d bias = onehot(a) - pi; the loss adds -gamma^(T-t) (R - b) / m."""
    config = ControllerConfig(hidden=3, gamma=0.5)
    policy = Policy([2, 3, 1], config, seed=7)
    children = [((1, 2, 0), 0.75), ((0, 1, 0), -0.25)]
    expected = [np.zeros(2), np.zeros(3), np.zeros(1)]
    for actions, advantage in children:
        for step, discount in enumerate((0.25, 0.5, 1.0)):
            choices = len(expected[step])
            prefix = actions[:step]
            logs = [float(policy.log_probabilities((*prefix, a)).detach()[step]) for a in range(choices)]
            probabilities = np.exp(logs)
            assert probabilities.sum() == pytest.approx(1.0)
            expected[step] -= advantage * discount * (np.eye(choices)[actions[step]] - probabilities) / len(children)
    torch.autograd.backward(policy.loss(children))
    for head, gradient in zip(policy.heads, expected, strict=True):
        assert head.bias.grad.numpy() == pytest.approx(gradient, abs=1e-12)


def test_gradient_through_the_cell_is_that_of_finite_differences():
    """Embeddings and recurrence: central differences, error about h^2 = 1e-10 against gradients of about 1e-2."""
    policy = Policy([3, 2, 3], ControllerConfig(hidden=2, gamma=0.9), seed=3)
    children = [((2, 1, 0), 1.5)]
    torch.autograd.backward(policy.loss(children))
    step = 1e-5
    for tensor in (policy.start, policy.embeddings[0], policy.cell.weight_hh):
        flat, gradient = tensor.data.view(-1), tensor.grad.reshape(-1)
        for index in range(len(flat)):
            middle = float(flat[index])
            losses = []
            for moved in (middle + step, middle - step):
                flat[index] = moved
                losses.append(float(policy.loss(children).detach()))
            flat[index] = middle
            assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(float(gradient[index]), abs=1e-8)


def test_sampling_follows_the_probabilities_of_the_policy():
    policy = Policy([3, 2], ControllerConfig(hidden=4), seed=1)
    drawn = [policy.sample(u, {}) for u in np.random.default_rng(0).random((2000, 2))]
    for child in {(a, b) for a in range(3) for b in range(2)}:
        probability = float(policy.log_probabilities(child).detach().sum().exp())
        # Five standard deviations of a binomial share; the draws are seeded.
        margin = 5 * np.sqrt(probability * (1 - probability) / 2000)
        assert drawn.count(child) / 2000 == pytest.approx(probability, abs=margin)


def test_fixed_steps_keep_their_action_and_condition_the_rest():
    policy = Policy([3, 2, 4], ControllerConfig(hidden=4), seed=1)
    uniforms = np.array([0.1, 0.5, 0.9])
    free = policy.sample(uniforms, {})
    assert policy.sample(uniforms, {0: free[0]}) == free
    assert policy.sample(uniforms, {0: 2, 2: 0})[::2] == (2, 0)


def test_the_policy_leaves_torchs_random_state_alone():
    before = torch.random.get_rng_state()
    first, second = (Policy([3, 3], ControllerConfig(), seed=5) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first.start, second.start)


def test_it_learns_a_toy_far_better_than_random():
    """Random children match 1 of 4 steps on average; the mean of 40 of them has a standard deviation of 0.034."""
    space = Matches()
    rewards = space.run(study_with(ReinforceSampler(space, seed=0)), 160)
    assert np.mean(rewards[-40:]) > 0.25 + 10 * 0.034


def test_a_study_that_minimizes_the_negative_reward_draws_the_same_children():
    space = Matches()
    up, down = study_with(ReinforceSampler(space, 1)), study_with(ReinforceSampler(space, 1), "minimize")
    space.run(up, 12)
    space.run(down, 12, sign=-1.0)
    assert params(up) == params(down)


def test_thirty_trials_at_once_equal_ten_and_twenty_with_a_new_sampler():
    space, config = Matches(), ControllerConfig(children_per_update=4, gamma=0.9)
    whole = study_with(ReinforceSampler(space, 3, config))
    space.run(whole, 30)
    parts = study_with(ReinforceSampler(space, 3, config))
    space.run(parts, 10)
    parts.sampler = ReinforceSampler(space, 3, config)
    space.run(parts, 20)
    assert params(parts) == params(whole)
    # Not a constant: the two would be equal for nothing.
    assert len({tuple(p.values()) for p in params(whole)}) > 5


@pytest.mark.parametrize("name", ["reinforce", "random", "tpe"])
def test_every_sampler_continues_as_it_would_have_gone_on(name):
    """25 trials: TPE draws its first 10 at random."""
    space = Matches()
    whole, parts = study_with(make_sampler(name, space, 5)), study_with(make_sampler(name, space, 5))
    space.run(whole, 25)
    for trials in (4, 8, 13):
        parts.sampler = make_sampler(name, space, 5)
        space.run(parts, trials)
    assert params(parts) == params(whole)
    other = study_with(make_sampler(name, space, 6))
    space.run(other, 25)
    assert params(other) != params(whole)


def finished(actions: tuple[int, ...], reward: float, second: int) -> optuna.trial.FrozenTrial:
    moment = datetime.datetime(2020, 1, 1, 0, 0, second)
    trial = optuna.create_trial(
        params={f"s{i}": action for i, action in enumerate(actions)},
        distributions={f"s{i}": optuna.distributions.IntDistribution(0, 3) for i in range(len(actions))},
        value=reward,
    )
    trial.datetime_start = trial.datetime_complete = moment
    return trial


def probability(sampler: ReinforceSampler, study: optuna.Study, actions: tuple[int, ...]) -> float:
    return float(sampler._synchronized(study).policy.log_probabilities(actions).detach().sum())


def test_the_controller_is_a_function_of_the_log_even_when_a_trial_surfaces_late():
    """A worker that commits late changes the order of completion; the living sampler must end where a new one does."""
    space = Matches()
    study = study_with(ReinforceSampler(space, 2))
    living = ReinforceSampler(space, 2)
    for second, (actions, reward) in {10: ((0, 1, 2, 3), 1.0), 30: ((3, 3, 0, 0), -1.0)}.items():
        study.add_trial(finished(actions, reward, second))
        probability(living, study, (0, 0, 0, 0))
    study.add_trial(finished((1, 1, 1, 1), 5.0, second=20))
    new = ReinforceSampler(space, 2)
    assert probability(living, study, (1, 2, 3, 0)) == probability(new, study, (1, 2, 3, 0))
    assert [number for _, number in living._synchronized(study).folded] == [0, 2, 1]


def test_failed_foreign_and_out_of_range_trials_teach_nothing():
    space = Matches()
    study = study_with(ReinforceSampler(space, 2))
    untaught = probability(ReinforceSampler(space, 2), study, (0, 0, 0, 0))
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    study.add_trial(optuna.create_trial(value=9.0))
    narrow = Matches(choices=2)
    study.add_trial(finished((3, 3, 3, 3), 9.0, 1))
    study.add_trial(finished((0, 0, 0, 0), 1.0, 2))
    sampler = ReinforceSampler(narrow, 2)
    assert [number for _, number in sampler._synchronized(study).folded] == [3]
    # The wide controller takes both children in; of one alone it would have learned nothing.
    assert probability(ReinforceSampler(space, 2), study, (0, 0, 0, 0)) != untaught


def test_enqueued_parameters_are_kept():
    space = Matches()
    study = study_with(ReinforceSampler(space, 2))
    study.enqueue_trial({"s1": 3, "s3": 2})
    space.run(study, 1)
    assert (study.trials[0].params["s1"], study.trials[0].params["s3"]) == (3, 2)


def test_what_the_controller_cannot_do_is_said():
    space = Matches()
    study = study_with(ReinforceSampler(space))
    with pytest.raises(UserInputError, match="no step 'other'"):
        study.ask().suggest_float("other", 0.0, 1.0)
    many = optuna.create_study(sampler=ReinforceSampler(space), directions=["maximize", "maximize"])
    with pytest.raises(UserInputError, match="one direction"):
        many.ask().suggest_int("s0", 0, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_sampler("genetic", Matches()), "sampler is 'genetic'; choose one of reinforce, random, tpe"),
        (lambda: make_sampler("random", Matches(), -1), "seed is -1"),
        (lambda: ControllerConfig(hidden=0), "hidden is 0"),
        (lambda: ControllerConfig(children_per_update=0), "children_per_update is 0"),
        (lambda: ControllerConfig(learning_rate=float("nan")), "learning_rate is nan"),
        (lambda: ControllerConfig(gamma=0.0), "gamma is 0.0"),
        (lambda: ControllerConfig(baseline_decay=1.0), "baseline_decay is 1.0"),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(UserInputError, match=message):
        make()


def test_importing_the_package_needs_neither_torch_nor_optuna():
    code = "import sys, lavolta.search; lavolta.search.allocate; print({'torch', 'optuna'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
