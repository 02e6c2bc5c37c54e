"""Whether the networks in an experiment's own checkpoints have the classes of its source, found out before any job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from robust_transfer.configuration.catalogue.datasets import catalogued
from robust_transfer.configuration.catalogue.imagenet import imagenet_classes
from robust_transfer.configuration.datasets import (
    CatalogueOrigin,
    DatasetSettings,
    FolderOrigin,
    ParquetOrigin,
    ShapesOrigin,
)
from robust_transfer.configuration.weights import (
    AresWeights,
    FileWeights,
    ImportingSettings,
    RobustBenchWeights,
    published_model,
)
from robust_transfer.dag.grid import Grid, PlannedEntry
from robust_transfer.store.entry import finished, open_entry
from robust_transfer.weights.outputs import class_names, other_classes, outputs_for


def foreign_networks(grid: Grid) -> list[str]:
    """A message for each checkpoint of the user's, or network published by name, that is to be evaluated on a source of
    other classes.

    Reads the checkpoints that are not imported yet, and names what is wrong with one that cannot be: it takes torch.
    """
    store, pairs = Path(grid.experiment.store), dict[str, tuple[PlannedEntry, PlannedEntry]]()
    for entry in grid.stage("evaluation").values():
        backbone = entry.inputs["backbone"]
        settings = backbone.settings
        own = isinstance(settings, ImportingSettings) and isinstance(
            settings.weights, FileWeights | RobustBenchWeights | AresWeights
        )
        if own and not finished(store / entry.id):
            pairs[backbone.id] = backbone, entry.inputs["source"]
    return [message for backbone, source in pairs.values() for message in _mismatch(grid, backbone, source)]


def _mismatch(grid: Grid, backbone: PlannedEntry, source: PlannedEntry) -> Iterator[str]:
    from robust_transfer.datasets.errors import DatasetError
    from robust_transfer.weights.pickle_values import CheckpointError

    assert isinstance(source.settings, DatasetSettings)
    try:
        classes = classes_known(Path(grid.experiment.store) / source.id, source.settings)
        if classes is None:
            return
        network, outputs = _outputs(grid, backbone)
    except (CheckpointError, DatasetError) as error:
        yield str(error)
        return
    if outputs_for(outputs, classes, imported=True) is None:
        yield other_classes(network, len(outputs), f"source {source.name}", len(classes))


def _outputs(grid: Grid, backbone: PlannedEntry) -> tuple[str, list[str]]:
    """The file of a backbone, or the name that it is published by, and the names of its outputs."""
    from robust_transfer.weights.files import published_file

    settings = backbone.settings
    assert isinstance(settings, ImportingSettings)
    if isinstance(settings.weights, RobustBenchWeights | AresWeights):
        model = published_model(settings.weights)
        return model.name, class_names(model.classes)
    from robust_transfer.weights.checkpoints import load_published  # 3 s for torch, which this process lacks

    path = grid.experiment.running.weights_folder / published_file(settings).path
    made = Path(grid.experiment.store) / backbone.id
    if finished(made):
        return str(path), list(open_entry(made).facts()["classes"])
    imported = load_published(path, settings.architecture, None, input_size=settings.input_size)
    return str(path), class_names(imported.network.classes)


def classes_known(made: Path, settings: DatasetSettings) -> tuple[str, ...] | None:
    """The names of a dataset's classes, as far as they are known without its images; None where they are not.

    Of a catalogued dataset but ImageNet they are numbers no output has: only how many there are is known.
    """
    from robust_transfer.datasets.origins.folder import class_folders
    from robust_transfer.datasets.origins.parquet import open_parquet
    from robust_transfer.datasets.origins.shapes import classes_of

    if finished(made):
        return tuple(open_entry(made).facts()["classes"])
    match settings.origin:
        case CatalogueOrigin(dataset="imagenet"):
            return imagenet_classes()
        case CatalogueOrigin() as origin:
            return tuple(f"class {i}" for i in range(catalogued(origin.dataset).classes))
        case FolderOrigin() as origin:
            return class_folders(origin)
        case ParquetOrigin() as origin:
            return open_parquet(origin).classes
        case ShapesOrigin() as origin:
            return classes_of(origin)
    return None
