"""Where the originals of a dataset lie, and which files there its images come from."""

from __future__ import annotations

from pathlib import Path

from robust_transfer.configuration.conflicts import ConflictImages, FolderConflicts, ParquetConflicts
from robust_transfer.configuration.datasets import CatalogueOrigin, FolderOrigin, Origin, ParquetOrigin
from robust_transfer.configuration.paths import resolved
from robust_transfer.configuration.running import Running
from robust_transfer.datasets.names import SUFFIXES
from robust_transfer.store.originals import Wanted

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
"""Once unpacked they may be deleted."""


CONFLICTS = "test.parquet"
"""The file of cue-conflict images, where they are rows of a file."""


def originals_of(origin: Origin, running: Running) -> tuple[Path, Wanted] | None:
    """Folder and choice of files; None for generated images, and for torchvision's, whose folder others share."""
    if isinstance(origin, FolderOrigin):
        return resolved(origin.path), lambda name: name.lower().endswith(SUFFIXES) or name == "info.json"
    if isinstance(origin, ParquetOrigin):
        return resolved(origin.path), lambda name: "/" not in name and name.endswith((".parquet", "info.json"))
    if isinstance(origin, CatalogueOrigin):
        return running.originals(origin.dataset), lambda name: not name.lower().endswith(ARCHIVES)
    return None


def originals_of_conflicts(images: ConflictImages) -> tuple[Path, Wanted] | None:
    """The same of cue-conflict images."""
    if isinstance(images, FolderConflicts):
        return resolved(images.path), lambda name: name.lower().endswith(SUFFIXES)
    if isinstance(images, ParquetConflicts):
        return resolved(images.path), lambda name: name == CONFLICTS
    return None
