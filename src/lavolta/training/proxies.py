"""What a pruned candidate is worth, told without training it: distances of what it says or of what it thinks on the
way, its task loss, or its layers' output errors.

A batch norm's statistics can be refreshed by forward passes (EagleEye, ECCV 2020); a Transformer has layer norms and
nothing to refresh. What takes that place here is the correction of every bias by the mean of what its layer lost, in
closed form from the statistics of calibration text.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lavolta.errors import UserInputError
from lavolta.models.loaded import Batch, LoadedModel, run_module
from lavolta.sparsity.cells import CellGrid
from lavolta.sparsity.ranking import LayerRanking, free_ranking
from lavolta.training.distill import embedding_loss, soft_label_loss
from lavolta.training.encoder import label_loss
from lavolta.training.masking import expanded_rank
from lavolta.training.oneshot import compensate_linears, gradual_rankings
from lavolta.training.saliency import LinearStats, collect_stats

PROXIES = ("kl", "hidden", "loss", "ladder", "reconstruction")
RUNGS = (0.0, 0.2, 0.4, 0.55, 0.7, 0.8, 0.88, 0.94, 0.98)
"""Ratios at which a layer's output error is computed; between them it is interpolated."""
LADDER = (0.3, 0.5, 0.65, 0.8, 0.9)
"""Levels that the ladder's shared weights make up for."""
LADDER_ITERATIONS = 15


@dataclass
class Calibration:
    """What a dense model was seen to do on calibration batches.

    Args:
        dense: the model, unchanged.
        stats: of every prunable layer, with input products.
        grids: the cells of the candidates.
    """

    dense: LoadedModel
    stats: dict[str, LinearStats]
    grids: dict[str, CellGrid]

    @cached_property
    def by_magnitude(self) -> dict[str, LayerRanking]:
        """The cells of every layer by their squared magnitude."""
        return magnitude_rankings(self.dense, self.grids)


def calibrate(dense: LoadedModel, batches: Sequence[Batch], cell_rows: int) -> Calibration:
    """Collect the statistics that every proxy starts from; padding does not count."""
    dense.module.eval()
    device = next(dense.module.parameters()).device
    stats = collect_stats(
        dense.linears,
        batches,
        lambda batch: run_module(dense, batch.to(device)),
        lambda batch: batch.attention_mask,
        hessians=True,
    )
    return Calibration(dense, stats, dense.grids(cell_rows))


def magnitude_rankings(dense: LoadedModel, grids: Mapping[str, CellGrid]) -> dict[str, LayerRanking]:
    """Cells by their squared magnitude, layer by layer: what magnitude pruning keeps at any ratio."""
    weights = dense.weights()
    return {name: free_ranking(grid, grid.cell_scores(weights[name] ** 2)) for name, grid in grids.items()}


def global_ratios(dense: LoadedModel, grids: Mapping[str, CellGrid], ratio: float) -> dict[str, float]:
    """The ratio of each layer where one threshold on the magnitude of cells rules all layers together.

    Args:
        ratio: share of all cells below the threshold, 0 to below 1.
    """
    weights = dense.weights()
    scores = {name: grid.cell_scores(weights[name] ** 2).ravel() for name, grid in grids.items()}
    together = np.concatenate(list(scores.values()))
    count = round(ratio * len(together))
    threshold = np.partition(together, count)[count] if count < len(together) else np.inf
    return {name: float((score < threshold).mean()) for name, score in scores.items()}


def layer_errors(
    calibration: Calibration, rankings: Mapping[str, LayerRanking], rungs: Sequence[float] = RUNGS
) -> dict[str, NDArray[np.float64]]:
    """Relative output error of each layer alone when it is cut to each ratio and its bias corrected, ``(rungs,)``.

    ``E|dy - E dy|^2 / E|y - E y|^2`` on the calibration inputs; it never falls with the ratio.
    """
    found = {}
    for name, linear in calibration.dense.linears.items():
        stats, weight = calibration.stats[name], linear.weight.detach().float().cpu()
        mean = stats.mean
        covariance = (stats.hessian(0.0) - torch.outer(mean, mean)).float()
        energy = max(float(((weight @ covariance) * weight).sum()), torch.finfo(torch.float32).tiny)
        rank = expanded_rank(rankings[name])
        errors = []
        for ratio in rungs:
            lost = weight * (rank >= rankings[name].cut_for_sparsity(ratio))
            errors.append(float(((lost @ covariance) * lost).sum()) / energy)
        found[name] = np.maximum.accumulate(np.array(errors))
    return found


