"""One-shot pruning: the weights that remain make up for those that left, for all levels at once.

Only calibration text is needed. For one linear layer and one level, the best remaining weights solve a least-squares
problem in the layer's inputs; OBC and SparseGPT (Frantar and Alistarh, arXiv 2208.11580 and 2301.00774) approximate it
by eliminating one column after the other. All our levels share one array of weights, so what is right is the minimum of
the weighted sum of all levels' errors

    sum_l a_l E || W x + b - (V * M_l) x - c ||^2

over the shared ``V`` and ``c``. It is one quadratic per row, its gradient costs a product with the Hessian per level,
and conjugate gradients solve it for all rows together, for any masks, nested or not. The order in which cells leave is
found gradually: some go, the rest adapts, and only then are the next ones chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lavolta.errors import UserInputError
from lavolta.sparsity.cells import BoolArray, CellGrid
from lavolta.sparsity.ranking import NEVER, LayerRanking, LevelMasks
from lavolta.training.saliency import DAMPING, LinearStats

ITERATIONS = 40
"""Steps of conjugate gradients of a final solution."""

ADAPT_ITERATIONS = 8
"""Steps of conjugate gradients between two rounds of a ranking; each starts where the one before it ended."""


def gradual_rankings(
    linears: Mapping[str, nn.Linear],
    grids: Mapping[str, CellGrid],
    stats: Mapping[str, LinearStats],
    sparsest: float = 0.75,
    rounds: int = 8,
    removed: Mapping[str, BoolArray] | None = None,
    damping: float = DAMPING,
    beyond: bool = True,
) -> dict[str, LayerRanking]:
    """Rank the cells of every layer, letting the layer adapt between the rounds of removal.

    Round ``k`` leaves a share of ``(1 - sparsest) ** (k / rounds)`` of the cells. Within a round, and beyond the last
    one, an adapted weight ``v`` counts ``v^2 * sqrt(H_jj / inverse(H)_jj)``: between the loss if no other weight could
    make up for it, ``v^2 * H_jj``, and the loss if all others could, ``v^2 / inverse(H)_jj``; some of them are gone.

    A saliency taken once from the dense layer misjudges cells of which a group is redundant: each alone could be made
    up for, all together not.

    Args:
        stats: calibration statistics with input products.
        sparsest: share of the cells that the sparsest level will drop, 0 to below 1.
        removed: cells that block pruning took; they rank ``NEVER``.
        beyond: let the layer adapt after the last round too, for the order of the cells that the sparsest level keeps;
            where nothing sparser is wanted, that time can be saved.

    Returns:
        Canonical name to ranking. The layers are not changed; ``compensate_linears`` makes the weights for the levels.

    Raises:
        UserInputError: a sparsity outside 0 <= sparsest < 1, no round, or weights that are not finite.
    """
    if not 0.0 <= sparsest < 1.0 or rounds < 1:
        raise UserInputError(f"{rounds} rounds to a sparsity of {sparsest}; give at least one, and 0 <= sparsity < 1.")
    return {
        name: _gradual_ranking(
            name,
            linear,
            grids[name],
            stats[name],
            sparsest,
            rounds,
            None if removed is None else removed.get(name),
            damping,
            beyond,
        )
        for name, linear in linears.items()
    }


def _gradual_ranking(
    name: str,
    linear: nn.Linear,
    grid: CellGrid,
    stats: LinearStats,
    sparsest: float,
    rounds: int,
    removed: BoolArray | None,
    damping: float,
    beyond: bool,
) -> LayerRanking:
    if not bool(torch.isfinite(linear.weight).all()):
        raise UserInputError(f"the weight of {name} contains NaN or infinity; repair the model before pruning it.")
    hessian = stats.hessian(damping)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    worth = (hessian.diagonal() / inverse.diagonal()).sqrt()
    old = _with_bias(linear.weight, linear.bias)
    augmented = _augmented(stats, damping, linear.bias is not None)
    alive = np.ones(grid.shape, dtype=bool) if removed is None else ~removed
    adapted = old
    dropped: list[np.ndarray] = []
    for round_ in range(1, rounds + 2):
        target = 0 if round_ > rounds else int(np.ceil((1.0 - sparsest) ** (round_ / rounds) * grid.cells))
        count = int(alive.sum()) - target
        if count <= 0:
            continue
        saliency = adapted[:, : grid.in_features].double().square() * worth
        there = np.flatnonzero(alive)
        scores = grid.cell_scores(saliency.numpy()).ravel()[there]
        gone = there[np.argsort(scores, kind="stable")[:count]]
        dropped.append(gone)
        alive.ravel()[gone] = False
        if target and (beyond or round_ < rounds):
            kept = _with_constant(torch.from_numpy(grid.expand(alive)), linear.bias is not None)
            adapted = _conjugate_gradients(old, adapted, [kept], [1.0], augmented, ADAPT_ITERATIONS)
    rank = np.full(grid.cells, NEVER, dtype=np.int32)
    order = np.concatenate(dropped)[::-1] if dropped else np.empty(0, dtype=np.int64)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return LayerRanking(grid, rank.reshape(grid.shape))


@dataclass(frozen=True)
class Compensated:
    """New parameters of one linear layer, shared by all its levels.

    Args:
        weight: ``(out_features, in_features)``, of the old dtype; unchanged where no level keeps the weight.
        bias: ``(out_features,)``, or None where the layer has none.
    """

    weight: Tensor
    bias: Tensor | None


def compensate(
    weight: Tensor,
    bias: Tensor | None,
    stats: LinearStats,
    masks: Sequence[Tensor],
    level_weights: Sequence[float] | None = None,
    damping: float = DAMPING,
    iterations: int = ITERATIONS,
) -> Compensated:
    """The shared weights that minimize the weighted sum of the output errors of all levels of one layer.

    Args:
        weight: ``(out_features, in_features)``.
        bias: ``(out_features,)`` or None; it is corrected together with the weight, as a weight of a constant input.
        stats: calibration statistics with input products.
        masks: per level ``(out_features, in_features) bool``, true where the level keeps the weight.
        level_weights: ``a_l``, not negative. None weighs every level by the inverse of the error that it would have
            without compensation: all levels gain the same share, and the sparsest does not crowd out the others.
        damping: share of the mean squared input that pulls weights to their old values.
        iterations: steps of conjugate gradients.

    Raises:
        UserInputError: no level, masks of another shape, or level weights that do not fit.
    """
    if not masks or any(mask.shape != weight.shape for mask in masks):
        raise UserInputError(f"compensation needs masks of shape {tuple(weight.shape)}, at least one.")
    hessian = _augmented(stats, damping, bias is not None)
    old = _with_bias(weight, bias)
    kept = [_with_constant(mask, bias is not None) for mask in masks]
    shares = _level_shares(old, kept, hessian, level_weights)
    solution = _conjugate_gradients(old, old, kept, shares, hessian, iterations)
    used = torch.stack(kept).any(dim=0)
    new = torch.where(used, solution, old)
    columns = weight.shape[1]
    return Compensated(new[:, :columns].to(weight.dtype), None if bias is None else new[:, columns].to(bias.dtype))


def compensate_linears(
    linears: Mapping[str, nn.Linear],
    grids: Mapping[str, CellGrid],
    stats: Mapping[str, LinearStats],
    levels: Sequence[LevelMasks],
    level_weights: Sequence[float] | None = None,
    damping: float = DAMPING,
    iterations: int = ITERATIONS,
) -> dict[str, Compensated]:
    """``compensate`` every layer for cell masks of all levels; the layers themselves are not changed."""
    found = {}
    for name, linear in linears.items():
        masks = [torch.from_numpy(grids[name].expand(level[name])) for level in levels]
        found[name] = compensate(linear.weight, linear.bias, stats[name], masks, level_weights, damping, iterations)
    return found


def output_error(
    old_weight: Tensor,
    old_bias: Tensor | None,
    new_weight: Tensor,
    new_bias: Tensor | None,
    stats: LinearStats,
) -> float:
    """Relative output error of a layer on the calibration inputs, ``E|dy|^2 / E|y - E y|^2``, 0 for equal layers.

    ``new_weight`` is what a level computes with, zeros included.
    """
    zero = torch.zeros(len(old_weight))
    old = torch.cat([old_weight.detach(), (zero if old_bias is None else old_bias.detach())[:, None]], dim=1).double()
    new = torch.cat([new_weight.detach(), (zero if new_bias is None else new_bias.detach())[:, None]], dim=1).double()
    hessian = _augmented(stats, 0.0, True).double()
    mean = stats.mean
    covariance = hessian[:-1, :-1] - torch.outer(mean, mean)
    energy = float(((old[:, :-1] @ covariance) * old[:, :-1]).sum())
    error = float((((old - new) @ hessian) * (old - new)).sum())
    return error / energy if energy > 0 else 0.0


def _augmented(stats: LinearStats, damping: float, with_constant: bool) -> Tensor:
    """The Hessian, with one more row and column for a constant input of 1 where asked, float32."""
    hessian = stats.hessian(damping)
    if not with_constant:
        return hessian.float()
    size = len(hessian)
    full = torch.ones(size + 1, size + 1, dtype=torch.float64)
    full[:size, :size] = hessian
    full[size, :size] = full[:size, size] = stats.mean
    return full.float()


def _with_bias(weight: Tensor, bias: Tensor | None) -> Tensor:
    """The weight, float32 on the CPU, with the bias as one more column."""
    old = weight.detach().float().cpu()
    return old if bias is None else torch.cat([old, bias.detach().float().cpu()[:, None]], dim=1)


def _with_constant(mask: Tensor, with_constant: bool) -> Tensor:
    """A mask as float32 factors; the column of the bias is kept by every level."""
    kept = mask.cpu().float()
    return torch.cat([kept, torch.ones(len(kept), 1)], dim=1) if with_constant else kept


def _level_shares(
    old: Tensor, kept: Sequence[Tensor], hessian: Tensor, level_weights: Sequence[float] | None
) -> list[float]:
    if level_weights is not None:
        if len(level_weights) != len(kept) or min(level_weights) < 0 or max(level_weights) == 0:
            raise UserInputError(f"the level weights are {list(level_weights)}; give {len(kept)}, none negative.")
        return [float(share) for share in level_weights]
    errors = [float(((lost @ hessian) * lost).sum()) for lost in (old * (1 - mask) for mask in kept)]
    # A level that drops next to nothing would weigh without end: it counts as if it lost a hundredth of the worst.
    floor = max(max(errors) * 0.01, torch.finfo(torch.float32).tiny)
    return [1.0 / max(error, floor) for error in errors]


def _conjugate_gradients(
    old: Tensor, start: Tensor, kept: Sequence[Tensor], shares: Sequence[float], hessian: Tensor, iterations: int
) -> Tensor:
    """Minimize ``sum_l a_l |(V * M_l - W) H^(1/2)|^2`` row by row from ``V = start``; Jacobi preconditioned."""
    weights = [share / sum(shares) for share in shares]

    def apply(direction: Tensor) -> Tensor:
        total = torch.zeros_like(direction)
        for share, mask in zip(weights, kept, strict=True):
            total += share * (((direction * mask) @ hessian) * mask)
        return total

    coverage = torch.zeros_like(old)
    for share, mask in zip(weights, kept, strict=True):
        coverage += share * mask
    diagonal = coverage * hessian.diagonal()
    precondition = torch.where(diagonal > 0, 1.0 / diagonal, torch.zeros_like(diagonal))
    solution = start.clone()
    residual = (old @ hessian) * coverage - apply(start)
    scaled = residual * precondition
    direction = scaled.clone()
    energy = (residual * scaled).sum(dim=1)
    for _ in range(iterations):
        applied = apply(direction)
        curvature = (direction * applied).sum(dim=1)
        # A row that has converged has no curvature left along its direction: its step is zero, not a division by zero.
        step = torch.where(curvature > 0, energy / curvature, torch.zeros_like(energy))[:, None]
        solution += step * direction
        residual -= step * applied
        scaled = residual * precondition
        next_energy = (residual * scaled).sum(dim=1)
        turn = torch.where(energy > 0, next_energy / energy, torch.zeros_like(energy))[:, None]
        direction = scaled + turn * direction
        energy = next_energy
    return solution
