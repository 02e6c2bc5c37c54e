"""Which finished entries were made from originals, images and weights, that are others by now."""

from __future__ import annotations

from pathlib import Path

from robust_transfer.configuration.conflicts import ConflictsSettings
from robust_transfer.configuration.datasets import DatasetSettings
from robust_transfer.configuration.running import Running
from robust_transfer.configuration.weights import ImportingSettings, TimmWeights, TorchvisionWeights
from robust_transfer.dag.grid import Grid, PlannedEntry
from robust_transfer.datasets.originals import originals_of, originals_of_conflicts
from robust_transfer.registry import STAGES
from robust_transfer.store.entry import finished, renewing
from robust_transfer.store.originals import Wanted, differences
from robust_transfer.weights.files import published_file


def notices(grid: Grid, store: Path) -> list[str]:
    """One line for each entry that is kept although its originals are others: the entry, the files, what differs."""
    lines = []
    for entry in grid.entries.values():
        path = store / entry.id
        if STAGES[entry.stage].originals is None or not finished(path):
            continue
        if (place := _place(entry, grid.experiment.running)) and (found := differences(path, *place)):
            where = f" in {place[0]}" if place[0] and not place[0].is_file() else ""
            lines.append(
                f"{entry.id}: kept, although what it was made from is not what it was{where}: {'; '.join(found)}; "
                f"{renewing(path)}"
            )
    return lines


def _place(entry: PlannedEntry, running: Running) -> tuple[Path | None, Wanted] | None:
    """Where an entry's originals are by now (None: where they were), and which files count; None if it has none."""
    if isinstance(entry.settings, DatasetSettings):
        return originals_of(entry.settings.origin, running)
    if isinstance(entry.settings, ConflictsSettings):
        return originals_of_conflicts(entry.settings.images)
    assert isinstance(entry.settings, ImportingSettings)
    if not isinstance(entry.settings.weights, TorchvisionWeights | TimmWeights):
        return running.weights_folder / published_file(entry.settings).path, lambda name: True
    return None, lambda name: True  # the names of torchvision's and timm's files take an import to know
