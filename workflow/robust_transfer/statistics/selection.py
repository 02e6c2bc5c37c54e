"""Choosing eps and architecture on validation or test images, with intervals that repeat the choice in every resample.

A candidate is one architecture at one eps; its accuracy is the mean over its seeds, so a seed is never chosen. Images
are resampled with replacement, the same ones for every candidate: differences are paired. Column 0 of every array of
accuracies is the actual sample, the columns after it are resamples, so that the number reported and its bootstrap go
through one and the same code.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from robust_transfer.statistics.metrics import Floats, percentile_interval
from robust_transfer.statistics.predictions import Predictions

CHUNK = 4_000_000
"""Resampled images held in memory at a time: 32 MB of weights."""


class SelectionError(ValueError):
    """Candidates that cannot be compared; the message names the entry and the fix."""


@dataclass(frozen=True)
class TransferRun:
    """One finished transfer."""

    entry: str
    backbone: str
    backbone_seed: int | None
    transfer_seed: int | None
    splits: dict[str, Predictions]


@dataclass(frozen=True)
class Candidate:
    """One architecture at one eps, with one run per seed."""

    arch: str
    norm: str
    eps: str
    runs: tuple[TransferRun, ...]


@dataclass(frozen=True)
class Pick:
    """What was picked among candidates, on the actual sample and in every resample."""

    accuracies: Floats
    """Test accuracy of what was picked, in percent, [1 + resamples]."""
    picked: NDArray[np.intp]
    """Which candidate that was, [1 + resamples]."""

    @property
    def share(self) -> float:
        """Share of resamples that pick what the actual sample picks: how stable the choice is."""
        return float(np.mean(self.picked[1:] == self.picked[0]))


class Bootstrap:
    """Candidates measured on the same images; picks among them on validation, or on test, and reports on test."""

    def __init__(
        self, candidates: Sequence[Candidate], metric: str, resamples: int, selection: str = "validation"
    ) -> None:
        """Score every candidate; `metric` is `top1` or `mean_per_class`, `selection` `validation` or `test`.

        Raises SelectionError if a run has no predictions of a split that is needed, or other labels or test images
        than the runs it is compared with.
        """
        self.candidates, self.selection = list(candidates), selection
        self.test = _accuracies(self.candidates, "test", metric, resamples)
        # With one candidate nothing is chosen, and validation images are not needed.
        elsewhere = selection == "validation" and len(self.candidates) > 1
        self.decisive = _accuracies(self.candidates, "validation", metric, resamples) if elsewhere else self.test
        self.images = len(self.candidates[0].runs[0].splits["test"].index)

    def pick(self, among: Sequence[int]) -> Pick:
        """The candidate of highest accuracy where it is chosen, separately in every resample; of equals, the first."""
        picked = np.asarray(among)[self.decisive[list(among)].argmax(0)]
        return Pick(self.test[picked, np.arange(self.test.shape[1])], picked)


def interval(accuracies: Floats) -> tuple[float, float, float]:
    """Value, and ends of the percentile interval, from [1 + resamples] numbers of which the first is the value."""
    return float(accuracies[0]), *percentile_interval(accuracies[1:])


def _accuracies(candidates: Sequence[Candidate], split: str, metric: str, resamples: int) -> Floats:
    """Accuracy in percent of every candidate in every resample, [candidates, 1 + resamples]."""
    runs = [run for candidate in candidates for run in candidate.runs]
    images, labels = _pool(runs, split)
    # Runs of one transfer seed share their validation images, so they share the weights of a resample too.
    same_images: dict[bytes, list[int]] = defaultdict(list)
    for position, run in enumerate(runs):
        same_images[run.splits[split].index.tobytes()].append(position)
    by_run = np.empty((len(runs), 1 + resamples))
    column = 0
    for counts in _resampled(len(images), resamples, split):
        columns = slice(column, column := column + len(counts))
        for members in same_images.values():
            where = np.searchsorted(images, runs[members[0]].splits[split].index)
            correct = np.stack([runs[position].splits[split].correct for position in members])
            weights = _weights(counts[:, where], labels[where], metric)
            by_run[members, columns] = 100 * (correct @ weights.T)
    by_run = by_run.round(9)  # so that equal accuracies are equal, in whatever order their images were summed
    ends = np.cumsum([0] + [len(candidate.runs) for candidate in candidates])
    return np.stack([by_run[start:end].mean(0) for start, end in pairwise(ends)])


def _pool(runs: Sequence[TransferRun], split: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every image of a split that any run saw, sorted, and its label; checks that the runs agree on them."""
    label_of: dict[bytes, NDArray[np.int64]] = {}
    first = runs[0]
    for run in runs:
        found = run.splits.get(split)
        if found is None or not len(found.index):
            raise SelectionError(
                f"{run.entry}: predictions.parquet has no {split} rows, and the best of several networks is chosen on "
                "validation and reported on test; move the entry aside and make it again"
            )
        if split == "test" and not np.array_equal(found.index, first.splits[split].index):
            raise SelectionError(
                f"{run.entry} ({len(found.index)} test images) and {first.entry} ({len(first.splits[split].index)}) "
                "were tested on different images; they must be made from one dataset entry"
            )
        label_of[found.index.tobytes() + found.labels.tobytes()] = np.stack([found.index, found.labels])
    pooled = np.unique(np.concatenate(list(label_of.values()), axis=1), axis=1)
    images = pooled[0]
    twice = images[1:][images[1:] == images[:-1]]
    if len(twice):
        raise SelectionError(
            f"{first.entry} and the runs it is compared with give {split} image {twice[0]} different labels; "
            "they must be made from one dataset entry"
        )
    return images, pooled[1]


def _resampled(images: int, resamples: int, split: str) -> Iterator[NDArray[np.int64]]:
    """How often each image is drawn, in chunks of [some, images]; first the actual sample, in which each is once.

    Depends on the split and the number of images alone: every comparison on a test set sees the same resamples.
    """
    yield np.ones((1, images), dtype=np.int64)
    generator = np.random.default_rng([images, {"test": 0, "validation": 1}[split]])
    size = max(1, CHUNK // images)
    for start in range(0, resamples, size):
        some = min(size, resamples - start)
        drawn = generator.integers(images, size=(some, images))
        drawn += images * np.arange(some)[:, None]
        yield np.bincount(drawn.ravel(), minlength=some * images).reshape(some, images)


def _weights(counts: NDArray[np.int64], labels: NDArray[np.int64], metric: str) -> Floats:
    """Weight of each image in the accuracy, [some, N], from how often it is drawn; rows sum to 1.

    For `mean_per_class` a class weighs as much as any other; one that a resample lacks is left out of it.
    """
    if metric == "top1":
        return np.asarray(counts / counts.sum(1, keepdims=True), dtype=np.float64)
    order = np.argsort(labels, kind="stable")
    _, starts, classes = np.unique(labels[order], return_index=True, return_inverse=True)
    total = np.add.reduceat(counts[:, order], starts, axis=1)
    each = 1 / (np.maximum(total, 1) * np.count_nonzero(total, axis=1)[:, None])
    weights = np.empty(counts.shape)
    weights[:, order] = counts[:, order] * each[:, classes]
    return weights
