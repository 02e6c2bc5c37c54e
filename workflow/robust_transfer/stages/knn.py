"""Knn: the knn protocol. The class that an image's nearest training images vote for, by the cosine of stored features.

    python -m robust_transfer knn store/knn/<entry>

Reads its input `features`. Every number of neighbours k is tried, the most accurate on validation images (the smaller
of equals) is taken, training and validation images are searched together, and the test images are looked at once;
`training/fixed_features.py` says which images those are, and what `selections: [test]` does. A k above the number of
training images is left out: with 5 images of each of 10 classes, 40 train, and 50 neighbours do not exist.

Writes `metrics.json` (validation and test accuracies), `predictions.parquet` (of every validation and test image) and
`neighbours.csv` (the whole grid). It imports scikit-learn (3 s of CPU) and no torch. All
seven default k for 2,000 images among 10,000 of 512 features take 0.6 s of one core of an Intel Xeon.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from robust_transfer.configuration.transfer import KnnSettings, Selection
from robust_transfer.statistics.metrics import METRICS
from robust_transfer.store.entry import Entry
from robust_transfer.store.features import Labels
from robust_transfer.training.fixed_features import (
    Candidate,
    Choice,
    Examples,
    Outcome,
    best_of,
    open_parts,
    outcomes,
    write_outcomes,
)

log = logging.getLogger("robust_transfer")


def run(entry: Entry, *, threads: int, device: str) -> None:
    """Choose the number of neighbours and test it, as `entry` describes."""
    settings = KnnSettings.model_validate(entry.settings)
    stored = entry.input("features")
    n_classes = len(stored.facts()["classes"])

    def choose_on(train: Examples, held: Examples) -> Choice:
        return choose(train, held, n_classes, settings)

    def predict(train: Examples, k: float, test: Examples) -> Labels:
        return next(predictions(train, test, [int(k)], settings)).predictions

    with entry.writing() as draft:
        start = time.monotonic()
        parts = open_parts(stored, settings)
        found = outcomes(parts, settings.selections, choose=choose_on, predict=predict)
        seconds = time.monotonic() - start
        write_outcomes(
            draft, found, n_classes=n_classes, grid="neighbours.csv",
            hyperparameters=lambda choice: {"k": choice.value, "at_edge": at_edge(choice, settings)},
        )  # fmt: skip
        draft.facts = {
            "k": {selection: outcome.choice.value for selection, outcome in found.items()},
            "counts": parts.counts,
        }
        draft.timing.update(
            images=len(parts.train.labels), seconds_searching=round(seconds, 3), device="cpu", threads=threads
        )
    for selection, outcome in found.items():
        _report(settings, selection, outcome, outcome.tested(n_classes, settings.metric), seconds)


def choose(train: Examples, held: Examples, n_classes: int, settings: KnnSettings) -> Choice:
    """Try every number of neighbours and take the most accurate on `held`, the smaller of equals.

    Numbers above that of the training images are left out; raises ValueError if that leaves none.
    """
    there = sorted(k for k in settings.neighbours if k <= len(train.labels))
    if not there:
        raise ValueError(
            f"knn.neighbours: the smallest, {min(settings.neighbours)}, is more than the {len(train.labels)} training "
            "images; add a smaller one"
        )
    if len(there) < len(settings.neighbours):
        log.info("k above %d left out: there are %d training images", there[-1], len(train.labels))
    candidates = predictions(train, held, there, settings)
    return best_of(candidates, held, name="k", n_classes=n_classes, metric=settings.metric)


def predictions(train: Examples, asked: Examples, ks: list[int], settings: KnnSettings) -> Iterator[Candidate]:
    """What each number of neighbours among `train` says of the images asked about."""
    from robust_transfer.statistics.nearest_neighbours import Neighbours  # 3 s of CPU

    neighbours = Neighbours(train.features, train.labels, weights=settings.weights, temperature=settings.temperature)
    for k, found in neighbours.predictions(asked.features, ks):
        yield Candidate(k, found, {})


def at_edge(choice: Choice, settings: KnnSettings) -> bool:
    """Is the best k the smallest or largest of several? There is none below 1."""
    ends = {min(settings.neighbours), max(settings.neighbours)} - {1}
    return len(settings.neighbours) > 1 and choice.value in ends


def _report(
    settings: KnnSettings, selection: Selection, outcome: Outcome, test_accuracy: float, seconds: float
) -> None:
    choice = outcome.choice
    if at_edge(choice, settings):
        end = "smallest" if choice.value == min(settings.neighbours) else "largest"
        log.warning("the best k, %d, is the %s of the grid: widen knn.neighbours", choice.value, end)
    log.info(
        "knn: k %d of %d, chosen on %s at %.1f %%, test %.1f %% (%s), %.1f s",
        choice.value, len(choice.grid), selection, choice.accuracy, test_accuracy, METRICS[settings.metric], seconds,
    )  # fmt: skip
