"""What of a grid would fail in its jobs, or mean something else than it says, found out before any of them starts."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
import itertools
from collections.abc import Iterator
from pathlib import Path

from robust_transfer.configuration.base import LARGEST
from robust_transfer.configuration.catalogue.datasets import catalogued
from robust_transfer.configuration.datasets import (
    CatalogueOrigin,
    DatasetSettings,
    Origin,
    ShapesOrigin,
    TorchvisionOrigin,
)
from robust_transfer.configuration.experiment import Experiment
from robust_transfer.configuration.training import RECIPES
from robust_transfer.configuration.weights import AresWeights, RobustBenchWeights, published_model
from robust_transfer.dag.grid import Grid, PlannedEntry
from robust_transfer.store.finished import read_card

LONGEST = 240
"""Characters of an entry's name: file systems take 255, and what is moved aside has a few more."""
TELLING = ("batch_size", "learning_rate", "schedule", "weight_decay")
"""Settings of a training that are named where a recipe of the user's own leaves them out."""
RATIO = 0.005
"""Largest difference of resize ratios that is none: a pixel of 224."""
MOST_CLASSES = 20
"""That a task of the built-in generator has."""


def mistakes(grid: Grid) -> list[str]:
    """One line for each thing that cannot be as the configuration says."""
    if blocked := [*_no_folders(grid.experiment)]:
        return blocked
    return [
        *_long_names(grid),
        *_unknown_to_torchvision(grid),
        *_limits_below_classes(grid),
        *_more_than_there_are(grid.experiment, grid),
    ]


def recipe_notices(grid: Grid) -> list[str]:
    """One line if backbones are trained by a recipe of the user's name, for what it leaves at its defaults."""
    pretraining = grid.experiment.pretraining
    stated = pretraining.training.model_fields_set
    silent = {name: getattr(pretraining.training, name) for name in TELLING if name not in stated}
    if pretraining.recipe in RECIPES or not silent or not grid.stage("pretraining"):
        return []
    defaults = ", ".join(f"{name} {value}" for name, value in silent.items())
    return [
        f"pretraining.recipe = {pretraining.recipe}: a name of yours, which brings no values and keeps none of another "
        f"recipe's; by default {defaults}"
    ]


def preprocessing_notices(experiment: Experiment) -> list[str]:
    """One line for each network published by name that this experiment prepares images for otherwise.

    What torchvision and timm say of their networks takes an import to know, and stands in the log of the import.
    """
    used = {part.backbones or experiment.backbones for part in experiment.grid}
    lines = []
    for name, weights in experiment.weights.items():
        if name not in used or not isinstance(weights, RobustBenchWeights | AresWeights):
            continue
        published = published_model(weights).preprocessing
        said = published.not_honoured(experiment.input_size) if published else []
        ratio, ours = published.resize_ratio if published else None, experiment.preprocessing.resize_ratio
        if ratio is not None and abs(ratio - ours) > RATIO:
            said.append(f"preprocessing.resize_ratio {ratio:.4g}, and not {ours:.4g}")
        if said:
            lines.append(f"weights.{name}: {weights.model} was published for {'; '.join(said)}")
    return lines


def _no_folders(experiment: Experiment) -> Iterator[str]:
    for key, path in (("store", experiment.store), ("results", experiment.results)):
        there = next((one for one in (Path(path), *Path(path).parents) if one.exists()), None)
        if there and not there.is_dir():
            yield f"{key} = {path}: {there} is a file, and a folder is to stand there; write another path"


def _long_names(grid: Grid) -> Iterator[str]:
    longest = max(grid.entries.values(), key=lambda entry: len(entry.folder), default=None)
    if longest and len(longest.folder) > LONGEST:
        yield (
            f"grid: {longest.stage}/{longest.folder}: the name of this entry has {len(longest.folder)} characters, "
            f"of which file systems take {LONGEST}; give shorter names to datasets, weights or architectures"
        )


def _unknown_to_torchvision(grid: Grid) -> Iterator[str]:
    known = {name.lower(): name for name in torchvision_datasets()}
    for dataset in grid.stage("datasets").values():
        origin = dataset.settings.origin if isinstance(dataset.settings, DatasetSettings) else None
        if isinstance(origin, TorchvisionOrigin) and known and origin.dataset not in known.values():
            near = [known[name] for name in difflib.get_close_matches(origin.dataset.lower(), known, n=2)]
            hint = f"did you mean {' or '.join(near)}?" if near else "see torchvision's list of datasets"
            key = f"datasets.{dataset.name}.origin.dataset"
            yield f"{key} = {origin.dataset}: torchvision.datasets has no such class; {hint}"


