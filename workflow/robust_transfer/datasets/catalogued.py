"""The origin `catalogue`: a dataset of the catalogue, from whichever of its layouts lies in its folder."""

from __future__ import annotations

from pathlib import Path

from robust_transfer.configuration.datasets import CatalogueOrigin
from robust_transfer.datasets.origins import Collection


def open_catalogued(origin: CatalogueOrigin, folder: Path, *, downloads: bool) -> Collection:
    """Open the files in `folder`, after downloading them where that is allowed and they are not there."""
    raise NotImplementedError
