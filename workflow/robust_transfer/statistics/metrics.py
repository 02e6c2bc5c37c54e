"""Accuracies, their bootstrap intervals, and the rows a measuring stage writes to `metrics.json`.

NumPy only: dozens of short jobs import this module (probing, selecting, evaluation, …), and importing `sklearn.metrics`
takes 3.8 s of CPU, `scipy.stats` 2.4 s, pandas 0.6 s and NumPy 0.1 s (medians of 3 on an Intel Xeon). Jobs that run
once in an experiment (results, figures, report) use pandas and, where they need it, `scipy.stats`.

Resampling images with replacement changes two numbers a class: how many of its images are drawn right and how many
wrong. Those counts are multinomial, so they are drawn directly: that is the distribution of 1000 drawings of n indices,
at a cost that does not grow with n (0.07 s for 200 classes on one core; index by index, 10,000 images take 0.2 s and
50,000 take 1 s).
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]

METRICS = {"top1": "top-1", "mean_per_class": "mean per class"}
"""Accuracies by name, and how figures call them."""
RESAMPLES = 1000
"""Of a bootstrap over images: the standard error of an interval's end is then about 2 % of the interval's width."""
COVERAGE = 95.0
"""Percent of resamples that an interval holds, cut off equally at both ends."""


def top1(labels: Integers, predictions: Integers) -> float:
    """Percent of images whose prediction is their label.

    `labels` are integers of shape [N], `predictions` too, or [S, N] by S heads, of which the mean is given. Raises
    ValueError if N is 0 or the shapes differ.
    """
    _check(labels, predictions)
    return 100 * float(np.mean(labels == predictions))


def mean_per_class(labels: Integers, predictions: Integers, n_classes: int) -> float:
    """Mean over classes of the percent of a class's images that are predicted right: the mean of recalls.

    Classes without images are left out. `labels` are integers of shape [N] in [0, n_classes), `predictions` too, or
    [S, N] by S heads, of which the mean is given. Raises ValueError if N is 0, the shapes differ or a value is out of
    range.
    """
    return float(_mean_of_recalls(_counts(labels, predictions, n_classes)))


def bootstrap(labels: Integers, predictions: Integers, n_classes: int) -> dict[str, tuple[float, float]]:
    """Percentile intervals over images for `top1` and `mean_per_class`, in percent: metric to (low, high).

    `predictions` are [N], or [S, N] by S heads, whose mean accuracy it then is. Images are resampled with replacement
    from all of them, whatever their class; a class absent from a resample is left out of its mean. The random seed is a
    checksum of the arguments: the same results always have the same interval.
    Raises ValueError as `mean_per_class` does.
    """
    counts = _counts(labels, predictions, n_classes)
    generator = np.random.default_rng([zlib.crc32(row.tobytes()) for row in counts])
    drawn = generator.multinomial(counts.sum(), counts.ravel() / counts.sum(), size=RESAMPLES)
    drawn = drawn.reshape(RESAMPLES, *counts.shape)
    resampled = {"top1": _share_right(drawn.sum(-1)), "mean_per_class": _mean_of_recalls(drawn)}
    return {metric: percentile_interval(values) for metric, values in resampled.items()}


def percentile_interval(resampled: Floats) -> tuple[float, float]:
    """The ends of the interval that holds COVERAGE percent of a bootstrap's resampled values [R]."""
    low, high = np.percentile(resampled, ((100 - COVERAGE) / 2, (100 + COVERAGE) / 2))
    return float(low), float(high)


def measurements(
    labels: Integers,
    predictions: Integers,
    n_classes: int,
    *,
    split: str,
    selection: str | None = None,
    attack: dict[str, Any] | None = None,
    hyperparameters: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """The rows of `metrics.json` for one set of predictions: top-1 and mean per-class accuracy with their intervals.

    `labels` are [N]; `predictions` [N], or [S, N] by S heads that differ in their seed alone: their mean is measured.
    `split` is `test` or `validation`; `selection` says where hyperparameters were chosen (None: nothing was), `attack`
    is {norm, eps, steps, restarts}, with a `kind` if it is not PGD, or None. Values are percents, unrounded. Raises
    ValueError as `mean_per_class` does.
    """
    intervals = bootstrap(labels, predictions, n_classes)
    values = {"top1": top1(labels, predictions), "mean_per_class": mean_per_class(labels, predictions, n_classes)}
    return [
        {
            "split": split,
            "metric": metric,
            "value": value,
            "ci_low": intervals[metric][0],
            "ci_high": intervals[metric][1],
            "ci_kind": "images",
            "n": len(labels),
            "selection": selection,
            "attack": attack,
            "hyperparameters": hyperparameters or {},
        }
        for metric, value in values.items()
    ]


def _counts(labels: Integers, predictions: Integers, n_classes: int) -> NDArray[np.int64]:
    """How many images of each class S heads predict right, by how many do: int64 [S + 1, classes], all heads first.

    Classes without images are left out.
    """
    _check(labels, predictions)
    for name, values in (("labels", labels), ("predictions", predictions)):
        if values.min() < 0 or values.max() >= n_classes:
            raise ValueError(f"{name} go from {values.min()} to {values.max()}, and there are {n_classes} classes")
    heads = np.atleast_2d(predictions)
    right = (heads == labels).sum(0)
    rows = [np.bincount(labels[right == s], minlength=n_classes) for s in range(len(heads), -1, -1)]
    counts: NDArray[np.int64] = np.stack(rows)
    return counts[:, counts.sum(0) > 0]


def _share_right(counts: NDArray[np.int64]) -> Floats:
    """Percent [...] from counts [..., S + 1] of images by how many of S heads are right, all heads first."""
    total = counts.sum(-1)
    heads = counts.shape[-1] - 1
    share: Floats = 100 * (counts @ np.arange(heads, -1, -1)) / np.where(total > 0, total * heads, 1)
    return share


def _mean_of_recalls(counts: NDArray[np.int64]) -> Floats:
    """Percent [...] from counts [..., S + 1, classes], over the classes that have images."""
    by_class = np.moveaxis(counts, -1, -2)
    mean: Floats = _share_right(by_class).sum(-1) / (by_class.sum(-1) > 0).sum(-1)
    return mean


def _check(labels: Integers, predictions: Integers) -> None:
    if labels.ndim != 1 or labels.shape != predictions.shape[-1:] or predictions.ndim > 2 or not predictions.size:
        raise ValueError(
            f"labels {list(labels.shape)} and predictions {list(predictions.shape)}: "
            "an accuracy needs one prediction for each of at least one label"
        )
