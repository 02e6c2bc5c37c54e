"""Probing: the frozen protocol. A linear classifier on stored features, its L2 strength chosen on validation images.

    python -m robust_transfer probing store/probing/<entry>

Reads its input `features`. Every strength is fitted on the training images less the validation ones; the one with the
best validation accuracy (the larger of equals) is fitted again on both, and tested once. Validation images are the
dataset's own where it has them, else a share of each class's training images.

Writes `metrics.json` (validation and test accuracies), `predictions.parquet` (of every validation and test image) and
`strengths.csv` (the whole grid). On the CPU it imports numpy alone, not torch: 45 strengths on 1,500 images of 64
features and 10 classes take 0.05 s of one core of an AMD EPYC.
"""

from __future__ import annotations

import csv
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from robust_transfer.configuration.transfer import ProbingSettings
from robust_transfer.datasets.splits import validation_mask
from robust_transfer.feature_store import Features, Labels, integers, open_features, strings
from robust_transfer.lbfgs import TOLERANCE
from robust_transfer.logistic_regression import Fit, Regression
from robust_transfer.metrics import mean_per_class, measurements, top1
from robust_transfer.store import Entry

METRIC_NAMES = {"top1": "top-1", "mean_per_class": "mean per class"}

log = logging.getLogger("robust_transfer")


@dataclass(frozen=True)
class Part:
    """Some images of a split."""

    features: Features
    """[N, D]."""
    labels: Labels
    """[N]."""
    index: NDArray[np.int64]
    """[N]: rows of the split's stored file."""


class Choice(NamedTuple):
    """The best strength on validation images."""

    fit: Fit
    accuracy: float
    """Percent, of the metric that chooses."""
    predictions: Labels
    """[N], of the validation images."""
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
        choice = choose(train, validation, n_classes, settings, device)
        fit = refit(train, validation, choice.fit.strength, settings, device)
        features, labels = open_features(stored, "test")
        test = Part(features, labels, np.arange(len(labels)))
        predictions = fit.predict(fit.scaling(test.features))
        seconds = time.monotonic() - start

        at_edge = len(settings.strengths) > 1 and fit.strength in (min(settings.strengths), max(settings.strengths))
        hyperparameters = {"lambda": fit.strength, "at_edge": at_edge}
        draft.write_json(
            "metrics.json",
            [
                row
                for split, part, predicted in (
                    ("validation", validation, choice.predictions),
                    ("test", test, predictions),
                )
                for row in measurements(
                    part.labels, predicted, n_classes,
                    split=split, selection="validation", hyperparameters=hyperparameters,
                )
            ],
        )  # fmt: skip
        write_predictions(
            draft.file("predictions.parquet"),
            {"validation": (validation, choice.predictions), "test": (test, predictions)},
        )
        _write_grid(draft.file("strengths.csv"), choice.grid)
        draft.facts = {
            "lambda": fit.strength,
            "counts": {"train": len(train.labels), "validation": len(validation.labels), "test": len(test.labels)},
        }
        draft.timing.update(
            images=len(train.labels), strengths=len(choice.grid), seconds_fitting=round(seconds, 3),
            evaluations=sum(row["evaluations"] for row in choice.grid), device=device, threads=threads,
        )  # fmt: skip
    _report(settings, choice, fit, at_edge, accuracy(test.labels, predictions, n_classes, settings.metric), seconds)


def training_parts(stored: Entry, settings: ProbingSettings) -> tuple[Part, Part]:
    """The training and the validation images of a features entry.

    Raises ValueError if the dataset has no validation images and no class with two training images either.
    """
    features, labels = open_features(stored, "train")
    if "validation" in stored.facts()["counts"]:
        held = open_features(stored, "validation")
        return Part(features, labels, np.arange(len(labels))), Part(*held, np.arange(len(held[1])))
    mask = validation_mask(labels, settings.validation_fraction, settings.seed)
    if not mask.any():
        raise ValueError(
            f"{stored.path}: no class has two training images, so none can be set aside to choose a strength on"
        )
    chosen, rest = np.flatnonzero(mask), np.flatnonzero(~mask)
    return Part(features[rest], labels[rest], rest), Part(features[chosen], labels[chosen], chosen)


def choose(train: Part, validation: Part, n_classes: int, settings: ProbingSettings, device: str) -> Choice:
    """Fit every strength to the training images and take the most accurate on validation, the larger of equals."""
    regression = Regression(train.features, train.labels, standardise=settings.standardise, device=device)
    held = regression.scaling(validation.features)
    best: Choice | None = None
    grid: list[dict[str, Any]] = []
    for fit in regression.path(settings.strengths):
        predictions = fit.predict(held)
        row = {name: accuracy(validation.labels, predictions, n_classes, name) for name in METRIC_NAMES}
        grid.append({"lambda": fit.strength, **row, "evaluations": fit.evaluations, "gap": fit.gap})
        if best is None or row[settings.metric] > best.accuracy:
            best = Choice(fit, row[settings.metric], predictions, grid)
    assert best is not None  # the settings have one strength at least
    return best


def refit(train: Part, validation: Part, strength: float, settings: ProbingSettings, device: str) -> Fit:
    """The chosen strength, fitted to training and validation images together."""
    features = np.concatenate([train.features, validation.features])
    labels = np.concatenate([train.labels, validation.labels])
    regression = Regression(features, labels, standardise=settings.standardise, device=device)
    return next(regression.path([strength]))


def accuracy(labels: Labels, predictions: Labels, n_classes: int, metric: str) -> float:
    """Percent, by the metric's name."""
    return top1(labels, predictions) if metric == "top1" else mean_per_class(labels, predictions, n_classes)


def write_predictions(path: Path, of: dict[str, tuple[Part, Labels]]) -> None:
    """Write `predictions.parquet`: of each image its split, index (row in that split's file), label and prediction."""
    columns = {
        "split": strings([split for split, (part, _) in of.items() for _ in part.labels]),
        "index": integers(np.concatenate([part.index for part, _ in of.values()])),
        "label": integers(np.concatenate([part.labels for part, _ in of.values()])),
        "prediction": integers(np.concatenate([predicted for _, predicted in of.values()])),
    }
    pq.write_table(pa.Table.from_arrays(list(columns.values()), list(columns)), path)


def _write_grid(path: Path, grid: list[dict[str, Any]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(grid[0]))
        writer.writeheader()
        writer.writerows(grid)


def _report(
    settings: ProbingSettings, choice: Choice, fit: Fit, at_edge: bool, test_accuracy: float, seconds: float
) -> None:
    if at_edge:
        end = "smallest" if fit.strength == min(settings.strengths) else "largest"
        log.warning("the best λ, %g, is the %s of the grid: widen probing.strengths", fit.strength, end)
    loose = [row["lambda"] for row in choice.grid if row["gap"] > TOLERANCE] + [fit.strength] * (fit.gap > TOLERANCE)
    if loose:
        log.warning("%d of the fits stopped before they had converged, at λ from %g up", len(loose), min(loose))
    log.info(
        "probe: λ %g of %d, validation %.1f %%, test %.1f %% (%s), %.1f s",
        fit.strength, len(settings.strengths), choice.accuracy, test_accuracy, METRIC_NAMES[settings.metric], seconds,
    )  # fmt: skip
