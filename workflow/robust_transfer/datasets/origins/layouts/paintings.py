"""Images without classes, which are good for their styles: one folder of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from robust_transfer.configuration.datasets import FolderOrigin
from robust_transfer.datasets.collection import Collection
from robust_transfer.datasets.origins.folder import open_folder


def paintings(base: Path, *, incomplete: bool, folder: str) -> Collection:
    """All images in `folder`, at any depth. Raises DatasetError where there are none."""
    return replace(open_folder(FolderOrigin(kind="folder", path=str(base / folder), labelled=False)), described={})
