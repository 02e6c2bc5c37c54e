"""Which of an experiment's images and weights are on this machine, found out by looking at the disk and nothing else.

No torch, no network: a plan of thousands of jobs asks this too.
"""

from __future__ import annotations

from pathlib import Path

from robust_transfer.catalogue.datasets import catalogued
from robust_transfer.configuration.datasets import (
    CatalogueOrigin,
    DatasetSettings,
    FolderOrigin,
    ParquetOrigin,
    TorchvisionOrigin,
)
from robust_transfer.configuration.experiment import Experiment
from robust_transfer.configuration.load import ConfigurationError
from robust_transfer.configuration.running import Running
from robust_transfer.configuration.weights import ImportingSettings
from robust_transfer.datasets.finding import lying as images_lying
from robust_transfer.datasets.finding import missing
from robust_transfer.grid import Grid, PlannedEntry, plan
from robust_transfer.store import CARD
from robust_transfer.weights import lying, missing_weights


def planned(experiment: Experiment, without: tuple[str, ...] | None = None) -> Grid:
    """The grid of an experiment, less the datasets whose images are missing where it says `missing: drop`.

    `without` names those datasets where that was decided before. Raises ConfigurationError if nothing would be left,
    or if the source of backbones that are to be trained is missing.
    """
    grid = plan(experiment)
    if experiment.missing == "stop":
        return grid
    names = without if without is not None else _missing_datasets(grid)
    if not names:
        return grid
    if experiment.source in names and any(experiment.weights_of(part) is None for part in experiment.grid):
        raise ConfigurationError(f"source = {experiment.source}: its images are missing, and backbones train on them")
    if {*names} >= {*experiment.targets}:
        raise ConfigurationError(f"targets = {', '.join(experiment.targets)}: the images of all are missing")
    return plan(experiment, without=names)


def absent(grid: Grid) -> list[str]:
    """What a run of the grid still needs and does not find: a message for each dataset or file of weights."""
    store, running = Path(grid.experiment.store), grid.experiment.running
    needed = [entry for entry in grid.entries.values() if not (store / entry.id / CARD).exists()]
    messages = [why for entry in needed if (why := _dataset_missing(entry, running))]
    folder = Path(running.weights).expanduser()
    for entry in needed:
        settings = entry.settings
        if isinstance(settings, ImportingSettings) and not running.downloads and not lying(settings, folder):
            messages.append(missing_weights(settings, folder))
    return messages


def _offered(origin: CatalogueOrigin) -> bool:
    """Whether somebody still offers a catalogued dataset for download, as far as the catalogue knows."""
    sources = catalogued(origin.dataset).splits[origin.split].sources
    return any(source.kind == "huggingface" or (source.kind == "layout" and source.files) for source in sources)


def _missing_datasets(grid: Grid) -> tuple[str, ...]:
    store, running = Path(grid.experiment.store), grid.experiment.running
    return tuple(
        entry.name
        for entry in grid.stage("datasets").values()
        if not (store / entry.id / CARD).exists() and _dataset_missing(entry, running)
    )


def _dataset_missing(entry: PlannedEntry, running: Running) -> str | None:
    """Why the images of a dataset cannot be had; None if they can, or if it is none."""
    if not isinstance(entry.settings, DatasetSettings):
        return None
    origin, key = entry.settings.origin, f"datasets.{entry.name}.origin"
    if isinstance(origin, CatalogueOrigin):
        folder = Path(running.data).expanduser() / origin.dataset
        there = images_lying(origin, folder) is not None or (running.downloads and _offered(origin))
        return None if there else f"{key}: {missing(origin, folder)}"
    if isinstance(origin, FolderOrigin | ParquetOrigin):
        path, mend = origin.path, "put or link the images there, or write where they are"
    elif isinstance(origin, TorchvisionOrigin) and not origin.download:
        path, mend = origin.root, "put the files there, or set download: true"
    else:
        return None
    if Path(path).expanduser().is_dir():
        return None
    name = "root" if isinstance(origin, TorchvisionOrigin) else "path"
    return f"{key}.{name} = {path}: no such folder (from {Path.cwd()}); {mend}"
