"""What the protocols on stored features share: which images they see, how they choose on some and test on others.

A protocol names candidates for one hyperparameter. Every candidate is fitted to the training images less the validation
ones; the one with the best validation accuracy is fitted again to both, and tested once. Validation images are the
dataset's own where it has them, else a share of each class's training images. With the selection `test` every candidate
is fitted to both and the best on the test images is taken, as the paper chose; with both selections there are two
results. Where the training images are limited, validation images are always among these.

numpy alone, no torch: its stages are many short jobs.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robust_transfer.configuration.transfer import KnnSettings, ProbingSettings, Selection
from robust_transfer.datasets.splits import few_images, validation_mask
from robust_transfer.statistics.metrics import METRICS, mean_per_class, measurements, top1
from robust_transfer.store.entry import Draft, Entry
from robust_transfer.store.features import Features, Labels, open_features
from robust_transfer.store.predictions import PREDICTIONS, predictions_table, write_predictions


@dataclass(frozen=True)
class Examples:
    """Some images of a split."""

    features: Features
    """[N, D]."""
    labels: Labels
    """[N]."""
    index: NDArray[np.int64]
    """[N]: rows of the split's stored file."""


class Parts(NamedTuple):
    """The images of a dataset by what they are for."""

    train: Examples
    validation: Examples
    test: Examples

    @property
    def counts(self) -> dict[str, int]:
        """Images by part."""
        return {name: len(part.labels) for name, part in self._asdict().items()}


class Candidate(NamedTuple):
    """One value of the hyperparameter, fitted to some images and asked about others."""

    value: float
    predictions: Labels
    """[N], of the others."""
    details: dict[str, Any]
    """What else the grid's file says of it."""


class Choice(NamedTuple):
    """The best candidate on some images."""

    value: float
    accuracy: float
    """Percent, of the metric that chooses."""
    predictions: Labels
    """[N], of these images."""
    grid: list[dict[str, Any]]
    """Every candidate, in the order in which they were tried."""


class Predicted(NamedTuple):
    """What a classifier says of some images."""

    split: str
    part: Examples
    predictions: Labels
    """[N]."""


@dataclass(frozen=True)
class Outcome:
    """What one selection came to."""

    choice: Choice
    predicted: list[Predicted] = field(repr=False)
    """Of the images that chose, if they are not the test images, and of the test images, which are last."""

    def tested(self, n_classes: int, metric: str) -> float:
        """Test accuracy in percent, by the metric's name."""
        return accuracy(self.predicted[-1].part.labels, self.predicted[-1].predictions, n_classes, metric)


def open_parts(stored: Entry, settings: ProbingSettings | KnnSettings) -> Parts:
    """The images of a features entry. Raises ValueError as `training_parts` does."""
    train, validation = training_parts(stored, settings)
    features, labels = open_features(stored, "test")
    return Parts(train, validation, Examples(features, labels, np.arange(len(labels))))


def training_parts(stored: Entry, settings: ProbingSettings | KnnSettings) -> tuple[Examples, Examples]:
    """The training and the validation images of a features entry: all, or a few of the training images.

    Raises ValueError if the dataset has no validation images and no class with two training images either.
    """
    features, labels = open_features(stored, "train")
    index = np.arange(len(labels))
    few = few_images(labels, settings.images_per_class, settings.training_images, settings.seed)
    if few is not None:
        index = few
    elif "validation" in stored.facts()["counts"]:
        held = open_features(stored, "validation")
        return Examples(features, labels, index), Examples(*held, np.arange(len(held[1])))
    mask = validation_mask(labels[index], settings.validation_fraction, settings.seed)
    if not mask.any():
        raise ValueError(
            f"{stored.path}: no class has two training images, so none can be set aside to choose on; add training "
            "images, or an official validation split (val/)"
        )
    chosen, rest = index[mask], index[~mask]
    return Examples(features[rest], labels[rest], rest), Examples(features[chosen], labels[chosen], chosen)


def together(train: Examples, validation: Examples) -> Examples:
    """All images that a classifier may be fitted to before it is tested; `index` means nothing then."""
    features = np.concatenate([train.features, validation.features])
    labels = np.concatenate([train.labels, validation.labels])
    return Examples(features, labels, np.concatenate([train.index, validation.index]))


def outcomes(
    parts: Parts,
    selections: Iterable[Selection],
    *,
    choose: Callable[[Examples, Examples], Choice],
    predict: Callable[[Examples, float, Examples], Labels],
) -> dict[Selection, Outcome]:
    """Choose, fit again and test, for each selection.

    `choose` fits every candidate to the first images and takes the best on the second; `predict` fits the chosen value
    to the first images and gives its predictions for the second.
    """
    found: dict[Selection, Outcome] = {}
    train, validation, test = parts
    for selection in selections:
        if selection == "validation":
            choice = choose(train, validation)
            predictions = predict(together(train, validation), choice.value, test)
            chosen_on = Predicted("validation", validation, choice.predictions)
            found[selection] = Outcome(choice, [chosen_on, Predicted("test", test, predictions)])
        else:
            choice = choose(together(train, validation), test)
            found[selection] = Outcome(choice, [Predicted("test", test, choice.predictions)])
    return found


def best_of(candidates: Iterable[Candidate], held: Examples, *, name: str, n_classes: int, metric: str) -> Choice:
    """The candidate that is most accurate on `held` by the metric, the first of equals; `name` is the value's."""
    best: tuple[float, Candidate] | None = None
    grid: list[dict[str, Any]] = []
    for candidate in candidates:
        row = {one: accuracy(held.labels, candidate.predictions, n_classes, one) for one in METRICS}
        grid.append({name: candidate.value, **row, **candidate.details})
        if best is None or row[metric] > best[0]:
            best = row[metric], candidate
    assert best is not None  # the settings have one candidate at least
    return Choice(best[1].value, best[0], best[1].predictions, grid)


def accuracy(labels: Labels, predictions: Labels, n_classes: int, metric: str) -> float:
    """Percent, by the metric's name."""
    return top1(labels, predictions) if metric == "top1" else mean_per_class(labels, predictions, n_classes)


def write_outcomes(
    draft: Draft,
    found: dict[Selection, Outcome],
    *,
    n_classes: int,
    hyperparameters: Callable[[Choice], dict[str, Any]],
    grid: str,
) -> None:
    """Write `metrics.json`, `predictions.parquet` and, under the name `grid`, every candidate's accuracies as CSV."""
    of = [(selection, outcome.choice, one) for selection, outcome in found.items() for one in outcome.predicted]
    draft.write_json(
        "metrics.json",
        [
            row
            for selection, choice, one in of
            for row in measurements(
                one.part.labels, one.predictions, n_classes,
                split=one.split, selection=selection, hyperparameters=hyperparameters(choice),
            )
        ],
    )  # fmt: skip
    write_predictions(
        draft.file(PREDICTIONS),
        [
            predictions_table(one.split, one.part.index, one.part.labels, one.predictions, selection=selection)
            for selection, _, one in of
        ],
    )
    rows = [{"selection": selection, **row} for selection, outcome in found.items() for row in outcome.choice.grid]
    with open(draft.file(grid), "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
