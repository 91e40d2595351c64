"""Which weights matter: statistics of every linear layer's inputs on calibration text, and saliencies made from them.

Sources: Wanda (Sun et al., ICLR 2024, arXiv 2306.11695) for ``activation``; Optimal Brain Surgeon (Hassibi and Stork,
1992) in the layer-wise form of OBC (Frantar and Alistarh, NeurIPS 2022, arXiv 2208.11580) for ``second-order``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lavolta.errors import UserInputError

Kind = Literal["magnitude", "activation", "second-order"]
Batch = TypeVar("Batch")

DAMPING = 0.01
"""Share of the mean diagonal added to a Hessian before it is inverted, as in SparseGPT (arXiv 2301.00774)."""


@dataclass
class LinearStats:
    """What one linear layer saw, summed over real tokens only.

    Args:
        tokens: number of input vectors.
        total: ``(in_features,) float64``, sum of the inputs.
        squares: ``(in_features,) float64``, sum of the squared inputs.
        products: ``(in_features, in_features) float32``, sum of the outer products, or None where it was not asked for.
    """

    tokens: int
    total: Tensor
    squares: Tensor
    products: Tensor | None

    @property
    def mean(self) -> Tensor:
        """``E[x]``, ``(in_features,) float64``."""
        return self.total / max(self.tokens, 1)

    @property
    def second_moment(self) -> Tensor:
        """``E[x^2]``, ``(in_features,) float64``."""
        return self.squares / max(self.tokens, 1)

    def hessian(self, damping: float = DAMPING) -> Tensor:
        """``E[x x^T] + damping * mean diagonal * I``, ``(in_features, in_features) float64``: positive definite.

        Raises:
            UserInputError: the products were not collected.
        """
        if self.products is None:
            raise UserInputError("the calibration kept no input products; collect them with hessians=True.")
        hessian = self.products.double() / max(self.tokens, 1)
        level = float(hessian.diagonal().mean())
        # Inputs that are all zero have no scale of their own; any positive one gives the same ranking.
        hessian.diagonal().add_(damping * level if level > 0 else 1.0)
        return hessian


@dataclass
class _Recorder:
    """Forward hooks that add every real input vector to the statistics of its layer."""

    stats: dict[str, LinearStats]
    mask: Tensor | None = None
    # Query, key and value read one tensor: its sums are made once and shared within a forward pass.
    last_input: Tensor | None = None
    last_sums: tuple[int, Tensor, Tensor, Tensor | None] | None = None

    @contextmanager
    def attached(self, linears: Mapping[str, nn.Linear]) -> Iterator[None]:
        handles = [
            linear.register_forward_pre_hook(lambda _module, args, name=name: self.add(name, args[0]))
            for name, linear in linears.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def begin(self, mask: Tensor | None) -> None:
        self.mask, self.last_input, self.last_sums = mask, None, None

    def add(self, name: str, inputs: Tensor) -> None:
        entry = self.stats[name]
        if inputs is not self.last_input or self.last_sums is None:
            self.last_sums = self.sums(name, inputs, entry.products is not None)
            self.last_input = inputs
        tokens, total, squares, products = self.last_sums
        entry.tokens += tokens
        entry.total += total
        entry.squares += squares
        if entry.products is not None and products is not None:
            entry.products += products

    def sums(self, name: str, inputs: Tensor, with_products: bool) -> tuple[int, Tensor, Tensor, Tensor | None]:
        flat = inputs.detach().reshape(-1, inputs.shape[-1]).float()
        if self.mask is not None:
            real = self.mask.reshape(-1).to(device=flat.device, dtype=torch.bool)
            if len(real) != len(flat):
                raise UserInputError(
                    f"{name} saw {len(flat)} tokens, but the token mask has {len(real)}; give one entry per token."
                )
            flat = flat[real]
        if not bool(torch.isfinite(flat).all()):
            raise UserInputError(f"the inputs of {name} contain NaN or infinity; check the model and the text.")
        wide = flat.double()
        products = (flat.T @ flat).cpu() if with_products else None
        return len(flat), wide.sum(0).cpu(), wide.square().sum(0).cpu(), products


def collect_stats(
    linears: Mapping[str, nn.Linear],
    batches: Iterable[Batch],
    run: Callable[[Batch], object],
    token_mask: Callable[[Batch], Tensor | None] | None = None,
    hessians: bool = False,
) -> dict[str, LinearStats]:
    """Run calibration batches and record what every linear layer saw.

    Args:
        linears: canonical name to layer.
        batches: whatever ``run`` takes.
        run: runs the model on one batch; called without gradients. Set the model to evaluation mode before.
        token_mask: gives the mask of a batch, one entry per token in the order in which the layers see them (an
            attention mask ``(batch, tokens)`` fits); false entries are padding and count nowhere. None counts all.
        hessians: keep the products of the inputs too, ``4 * in_features^2`` bytes per layer.

    Returns:
        Canonical name to statistics, on the CPU.

    Raises:
        UserInputError: no real token at all, a mask of another length, or inputs that are not finite.
    """
    stats = {
        name: LinearStats(
            0,
            torch.zeros(linear.in_features, dtype=torch.float64),
            torch.zeros(linear.in_features, dtype=torch.float64),
            torch.zeros(linear.in_features, linear.in_features) if hessians else None,
        )
        for name, linear in linears.items()
    }
    recorder = _Recorder(stats)
    with recorder.attached(linears), torch.no_grad():
        for batch in batches:
            recorder.begin(None if token_mask is None else token_mask(batch))
            run(batch)
    recorder.begin(None)
    for name, entry in stats.items():
        if entry.tokens == 0:
            raise UserInputError(f"{name} saw no token during calibration; give text that runs through the model.")
    return stats


def importance(weight: Tensor, stats: LinearStats | None, kind: Kind, damping: float = DAMPING) -> NDArray[np.float64]:
    """Saliency of every weight, ``(out_features, in_features)``, additive over the weights of a cell.

    * ``magnitude``: ``w^2``; needs no statistics.
    * ``activation``: ``w^2 * E[x^2]``, Wanda's ``|w| * norm(x)`` squared: the output energy that the weight carries.
    * ``second-order``: ``w^2 / inverse(H)_jj``: the output error left when the other weights made up for the loss.

    Raises:
        UserInputError: an unknown kind, or statistics that the kind needs and did not get.
    """
    squares = weight.detach().double().cpu().square()
    if kind == "magnitude":
        return squares.numpy()
    if kind not in ("activation", "second-order"):
        raise UserInputError(f"the saliency {kind!r} is unknown; choose 'magnitude', 'activation' or 'second-order'.")
    if stats is None:
        raise UserInputError(f"the saliency {kind!r} needs calibration statistics; collect them first.")
    if len(stats.total) != weight.shape[1]:
        raise UserInputError(
            f"statistics of {len(stats.total)} inputs do not fit a weight of {weight.shape[1]} inputs."
        )
    if kind == "activation":
        return (squares * stats.second_moment).numpy()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(stats.hessian(damping)))
    return (squares / inverse.diagonal()).numpy()


def importances(
    linears: Mapping[str, nn.Linear],
    stats: Mapping[str, LinearStats] | None,
    kind: Kind,
    damping: float = DAMPING,
) -> dict[str, NDArray[np.float64]]:
    """``importance`` of every layer: canonical name to ``(out_features, in_features)``."""
    return {
        name: importance(linear.weight, None if stats is None else stats.get(name), kind, damping)
        for name, linear in linears.items()
    }