class ReconstructionProxy:
    """Minus the sum of the layers' own relative output errors: no forward pass, so it is nearly free.

    Args:
        errors: what `layer_errors` gave.
        cells: of each layer.
    """

    def __init__(self, errors: Mapping[str, NDArray[np.float64]], cells: Mapping[str, int]) -> None:
        self._errors, self._cells = dict(errors), dict(cells)

    def __call__(self, kept: Mapping[str, int]) -> list[float]:
        """The score of a candidate, given as kept cells per layer; higher is better."""
        total = 0.0
        for name, errors in self._errors.items():
            total += float(np.interp(1.0 - kept[name] / self._cells[name], RUNGS, errors))
        return [-total]


def unexplained(scores: Tensor, dense: Tensor) -> float:
    """Share of the variance of the dense scores that no line through a candidate's scores explains, 0 to 1.

    A shift or a scale of all scores is the first thing that fine-tuning mends; a squared difference is mostly those.
    Where either does not vary, or they run against one another, it is 1.

    Args:
        scores, dense: ``(rows, outputs)``.
    """
    apart, from_mean = (x.double() - x.double().mean(dim=0) for x in (scores, dense))
    power = float(apart.square().sum() * from_mean.square().sum())
    if not power > 0.0:
        return 1.0
    correlation = float((apart * from_mean).sum()) / math.sqrt(power)
    return 1.0 - max(0.0, correlation) ** 2


