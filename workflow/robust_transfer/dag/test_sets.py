"""Transferred models on further test sets of their targets' classes: the entries that test them, and class maps.

Probes and nearest neighbours of one backbone share an entry, and so one job, since fitting them again takes less time
than the job's start. Linear heads and fine-tuned networks have an entry each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from robust_transfer.configuration.datasets import CatalogueOrigin, DatasetSettings
from robust_transfer.configuration.test_sets import AlsoTestOn, TestedOn, TestSetsSettings
from robust_transfer.store.entry import finished
from robust_transfer.tables.key import MeasurementKey

if TYPE_CHECKING:
    from robust_transfer.configuration.transfer import Selection
    from robust_transfer.dag.grid import Grid, PlannedEntry

ON_FEATURES = ("probing", "knn")


class Tested(NamedTuple):
    """A transferred model, and the test sets that it is tested on."""

    transfer: PlannedEntry
    backbone: PlannedEntry
    dataset: PlannedEntry
    key: MeasurementKey
    on: Sequence[tuple[AlsoTestOn, PlannedEntry]]
    """Of models on features with the entry of the test set's features, of trained ones with that of the dataset."""


@dataclass
class TestSets:
    """The models of a grid that are tested on more than their target."""

    __test__ = False

    found: dict[str, Tested] = field(default_factory=dict)
    """By the transfer's entry, in the order in which they were planned."""


class TestSetEntry(NamedTuple):
    """An entry that tests models, before it is one of the grid."""

    name: str
    settings: TestSetsSettings
    inputs: dict[str, PlannedEntry]
    models: Sequence[Tested]


def test_set_entries(models: TestSets, selection: Selection) -> Iterator[TestSetEntry]:
    """The entries that test the models of a grid."""
    together: dict[tuple[str, str | None], list[Tested]] = defaultdict(list)
    for model in models.found.values():
        alone = None if model.transfer.stage in ON_FEATURES else model.transfer.id
        together[model.backbone.id, alone].append(model)
    for (_, alone), of_entry in together.items():
        first = of_entry[0]
        inputs, tests, images = {"backbone": first.backbone}, list[TestedOn](), dict[str, str]()
        for number, model in enumerate(of_entry):
            inputs |= dict(_weights_of(model, number))
            for other, entry in model.on:
                role = images.setdefault(entry.id, f"images{len(images)}")
                inputs[role] = entry
                tests.append(
                    TestedOn(
                        model=f"model{number}", images=role, target=model.key.target, test_set=other.dataset,
                        classes=other.classes,
                    )
                )  # fmt: skip
        name = first.transfer.name if alone else f"{first.backbone.name}_on_features"
        yield TestSetEntry(name, TestSetsSettings(tests=tuple(tests), selection=selection), inputs, of_entry)


def _weights_of(model: Tested, number: int) -> Iterator[tuple[str, PlannedEntry]]:
    """A model, its target and what its weights come from, by role."""
    yield f"model{number}", model.transfer
    yield f"dataset{number}", model.dataset
    for role, entry in model.transfer.inputs.items():
        if role == "features" and model.transfer.stage in ON_FEATURES:
            yield f"features{number}", entry
        elif role.startswith("final"):
            yield f"{role}_{number}", entry


def class_mistakes(grid: Grid) -> list[str]:
    """A message for each further test set whose classes are not the target's as the configuration says, found out
    before any job; of datasets whose classes are not known before they are prepared the job says so.

    Reads names of files and labels, no image.
    """
    experiment = grid.experiment
    wanted = {(target, one.dataset): one for target, others in experiment.also_test_on.items() for one in others}
    pairs = {pair: one for pair, one in wanted.items() if not {*pair} & {*grid.dropped}}
    if not pairs or all(finished(Path(experiment.store) / one.id) for one in grid.stage("test_sets").values()):
        return []
    from robust_transfer.datasets.class_maps import ClassMapError, class_numbers

    messages = []
    for (target, dataset), one in pairs.items():
        known, targets = (_classes(grid, name) for name in (dataset, target))
        if known is None or targets is None:
            continue
        try:
            class_numbers(known, targets, one.classes, dataset=dataset, target=target)
        except ClassMapError as error:
            messages.append(experiment.mistake(str(error)))
    return messages


def _classes(grid: Grid, name: str) -> tuple[str, ...] | None:
    """The names of a dataset's classes; None where they are not known yet, as where its images are missing."""
    from robust_transfer.dag.sources import classes_known
    from robust_transfer.datasets.errors import DatasetError

    stated = grid.experiment.datasets[name]
    settings = DatasetSettings.model_validate(stated.model_dump())
    prepared = next((one for one in grid.stage("datasets").values() if one.name == name), None)
    made = Path(grid.experiment.store) / prepared.id if prepared else Path()
    counted_alone = isinstance(settings.origin, CatalogueOrigin) and settings.origin.dataset != "imagenet"
    if prepared is None or (counted_alone and not finished(made)):
        return None
    try:
        return classes_known(made, settings)
    except DatasetError:
        return None
