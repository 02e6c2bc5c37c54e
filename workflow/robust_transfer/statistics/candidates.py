"""Candidates: networks that were tested on the same images, and their accuracies in resamples of these.

Column 0 of every array of accuracies is the actual sample, the columns after it are resamples.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from robust_transfer.statistics.metrics import Floats
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
    path: str = ""
    """Where the entry lies, for messages."""


@dataclass(frozen=True)
class Candidate:
    """One architecture at one eps, with one run per seed."""

    arch: str
    norm: str
    eps: str
    runs: tuple[TransferRun, ...]


def means(candidates: Sequence[Candidate], by_run: Floats) -> Floats:
    """Means over each candidate's runs, [candidates, columns], of accuracies by run."""
    ends = np.cumsum([0] + [len(candidate.runs) for candidate in candidates])
    return np.stack([by_run[start:end].mean(0) for start, end in pairwise(ends)])


def accuracies(
    candidates: Sequence[Candidate], split: str, metric: str, resamples: int, *, left_out: bool = False
) -> Floats:
    """Accuracy in percent of every candidate's runs, one after the other, in every resample, [runs, 1 + resamples].

    With `left_out` on the images that a resample does not draw; column 0 means nothing then.
    """
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
        if left_out:
            counts = (counts == 0).astype(np.int64)
        for members in same_images.values():
            where = np.searchsorted(images, runs[members[0]].splits[split].index)
            correct = np.stack([runs[position].splits[split].correct for position in members])
            weights = _weights(counts[:, where], labels[where], metric)
            by_run[members, columns] = 100 * (correct @ weights.T)
    return by_run.round(9)  # so that equal accuracies are equal, in whatever order their images were summed


def _pool(runs: Sequence[TransferRun], split: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every image of a split that any run saw, sorted, and its label; checks that the runs agree on them."""
    label_of: dict[bytes, NDArray[np.int64]] = {}
    first = runs[0]
    for run in runs:
        found = run.splits.get(split)
        if found is None or not len(found.index):
            raise SelectionError(
                f"{run.entry}: predictions.parquet has no {split} rows, and the best of several networks is chosen on "
                f"validation and reported on test; to make it anew: robust-transfer store renew {run.path or run.entry}"
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
        return np.asarray(counts / np.maximum(counts.sum(1, keepdims=True), 1), dtype=np.float64)
    order = np.argsort(labels, kind="stable")
    _, starts, classes = np.unique(labels[order], return_index=True, return_inverse=True)
    total = np.add.reduceat(counts[:, order], starts, axis=1)
    each = 1 / (np.maximum(total, 1) * np.maximum(np.count_nonzero(total, axis=1), 1)[:, None])
    weights = np.empty(counts.shape)
    weights[:, order] = counts[:, order] * each[:, classes]
    return weights
