"""Probing: the frozen protocol. A linear classifier on stored features, its L2 strength chosen on validation images.

    python -m robust_transfer probing store/probing/<entry>

Reads its input `features`. Every strength is fitted on the training images less the validation ones; the one with the
best validation accuracy (the larger of equals) is fitted again on both, and tested once. Validation images are the
dataset's own where it has them, else a share of each class's training images. With `selections: [test]` every strength
is fitted on both and the best on the test images is taken, as the paper chose; with both selections there are two
results. Where `images_per_class` limits the training images, validation images are always among these.

Writes `metrics.json` (validation and test accuracies), `predictions.parquet` (of every validation and test image) and
`strengths.csv` (the whole grid). On the CPU it imports numpy alone, not torch: 45 strengths on 1,500 images of 64
features and 10 classes take 0.05 s of one core of an AMD EPYC; 75,750 images of 2,048 features take 2.5 GB.
"""

from __future__ import annotations

import csv
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robust_transfer.configuration.transfer import ProbingSettings, Selection
from robust_transfer.datasets.splits import few_mask, validation_mask
from robust_transfer.statistics.lbfgs import TOLERANCE
from robust_transfer.statistics.logistic_regression import Fit, Regression
from robust_transfer.statistics.metrics import METRICS, mean_per_class, measurements, top1
from robust_transfer.store.entry import Entry
from robust_transfer.store.features import Features, Labels, open_features
from robust_transfer.store.predictions import PREDICTIONS, predictions_table, write_predictions

log = logging.getLogger("robust_transfer")


@dataclass(frozen=True)
class Examples:
    """Some images of a split."""

    features: Features
    """[N, D]."""
    labels: Labels
    """[N]."""
    index: NDArray[np.int64]
    """[N]: rows of the split's stored file."""


class Predicted(NamedTuple):
    """What a classifier says of some images."""

    split: str
    part: Examples
    predictions: Labels
    """[N]."""


class Choice(NamedTuple):
    """The best strength on some images."""

    fit: Fit
    accuracy: float
    """Percent, of the metric that chooses."""
    predictions: Labels
    """[N], of these images."""
    grid: list[dict[str, Any]]
    """Every strength, the largest first."""


def run(entry: Entry, *, threads: int, device: str) -> None:
    """Fit, choose, fit again and test the probe that `entry` describes."""
    settings = ProbingSettings.model_validate(entry.settings)
    stored = entry.input("features")
    n_classes = len(stored.facts()["classes"])
    with entry.writing() as draft:
        start = time.monotonic()
        train, validation = training_parts(stored, settings)
        features, labels = open_features(stored, "test")
        test = Examples(features, labels, np.arange(len(labels)))
        chosen: dict[Selection, tuple[Choice, list[Predicted]]] = {}
        refitted: Fit | None = None
        for selection in settings.selections:
            if selection == "validation":
                choice = choose(train, validation, n_classes, settings, device)
                refitted = refit(train, validation, choice.fit.strength, settings, device)
                predictions = refitted.predict(refitted.scaling(test.features))
                of = [Predicted("validation", validation, choice.predictions), Predicted("test", test, predictions)]
            else:
                choice = choose(together(train, validation), test, n_classes, settings, device)
                of = [Predicted("test", test, choice.predictions)]
            chosen[selection] = choice, of
        seconds = time.monotonic() - start

        draft.write_json(
            "metrics.json",
            [
                row
                for selection, (choice, of) in chosen.items()
                for one in of
                for row in measurements(
                    one.part.labels, one.predictions, n_classes,
                    split=one.split, selection=selection,
                    hyperparameters={"lambda": choice.fit.strength, "at_edge": at_edge(choice, settings)},
                )
            ],
        )  # fmt: skip
        write_predictions(
            draft.file(PREDICTIONS),
            [
                predictions_table(one.split, one.part.index, one.part.labels, one.predictions, selection=selection)
                for selection, (_, of) in chosen.items()
                for one in of
            ],
        )
        grids = [(selection, row) for selection, (choice, _) in chosen.items() for row in choice.grid]
        _write_grid(draft.file("strengths.csv"), grids)
        draft.facts = {
            "lambda": {selection: choice.fit.strength for selection, (choice, _) in chosen.items()},
            "counts": {"train": len(train.labels), "validation": len(validation.labels), "test": len(test.labels)},
        }
        draft.timing.update(
            images=len(train.labels), strengths=len(grids), seconds_fitting=round(seconds, 3),
            evaluations=sum(row["evaluations"] for _, row in grids), device=device, threads=threads,
        )  # fmt: skip
    for selection, (choice, of) in chosen.items():
        tested = accuracy(test.labels, of[-1].predictions, n_classes, settings.metric)
        _report(settings, selection, choice, tested, seconds)
    if refitted and refitted.gap > TOLERANCE:
        log.warning("the fit to all training images stopped before it had converged, at λ %g", refitted.strength)


