"""A linear probe on features of several datasets, whose classes are mapped to those of another one.

It decides on images of classes that the backbone's own outputs do not know. numpy alone, no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robust_transfer.configuration.conflicts import ClassMap
from robust_transfer.configuration.transfer import Probing
from robust_transfer.datasets.splits import validation_mask
from robust_transfer.statistics.logistic_regression import Fit, Regression
from robust_transfer.statistics.metrics import mean_per_class
from robust_transfer.store.entry import Entry, StoreError
from robust_transfer.store.features import Features, Labels, open_features
from robust_transfer.training.fixed_features import Candidate, Examples, best_of, together


@dataclass(frozen=True)
class ClassProbe:
    """A fitted probe, and how well it tells the classes apart where no cue is in conflict."""

    fit: Fit
    classes: int
    accuracy: float
    """Mean over classes of the percent of test images that are right."""
    images: dict[str, int]
    """Images that it was fitted to and tested on, by split."""

    def predict(self, features: Features) -> NDArray[np.int64]:
        """The class of each image, int64 [N], from its features [N, D]."""
        return self.fit.predict(self.fit.scaling(features))


def fit_probe(
    stored: Sequence[Entry], maps: Sequence[ClassMap], classes: Sequence[str], settings: Probing, seed: int
) -> ClassProbe:
    """Fit as the frozen protocol does: the strength is chosen on validation images, and fitted again to all.

    Args:
        stored: Features entries of one backbone.
        maps: For each entry, its dataset's classes by the probe's.
        classes: The probe's classes, in the order of their numbers.
        settings: Strengths, solver, share of validation images.
        seed: Of the validation split.

    The strength with the highest mean accuracy per class is taken, since the datasets differ in size. Raises StoreError
    for a class that has no training images.
    """
    parts: dict[str, list[Examples]] = {"train": [], "validation": [], "test": []}
    for entry, of_dataset in zip(stored, maps, strict=True):
        number = numbers(entry.facts()["classes"], of_dataset, classes)
        for split in entry.facts()["counts"]:
            parts[split].append(_mapped(*open_features(entry, split), number))
        if "validation" not in entry.facts()["counts"]:
            every = parts["train"].pop()
            mask = validation_mask(every.labels, settings.validation_fraction, seed)
            parts["train"].append(_rows(every, ~mask))
            parts["validation"].append(_rows(every, mask))
    train, held, test = (_joined(parts[split]) for split in ("train", "validation", "test"))
    if lacks := [name for label, name in enumerate(classes) if label not in train.labels]:
        raise StoreError(f"no training images of {', '.join(lacks)}: the probe cannot know them")

    def candidates() -> Iterator[Candidate]:
        fitted = regression(train, settings)
        scaled = fitted.scaling(held.features)
        for fit in fitted.path(settings.strengths):
            yield Candidate(fit.strength, fit.predict(scaled), {})

    choice = best_of(candidates(), held, name="lambda", n_classes=len(classes), metric="mean_per_class")
    fit = next(regression(together(train, held), settings).path([choice.value]))
    accuracy = mean_per_class(test.labels, fit.predict(fit.scaling(test.features)), len(classes))
    counts = {"train": len(train.labels) + len(held.labels), "test": len(test.labels)}
    return ClassProbe(fit, len(classes), accuracy, counts)


def numbers(known: Sequence[str], of_dataset: Mapping[str, Sequence[str]], classes: Sequence[str]) -> Labels:
    """The probe's class of each class of a dataset, int64 [its classes]; -1 for those that are of none."""
    found = np.full(len(known), -1, np.int64)
    place = {name: label for label, name in enumerate(known)}
    for label, name in enumerate(classes):
        for one in of_dataset.get(name, ()):
            found[place[one]] = label
    return found


def regression(train: Examples, settings: Probing) -> Regression:
    """The regression on these images, by the solver that the settings name."""
    if settings.solver == "scikit-learn":
        from robust_transfer.statistics.scikit_learn import ScikitLearn  # 3 s of CPU

        return ScikitLearn(train.features, train.labels, standardise=settings.standardise)  # type: ignore[return-value]
    return Regression(train.features, train.labels, standardise=settings.standardise)


def _mapped(features: Features, labels: Labels, number: Labels) -> Examples:
    """The images whose class is one of the probe's, under its number."""
    index = np.flatnonzero(number[labels] >= 0)
    return Examples(features[index], number[labels[index]], index)


def _rows(examples: Examples, mask: NDArray[np.bool_]) -> Examples:
    return Examples(examples.features[mask], examples.labels[mask], examples.index[mask])


def _joined(parts: Sequence[Examples]) -> Examples:
    """The images of all datasets; `index` means nothing then."""
    features, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("features", "labels"))
    return Examples(features, labels, np.arange(len(labels)))