@functools.cache
def torchvision_datasets() -> tuple[str, ...]:
    """Names of torchvision's datasets, read from its file: importing it takes seconds. Empty where it is not there."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return ()
    for statement in ast.parse((Path(found.origin).parent / "datasets" / "__init__.py").read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            return tuple(ast.literal_eval(statement.value))
    return ()


def _limits_below_classes(grid: Grid) -> Iterator[str]:
    """Limits of datasets that cannot hold one image of each class."""
    for dataset in grid.stage("datasets").values():
        settings = dataset.settings
        assert isinstance(settings, DatasetSettings)
        limits = {"train_limit": settings.train_limit, "test_limit": settings.test_limit}
        for key, limit in ((key, limit) for key, limit in limits.items() if limit):
            classes = _classes(settings.origin) if limit < MOST_CLASSES or not _is_drawn(settings.origin) else None
            if classes and limit < classes:
                yield (
                    f"datasets.{dataset.name}.{key} = {limit}: cannot hold an image of each of the {classes} classes; "
                    f"write {classes} or more"
                )


def _is_drawn(origin: Origin) -> bool:
    return isinstance(origin, ShapesOrigin)


def _classes(origin: Origin) -> int | None:
    """How many classes a dataset has; None where its images say."""
    if isinstance(origin, ShapesOrigin):
        from robust_transfer.datasets.origins.shapes import classes_of  # numpy, which a plan seldom needs

        return len(classes_of(origin))
    if isinstance(origin, CatalogueOrigin) and not origin.partial:
        return catalogued(origin.dataset).classes
    return None


def _more_than_there_are(experiment: Experiment, grid: Grid) -> Iterator[str]:
    """Numbers of images that no class, or no target, has: their rows would say so, and be of all images."""
    datasets = {entry.name: entry for entry in grid.stage("datasets").values()}
    for i, part in enumerate(experiment.grid):
        targets = part.targets if part.targets is not None else experiment.targets
        for images in (int(images) for images in part.images_per_class if images != "all"):
            for target in (target for target in targets if part.modes and target in datasets):
                most = _largest_class(datasets[target], Path(experiment.store), images)
                if most is not None and images > most:
                    yield (
                        f"grid[{i}].images_per_class = {images}: no class of {target} has more than {most} training "
                        f"images; write {f'a number up to {most}, or ' if most > 1 else ''}`all`"
                    )
                    break
        for images, target in itertools.product(part.training_images, targets):
            if not part.modes or target not in datasets:
                continue
            most = _training_images(datasets[target], Path(experiment.store))
            if most is not None and images > most:
                yield (
                    f"grid[{i}].training_images = {images}: {target} has {most} training images; write a number up to "
                    f"{most}, or images_per_class: [all]"
                )


def _training_images(dataset: PlannedEntry, store: Path) -> int | None:
    """How many training images there are, or at most; None where nobody knows yet."""
    if card := read_card(store / dataset.id):
        return int(card["facts"]["counts"]["train"])
    settings = dataset.settings
    assert isinstance(settings, DatasetSettings)
    origin, limit = settings.origin, settings.train_limit or LARGEST
    if isinstance(origin, ShapesOrigin):
        return min(origin.train, limit)
    if isinstance(origin, CatalogueOrigin):
        split = catalogued(origin.dataset).splits[origin.split]
        return min(split.counts.train, limit) if split.counts_certain else settings.train_limit
    return settings.train_limit


def _largest_class(dataset: PlannedEntry, store: Path, wanted: int) -> int | None:
    """At most so many training images has any class; None where `wanted` are there, or where nobody knows yet."""
    if card := read_card(store / dataset.id):
        return int(card["facts"]["images_per_class"]["train"]["max"])
    settings = dataset.settings
    assert isinstance(settings, DatasetSettings)
    origin, limit = settings.origin, settings.train_limit or LARGEST
    if isinstance(origin, ShapesOrigin):
        images = min(origin.train, limit)
        if wanted <= images // MOST_CLASSES:
            return None
        return -(-images // (_classes(origin) or 1))
    if isinstance(origin, CatalogueOrigin):
        known = catalogued(origin.dataset)
        split = known.splits[origin.split]
        others = 0 if origin.partial else known.classes - 1  # each of them has an image
        return min(split.counts.train, limit) - others if split.counts_certain else None
    return settings.train_limit
