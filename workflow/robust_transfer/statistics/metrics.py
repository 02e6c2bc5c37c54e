"""Accuracies, and the rows that a measuring stage writes to `metrics.json`.

NumPy only: dozens of short jobs import this module (probing, selecting, evaluation, …), and importing `sklearn.metrics`
takes 3.8 s of CPU, `scipy.stats` 2.4 s, pandas 0.6 s and NumPy 0.1 s (medians of 3 on an Intel Xeon). Jobs that run
once in an experiment (results, figures, report) use pandas and, where they need it, `scipy.stats`.

A row has no interval: that takes `scipy.special`, and one place (`statistics/intervals.py`) that the stage `results`
asks for every number. It has what an interval is made from, the value and the effective number of images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]

METRICS = {"top1": "top-1", "mean_per_class": "mean per class"}
"""Accuracies by name, and how figures call them."""


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


def effective_images(correct: Floats, labels: Integers, metric: str) -> float:
    """How many independent images, each right or wrong, would let an accuracy vary as much as these do.

    `correct` [N] is the share of heads that classify an image right, `labels` [N] its class; `metric` is `top1` or
    `mean_per_class`. For `top1` and one head that is N. Where nothing varies (every image right, or every one wrong),
    it is what equal shares in all classes would give.
    """
    classes, place, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if metric == "top1":
        mean, variance = float(correct.mean()), float(correct.var()) / len(correct)
        unseen = float(len(correct))
    else:
        recalls = np.bincount(place, correct) / sizes
        mean = float(recalls.mean())
        spread = np.bincount(place, (correct - recalls[place]) ** 2) / np.maximum(sizes - 1, 1)
        spread = np.where(sizes > 1, spread, float(correct.var()))
        variance = float((spread / sizes).sum()) / len(classes) ** 2
        unseen = len(classes) ** 2 / float((1 / sizes).sum())
    if variance <= 0 or not 0 < mean < 1:
        return unseen
    return mean * (1 - mean) / variance


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
    """The rows of `metrics.json` for one set of predictions: top-1 and mean per-class accuracy.

    `labels` are [N]; `predictions` [N], or [S, N] by S heads that differ in their seed alone: their mean is measured.
    `split` is `test` or `validation`; `selection` says where hyperparameters were chosen (None: nothing was), `attack`
    is {norm, eps, steps, restarts}, with a `kind` if it is not PGD, or None. Values are percents, unrounded; `n` is the
    number of images, `effective_n` that of independent ones which would let the value vary as much
    (`effective_images`). Raises ValueError as `mean_per_class` does.
    """
    values = {"top1": top1(labels, predictions), "mean_per_class": mean_per_class(labels, predictions, n_classes)}
    correct = (np.atleast_2d(predictions) == labels).mean(0)
    return [
        {
            "split": split,
            "metric": metric,
            "value": value,
            "n": len(labels),
            "effective_n": round(effective_images(correct, labels, metric), 3),
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
