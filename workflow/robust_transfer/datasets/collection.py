"""What an origin holds, before any image is read: classes, and the labels of every split."""

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
from robust_transfer.datasets.images import Given


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
