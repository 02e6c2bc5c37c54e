"""Which of an experiment's images and weights are on this machine, found out by looking at the disk and nothing else.

No torch, no network: a plan of thousands of jobs asks this too.
"""

from __future__ import annotations

from pathlib import Path

from robust_transfer.configuration.catalogue.datasets import catalogued
from robust_transfer.configuration.datasets import (
    CatalogueOrigin,
    DatasetSettings,
    FolderOrigin,
    ParquetOrigin,
    TorchvisionOrigin,
)
from robust_transfer.configuration.experiment import Experiment
from robust_transfer.configuration.load import ConfigurationError
from robust_transfer.configuration.paths import resolved
from robust_transfer.configuration.running import Running
from robust_transfer.configuration.weights import FileWeights, ImportingSettings
from robust_transfer.dag.checks import mistakes
from robust_transfer.dag.grid import Grid, PlannedEntry, plan
from robust_transfer.dag.stylized import missing_networks
from robust_transfer.datasets.finding import missing, present_source
from robust_transfer.store.entry import finished
from robust_transfer.weights.files import is_present, missing_weights, published_file

BY_HAND = "by hand alone"
WHOLE = 2
"""So many missing things are told of at length, one by one."""


def planned(experiment: Experiment, without: tuple[str, ...] | None = None) -> Grid:
    """The grid of an experiment, less the datasets whose images are missing where it says `missing: drop`.

    `without` names those datasets where that was decided before. Raises ConfigurationError if nothing would be left,
    if the source of backbones that are to be trained is missing, or for what `checks` finds.
    """
    grid = plan(experiment)
    if messages := mistakes(grid):
        raise ConfigurationError("\n".join(map(experiment.mistake, messages)))
    if experiment.missing == "stop":
        return grid
    names = without if without is not None else tuple(_missing_datasets(grid))
    if not names:
        return grid
    if experiment.source in names and any(experiment.weights_of(part) is None for part in experiment.grid):
        wrong = f"source = {experiment.source}: its images are missing, and backbones train on them"
        raise ConfigurationError(experiment.mistake(wrong))
    if (styles := experiment.stylizing.styles) in names and grid.stage("stylizing"):
        wrong = f"stylizing.styles = {styles}: its images are missing, and styles are drawn from them"
        raise ConfigurationError(experiment.mistake(wrong))
    if {*names} >= {*experiment.targets}:
        wrong = f"targets = {', '.join(experiment.targets)}: the images of all are missing"
        raise ConfigurationError(experiment.mistake(wrong))
    return plan(experiment, without=names)


def absent(grid: Grid, stated: bool | None = None) -> list[str]:
    """What a run of the grid still needs and does not find: messages, a few where there is much.

    `stated` True: only what lies at a path that the configuration states; False: only what is known by name, the
    catalogue's datasets and published weights. None: both.
    """
    datasets, files = _missing_datasets(grid), _missing_weights(grid)
    if stated is not None:
        by_name = {name: grid.experiment.datasets[name].origin.kind == "catalogue" for name in datasets}
        datasets = {name: why for name, why in datasets.items() if by_name[name] != stated}
        files = [one for one in files if isinstance(one.weights, FileWeights) == stated]
    folder = grid.experiment.running.weights_folder
    at_length = map(grid.experiment.mistake, datasets.values())
    messages = [_datasets_in_brief(grid, datasets)] if len(datasets) > WHOLE else [*at_length]
    messages += missing_networks(grid, stated)
    imported = all(grid.experiment.weights_of(part) for part in grid.experiment.grid)
    if imported and grid.experiment.source in datasets and len(datasets) <= WHOLE:
        messages.append(
            f"source = {grid.experiment.source}: no backbone trains on it; `missing: drop` leaves out its evaluation "
            "and transfers all the same"
        )
    if len(files) > WHOLE:
        return [*messages, _weights_in_brief(files, folder)]
    return messages + [missing_weights(settings, folder) for settings in files]


