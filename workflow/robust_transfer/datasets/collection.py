"""The content of an origin before any image is read: classes, and the labels of every split."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robust_transfer.datasets.arrow import Labels
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.images import ImageSource


@dataclass(frozen=True)
class LabelledImages:
    """The images of one split, before any is read."""

    labels: Labels
    """int64 [N]."""
    images: Callable[[NDArray[np.int64]], Iterator[tuple[str, ImageSource]]]
    """From ascending indices to each image's name in messages and the image. May be called more than once."""


@dataclass(frozen=True)
class Collection:
    """The content of an origin."""

    classes: tuple[str, ...]
    splits: dict[str, LabelledImages]
    """In the order train, validation (only if official), test."""
    described: dict[str, Any]
    """The origin, as the card records it."""
    licence: str | None = None
    ignored_files: int = 0
    """Number of files that are not images by their names, hidden ones included."""
    labelled: bool = True
    """False: images without classes, which have one label."""


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


def listed(names: list[str], most: int = 20) -> str:
    """Names for a message: the first ones, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