def training_parts(stored: Entry, settings: ProbingSettings) -> tuple[Examples, Examples]:
    """The training and the validation images of a features entry: all, or `images_per_class` of the training images.

    Raises ValueError if the dataset has no validation images and no class with two training images either.
    """
    features, labels = open_features(stored, "train")
    index = np.arange(len(labels))
    if settings.images_per_class:
        index = np.flatnonzero(few_mask(labels, settings.images_per_class, settings.seed))
    elif "validation" in stored.facts()["counts"]:
        held = open_features(stored, "validation")
        return Examples(features, labels, index), Examples(*held, np.arange(len(held[1])))
    mask = validation_mask(labels[index], settings.validation_fraction, settings.seed)
    if not mask.any():
        raise ValueError(
            f"{stored.path}: no class has two training images, so none can be set aside to choose a strength on"
        )
    chosen, rest = index[mask], index[~mask]
    return Examples(features[rest], labels[rest], rest), Examples(features[chosen], labels[chosen], chosen)


def choose(train: Examples, validation: Examples, n_classes: int, settings: ProbingSettings, device: str) -> Choice:
    """Fit every strength to the training images and take the most accurate on the others, the larger of equals."""
    regression = Regression(train.features, train.labels, standardise=settings.standardise, device=device)
    held = regression.scaling(validation.features)
    best: Choice | None = None
    grid: list[dict[str, Any]] = []
    for fit in regression.path(settings.strengths):
        predictions = fit.predict(held)
        row = {name: accuracy(validation.labels, predictions, n_classes, name) for name in METRICS}
        grid.append({"lambda": fit.strength, **row, "evaluations": fit.evaluations, "gap": fit.gap})
        if best is None or row[settings.metric] > best.accuracy:
            best = Choice(fit, row[settings.metric], predictions, grid)
    assert best is not None  # the settings have one strength at least
    return best


def refit(train: Examples, validation: Examples, strength: float, settings: ProbingSettings, device: str) -> Fit:
    """The chosen strength, fitted to training and validation images together."""
    both = together(train, validation)
    regression = Regression(both.features, both.labels, standardise=settings.standardise, device=device)
    return next(regression.path([strength]))


def together(train: Examples, validation: Examples) -> Examples:
    """All images that a classifier may be fitted to before it is tested; `index` means nothing then."""
    features = np.concatenate([train.features, validation.features])
    labels = np.concatenate([train.labels, validation.labels])
    return Examples(features, labels, np.concatenate([train.index, validation.index]))


def at_edge(choice: Choice, settings: ProbingSettings) -> bool:
    """Is the best strength the smallest or largest of several?"""
    return len(settings.strengths) > 1 and choice.fit.strength in (min(settings.strengths), max(settings.strengths))


def accuracy(labels: Labels, predictions: Labels, n_classes: int, metric: str) -> float:
    """Percent, by the metric's name."""
    return top1(labels, predictions) if metric == "top1" else mean_per_class(labels, predictions, n_classes)


def _write_grid(path: Path, grids: list[tuple[Selection, dict[str, Any]]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ["selection", *grids[0][1]])
        writer.writeheader()
        writer.writerows({"selection": selection, **row} for selection, row in grids)


def _report(
    settings: ProbingSettings, selection: Selection, choice: Choice, test_accuracy: float, seconds: float
) -> None:
    strength = choice.fit.strength
    if at_edge(choice, settings):
        end = "smallest" if strength == min(settings.strengths) else "largest"
        log.warning("the best λ, %g, is the %s of the grid: widen probing.strengths", strength, end)
    loose = [row["lambda"] for row in choice.grid if row["gap"] > TOLERANCE]
    if loose:
        log.warning("%d of the fits stopped before they had converged, at λ from %g up", len(loose), min(loose))
    log.info(
        "probe: λ %g of %d, chosen on %s at %.1f %%, test %.1f %% (%s), %.1f s",
        strength, len(settings.strengths), selection, choice.accuracy, test_accuracy, METRICS[settings.metric],
        seconds,
    )  # fmt: skip
