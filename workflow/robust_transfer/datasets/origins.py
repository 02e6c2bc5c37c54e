"""Where images come from: every origin becomes a Collection, labels known and images not read yet.

What holds for all of them is checked here: the classes of train and test agree, every class has training images.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robust_transfer.configuration.datasets import CatalogueOrigin, FolderOrigin, Origin, ParquetOrigin, ShapesOrigin
from robust_transfer.configuration.running import running
from robust_transfer.datasets.arrow import Labels
from robust_transfer.datasets.images import Given
from robust_transfer.datasets.storing import DatasetError

log = logging.getLogger("robust_transfer")


@dataclass(frozen=True)
class LabelledImages:
    """The images of one split, before any is read."""

    labels: Labels
    """int64 [N]."""
    images: Callable[[NDArray[np.int64]], Iterator[tuple[str, Given]]]
    """Of some indices, ascending: a name to call the image in messages, and the image. May be asked again."""


@dataclass(frozen=True)
class Collection:
    """What an origin holds."""

    classes: tuple[str, ...]
    splits: dict[str, LabelledImages]
    """In the order train, validation (only if official), test."""
    described: dict[str, Any]
    """The origin, as the card names it."""
    licence: str | None = None
    ignored_files: int = 0
    """Files that are no images by their names, hidden ones included."""


def open_origin(origin: Origin) -> Collection:
    """List what an origin holds; raises DatasetError if it is not there, or not what the configuration says."""
    if isinstance(origin, ShapesOrigin):
        collection = _generated(origin)
    elif isinstance(origin, FolderOrigin):
        from robust_transfer.datasets.folder import open_folder

        collection = open_folder(origin)
    elif isinstance(origin, ParquetOrigin):
        from robust_transfer.datasets.parquet import open_parquet

        collection = open_parquet(origin)
    elif isinstance(origin, CatalogueOrigin):
        from robust_transfer.datasets.catalogued import open_catalogued

        on = running()
        collection = open_catalogued(origin, Path(on.data).expanduser() / origin.dataset, downloads=on.downloads)
    else:
        from robust_transfer.datasets.vision import open_torchvision

        collection = open_torchvision(origin)
    _check(collection)
    return collection


def read_info(folder: Path) -> dict[str, Any]:
    """The `info.json` in a folder, {} if there is none: `classes` (names by label) and `licence` are used."""
    path = folder / "info.json"
    if not path.exists():
        return {}
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{path}: not JSON ({error})") from None
    if not isinstance(info, dict):
        raise DatasetError(f"{path}: holds a {type(info).__name__}; write an object with classes and licence")
    names = info.get("classes", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DatasetError(f"{path}: classes is not a list of names")
    return info


def licence_of(info: dict[str, Any]) -> str | None:
    """The licence that an `info.json` or a Hugging Face description states, in either spelling."""
    licence = info.get("licence") or info.get("license")
    return str(licence) if licence else None


def _generated(origin: ShapesOrigin) -> Collection:
    from robust_transfer.datasets.shapes import generate

    splits: dict[str, LabelledImages] = {}
    classes: list[str] = []
    for split in ("train", "test"):
        images, labels, classes = generate(origin, split)
        splits[split] = LabelledImages(labels, _drawn(split, images))
    described = {"kind": "shapes", "task": origin.task}
    return Collection(tuple(classes), splits, described, "generated: no rights are claimed on the images")


def _drawn(split: str, images: NDArray[np.uint8]) -> Callable[[NDArray[np.int64]], Iterator[tuple[str, Given]]]:
    def read(indices: NDArray[np.int64]) -> Iterator[tuple[str, Given]]:
        for i in indices:
            yield f"{split} {i}", Image.fromarray(images[i])

    return read


def _check(collection: Collection) -> None:
    where = " ".join(str(value) for value in collection.described.values())
    for split, images in collection.splits.items():
        if not len(images.labels):
            raise DatasetError(f"{where}: no {split} images")
    found = np.bincount(collection.splits["train"].labels, minlength=len(collection.classes))
    empty = [collection.classes[i] for i in np.flatnonzero(found == 0)]
    if empty:
        raise DatasetError(f"{where}: no training images of {listed(empty)}; add some, or remove the class")


def listed(names: list[str], most: int = 20) -> str:
    """Names for a message: the first ones, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
