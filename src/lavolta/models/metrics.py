"""Scores of task predictions: accuracy, F1, Pearson and Spearman correlation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lavolta.errors import UserInputError


def accuracy(predicted: NDArray[np.integer], truth: NDArray[np.generic]) -> float:
    """Share of equal entries of two ``(n,)`` arrays, 0 to 1."""
    _check(predicted, truth)
    return float((predicted == truth).mean())


def f1(predicted: NDArray[np.integer], truth: NDArray[np.generic], positive: int = 1) -> float:
    """Harmonic mean of precision and recall of class ``positive``; 0 where neither exists."""
    _check(predicted, truth)
    hit = int(((predicted == positive) & (truth == positive)).sum())
    total = int((predicted == positive).sum() + (truth == positive).sum())
    return 2.0 * hit / total if total else 0.0


def pearson(predicted: NDArray[np.floating], truth: NDArray[np.generic]) -> float:
    """Linear correlation of two ``(n,)`` arrays, -1 to 1; 0 where one of them is constant."""
    _check(predicted, truth)
    # The mean of equal numbers may be another one by a rounding: they are told by themselves, not by their distance.
    a, b = predicted.astype(np.float64), truth.astype(np.float64)
    if (a == a[0]).all() or (b == b[0]).all():
        return 0.0
    a, b = a - predicted.mean(dtype=np.float64), b - b.mean()
    # Scaling by the largest value keeps the squares of tiny or huge predictions from under- or overflowing.
    a, b = a / np.abs(a).max(), b / np.abs(b).max()
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))


def spearman(predicted: NDArray[np.floating], truth: NDArray[np.generic]) -> float:
    """Correlation of the ranks of two ``(n,)`` arrays, ties sharing their mean rank; 0 where one is constant."""
    _check(predicted, truth)
    return pearson(average_ranks(predicted), average_ranks(truth))


def average_ranks(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Ranks 1 to n of ``(n,)`` values; equal values get the mean of the ranks that they span."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_rank = last - (counts - 1) / 2.0
    ranks: NDArray[np.float64] = mean_rank[inverse].astype(np.float64)
    return ranks


def _check(predicted: NDArray[np.generic], truth: NDArray[np.generic]) -> None:
    if predicted.ndim != 1 or predicted.shape != truth.shape or not len(truth):
        raise UserInputError(
            f"predictions of shape {predicted.shape} cannot be scored against labels of shape {truth.shape}; "
            "give one value for each label."
        )
    if not all(np.isfinite(array.astype(np.float64)).all() for array in (predicted, truth)):
        raise UserInputError(
            "predictions or labels contain NaN or infinity; the training diverged or a file is damaged."
        )