class ForwardProxy:
    """Cuts a copy of the model, corrects its biases, and compares its answers on a slice of held-out batches.

    Answers are remembered: a batch that a candidate has seen costs nothing when it belongs to another slice.

    Args:
        calibration: of the dense model.
        batches: the slice; with labels for ``loss``.
        kind: ``"kl"`` (distance to the dense outputs: KL divergence of classes, for scores what `unexplained` says,
            cosine of embeddings; cells by magnitude), ``"hidden"`` (distance to the dense hidden states of every layer,
            averaged over a sequence's tokens, as a share of how far those of the slice lie from their mean; mean over
            layers; cells by magnitude), ``"loss"`` (the task's own loss; cells by magnitude) or ``"ladder"`` (distance
            of outputs, with the rankings and the shared weights that make up for several levels at once).
    """

    def __init__(self, calibration: Calibration, batches: Sequence[Batch], kind: str) -> None:
        if kind not in ("hidden", "kl", "loss", "ladder"):
            raise UserInputError(f"the proxy {kind!r} is unknown; choose one of {', '.join(PROXIES)}.")
        if kind == "loss" and any(batch.labels is None for batch in batches):
            raise UserInputError("the proxy 'loss' needs labels; choose 'kl', which needs none.")
        dense = calibration.dense
        if dense.spec.pooling == "none" and kind != "hidden":
            raise UserInputError(
                f"{dense.spec.name} has one output per token, and the proxy {kind!r} compares one per sequence; choose "
                "'hidden'."
            )
        self._kind, self._batches = kind, list(batches)
        self._grids = calibration.grids
        self._dense = {name: linear.weight.detach().clone() for name, linear in dense.linears.items()}
        self._bias = {name: linear.bias.detach().clone() for name, linear in dense.linears.items()}
        self._device = next(dense.module.parameters()).device
        self._mean = {name: stats.mean.float().to(self._device) for name, stats in calibration.stats.items()}
        self._outputs = {name: self._dense[name] @ mean for name, mean in self._mean.items()}
        self._student = copy.deepcopy(dense)
        self._student.module.eval()
        self._weights = self._dense
        if kind == "ladder":
            rankings = gradual_rankings(dense.linears, self._grids, calibration.stats, LADDER[-1])
            levels = [{n: r.keep(r.cut_for_sparsity(s)) for n, r in rankings.items()} for s in LADDER]
            found = compensate_linears(
                dense.linears, self._grids, calibration.stats, levels, iterations=LADDER_ITERATIONS
            )
            self._weights = {name: made.weight.to(self._device) for name, made in found.items()}
        else:
            rankings = calibration.by_magnitude
        self._ranks = {name: expanded_rank(ranking).to(self._device) for name, ranking in rankings.items()}
        self._remembered: dict[tuple[tuple[int, ...], bytes], Tensor] = {}
        self._targets = self._dense_answers()

    def on(self, batches: Sequence[Batch]) -> ForwardProxy:
        """The same proxy on another slice; weights, rankings and what was seen are shared."""
        other = copy.copy(self)
        other._batches = list(batches)
        other._targets = other._dense_answers()
        return other

    def __call__(self, kept: Mapping[str, int]) -> list[float]:
        """The score of a candidate, given as kept cells per layer; higher is better."""
        answers = self._answers_of(tuple(kept[name] for name in self._grids), lambda: self._cut(kept), self._targets)
        if self._kind == "hidden":
            dense = torch.cat(self._targets, dim=1).double()
            spread = (dense - dense.mean(dim=1, keepdim=True)).square().sum(dim=(1, 2))
            apart = torch.cat(answers, dim=1).double().sum(dim=1)
            return [-float((apart / spread.clamp(min=torch.finfo(torch.float32).tiny)).mean())]
        if self._kind != "loss" and self._student.spec.task == "regression":
            return [-unexplained(torch.cat(answers), torch.cat(self._targets))]
        total, rows = 0.0, 0
        for answer, target, batch in zip(answers, self._targets, self._batches, strict=True):
            total += len(batch.rows) * self._distance(answer, target, batch)
            rows += len(batch.rows)
        return [-total / rows]

    def _dense_answers(self) -> list[Tensor]:
        return self._answers_of((), self._restore, [None] * len(self._batches))

    def _answers_of(
        self, candidate: tuple[int, ...], prepare: Callable[[], None], targets: Sequence[Tensor | None]
    ) -> list[Tensor]:
        """Answers on every batch, of a student that ``prepare`` makes ready if one of them has not been seen."""
        keys = [(candidate, batch.rows.numpy().tobytes()) for batch in self._batches]
        with torch.no_grad():
            if any(key not in self._remembered for key in keys):
                prepare()
            for key, batch, target in zip(keys, self._batches, targets, strict=True):
                if key not in self._remembered:
                    self._remembered[key] = self._answer(batch, target)
        return [self._remembered[key] for key in keys]

    def _cut(self, kept: Mapping[str, int]) -> None:
        for name, linear in self._student.linears.items():
            # Ranks are positions: below the count is exactly so many cells. Every candidate passes through all weights
            # of the model, so they are written where they are used.
            weight = torch.mul(self._weights[name], self._ranks[name] < kept[name], out=linear.weight.data)
            linear.bias.copy_(self._bias[name] + (self._outputs[name] - weight @ self._mean[name]))

    def _restore(self) -> None:
        for name, linear in self._student.linears.items():
            linear.weight.copy_(self._dense[name])
            linear.bias.copy_(self._bias[name])

    def _answer(self, batch: Batch, target: Tensor | None) -> Tensor:
        """Outputs ``(rows, outputs)``. For ``hidden`` the states of the dense model, ``(layers, rows, hidden)``, and of
        a candidate the squared distances from them alone, ``(layers, rows)``: there are many candidates."""
        moved = batch.to(self._device)
        found = run_module(self._student, moved)
        if self._kind == "hidden":
            mask = moved.attention_mask.unsqueeze(-1)
            states = torch.stack([(layer * mask).sum(dim=1) / mask.sum(dim=1) for layer in found.all_hidden[1:]])
            return states if target is None else (states - target).square().sum(dim=2)
        if found.output is None:
            raise UserInputError(f"{self._student.spec.name} has no output to compare; give it a head.")
        return found.output

    def _distance(self, output: Tensor, target: Tensor, batch: Batch) -> float:
        task = self._student.spec.task
        if self._kind == "loss":
            return float(label_loss(output, batch.to(self._device), task))
        if task == "embedding":
            return float(embedding_loss(output, target))
        return float(soft_label_loss(output, target))