def _datasets_in_brief(grid: Grid, missing: dict[str, str]) -> str:
    """A line for each of many missing datasets, and where to read more."""
    lines = [f"{len(missing)} datasets are not on this machine:"]
    for name, why in missing.items():
        origin = grid.experiment.datasets[name].origin
        if isinstance(origin, CatalogueOrigin):
            size = catalogued(origin.dataset).megabytes / 1000
            folder = grid.experiment.running.originals(origin.dataset)
            lines.append(f"  {name:<12} {size:>6.1f} GB  {_how(origin):<17}  {folder}/")
        else:
            lines.append(f"  {name:<12} {why}")
    lines += [
        "`robust-transfer catalogue NAME` says what to fetch and where to put it.",
        "`running: {downloads: true}` downloads what can be; `missing: drop` goes on without the targets among them, "
        "and without a source that no backbone trains on.",
    ]
    return "\n".join(lines)


def _weights_in_brief(files: list[ImportingSettings], folder: Path) -> str:
    """What is the same for many missing files of weights, said once."""
    known = [published_file(settings) for settings in files]
    offered = dict.fromkeys(file.home for file in known if file.home)
    names = ", ".join(file.path for file in known[:WHOLE])
    says = f"{len(files)} files of weights are not in {folder}/: {names} and {len(files) - WHOLE} more; "
    if offered:
        return says + f"fetch them from {' and '.join(offered)}, or set running: {{downloads: true}}"
    return says + "put them there, or correct weights and running.weights in the configuration"


def _how(origin: CatalogueOrigin) -> str:
    """How a catalogued dataset can be had, as far as the catalogue knows."""
    sources = catalogued(origin.dataset).splits[origin.split].sources
    if any(
        source.files if source.kind == "layout" else source.kind == "huggingface" and not source.gated
        for source in sources
    ):
        return "can be downloaded"
    return "after logging in" if any(source.kind == "huggingface" for source in sources) else BY_HAND


def _needed(grid: Grid, stage: str) -> list[PlannedEntry]:
    """The entries of a stage that the store lacks."""
    store = Path(grid.experiment.store)
    return [entry for entry in grid.stage(stage).values() if not finished(store / entry.id)]


def _missing_datasets(grid: Grid) -> dict[str, str]:
    """Datasets that are to be prepared and whose images cannot be had: name to why."""
    running = grid.experiment.running
    reasons = {entry.name: _why_missing(entry, running) for entry in _needed(grid, "datasets")}
    return {name: why for name, why in reasons.items() if why}


def _missing_weights(grid: Grid) -> list[ImportingSettings]:
    """Backbones that are to be imported and whose files are not there, nor may be downloaded."""
    running = grid.experiment.running
    wanted = [entry.settings for entry in _needed(grid, "importing")] if not running.downloads else []
    return [
        settings
        for settings in wanted
        if isinstance(settings, ImportingSettings) and not is_present(settings, running.weights_folder)
    ]


def _why_missing(entry: PlannedEntry, running: Running) -> str | None:
    """Why the images of a dataset cannot be had; None if they can."""
    assert isinstance(entry.settings, DatasetSettings)
    origin, key = entry.settings.origin, f"datasets.{entry.name}.origin"
    if isinstance(origin, CatalogueOrigin):
        folder = running.originals(origin.dataset)
        there = present_source(origin, folder) is not None or (running.downloads and _how(origin) != BY_HAND)
        return None if there else f"{key}: {missing(origin, folder)}"
    if isinstance(origin, FolderOrigin | ParquetOrigin):
        path, fix = origin.path, "put or link the images there, or write where they are"
    elif isinstance(origin, TorchvisionOrigin) and not origin.download:
        path, fix = origin.root, "put the files there, or set download: true"
    else:
        return None
    if resolved(path).is_dir():
        return None
    name = "root" if isinstance(origin, TorchvisionOrigin) else "path"
    return f"{key}.{name} = {path}: no such folder (from {Path.cwd()}); {fix}"
