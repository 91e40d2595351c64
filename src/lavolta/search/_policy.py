"""The network of the controller: an LSTM that takes one decision a step; the one module here that imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lavolta.search.config import ControllerConfig


class Policy(nn.Module):
    """`pi(a_t | a_<t)`: the embedding of the last action enters an LSTM cell; a softmax head per step gives the next.

    One embedding table per step, uniform(-1, 1), as in the authors' code; actions are sampled step by step (their
    code feeds the previous episode instead). Double precision, so that a replay gives the same actions.

    Args:
        choices: choices (a count) of each step, `(steps,)`.
        seed: of the initial weights; torch's own random state is left alone.
    """

    def __init__(self, choices: Sequence[int], config: ControllerConfig, seed: int) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.start = nn.Parameter(torch.empty(1, config.hidden, dtype=torch.float64).uniform_(-1, 1))
            self.embeddings = nn.ParameterList(
                torch.empty(count, config.hidden, dtype=torch.float64).uniform_(-1, 1) for count in choices[:-1]
            )
            self.cell = nn.LSTMCell(config.hidden, config.hidden, dtype=torch.float64)
            self.heads = nn.ModuleList(nn.Linear(config.hidden, count, dtype=torch.float64) for count in choices)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=config.learning_rate)

    def sample(self, uniforms: NDArray[np.float64], fixed: Mapping[int, int]) -> tuple[int, ...]:
        """Draw a child: invert each step's distribution at `uniforms (steps,)`; steps in `fixed` keep their action."""
        actions: list[int] = []
        state = None
        with torch.no_grad():
            for step, uniform in enumerate(uniforms):
                logits, state = self._step(step, actions, state)
                cumulative = torch.softmax(logits, dim=-1)[0].cumsum(0).numpy()
                drawn = min(int(np.searchsorted(cumulative, uniform, side="right")), len(cumulative) - 1)
                actions.append(fixed.get(step, drawn))
        return tuple(actions)

    def log_probabilities(self, actions: Sequence[int]) -> Tensor:
        """`log pi(a_t | a_<t)` of a child's actions, `(steps,)`."""
        logs = []
        state = None
        for step, action in enumerate(actions):
            logits, state = self._step(step, actions, state)
            logs.append(torch.log_softmax(logits, dim=-1)[0, action])
        return torch.stack(logs)

    def loss(self, children: Sequence[tuple[Sequence[int], float]]) -> Tensor:
        """`-(1/m) sum_k sum_t gamma^(T-t) log pi(a_t | a_<t) (R_k - b)` over pairs `(actions, R - b)`.

        T is the last step. Its gradient is RT3's with the sign turned [unverified: medium; identical in the authors'
        other papers].
        """
        total = torch.zeros((), dtype=torch.float64)
        for actions, advantage in children:
            discount = self.config.gamma ** torch.arange(len(actions) - 1, -1, -1, dtype=torch.float64)
            total = total - advantage * (discount * self.log_probabilities(actions)).sum()
        return total / len(children)

    def learn(self, children: Sequence[tuple[Sequence[int], float]]) -> None:
        """One Adam step on `loss`."""
        self.optimizer.zero_grad()
        torch.autograd.backward(self.loss(children))
        self.optimizer.step()

    def _step(
        self, step: int, actions: Sequence[int], state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        entering = self.start if step == 0 else self.embeddings[step - 1][actions[step - 1]][None]
        hidden, memory = self.cell(entering, state)
        return self.heads[step](hidden), (hidden, memory)
