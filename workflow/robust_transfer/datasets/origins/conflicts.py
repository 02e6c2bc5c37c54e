"""Cue-conflict images: files named `<shape><number>-<texture><number>`, or drawn by the built-in generator.

The published set (Geirhos et al. 2019) is `stimuli/style-transfer-preprocessed-512` of rgeirhos/texture-vs-shape on
GitHub: 1,280 PNG files of 224 × 224 pixels, 80 of each of 16 shape classes in a folder of its own; in 80 of them shape
and texture are of one class.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from robust_transfer.configuration.catalogue.imagenet16 import imagenet16
from robust_transfer.configuration.conflicts import (
    ConflictsSettings,
    FolderConflicts,
    ParquetConflicts,
    ShapesConflicts,
)
from robust_transfer.configuration.datasets import ShapesOrigin
from robust_transfer.configuration.paths import resolved
from robust_transfer.datasets.collection import LabelledImages, licence_of, listed, read_info
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.images import ImageSource, UnreadableImage
from robust_transfer.datasets.names import SUFFIXES
from robust_transfer.datasets.originals import CONFLICTS
from robust_transfer.datasets.origins.shapes import class_strengths, classes_of, generate

NAME = re.compile(r"(?P<shape>[^\d-]+)\d+-(?P<texture>[^\d-]+)\d+")
PATTERN = "<shape><number>-<texture><number>.png, such as cat7-elephant1.png"
LEAST = 3
"""Classes of a set."""
ROWS = 64
"""Read at a time."""


@dataclass(frozen=True)
class Conflicts:
    """Conflict images before any is read."""

    classes: tuple[str, ...]
    """Those of shapes, which textures are of too."""
    images: LabelledImages
    """Its labels are pairs: the number of the shape's class times the number of classes, plus the texture's."""
    described: dict[str, Any]
    """Where they are from, as the card records it."""
    licence: str | None


def open_conflicts(settings: ConflictsSettings) -> Conflicts:
    """List the images. Raises DatasetError where there are none, or where their names do not say what they show."""
    match settings.images:
        case ShapesConflicts() as drawn:
            assert settings.world is not None
            return _drawn(drawn, settings.world)
        case FolderConflicts() as folder:
            return _of_folder(folder)
        case ParquetConflicts() as parquet:
            return _of_parquet(parquet)


def textured(world: ShapesOrigin) -> list[int]:
    """The classes of the generator's source that have a grating."""
    strengths = class_strengths(world.plain, len(classes_of(world)))
    return [int(one) for one in np.flatnonzero(strengths > 0)]


def _drawn(drawn: ShapesConflicts, world: ShapesOrigin) -> Conflicts:
    """Every pair of classes with a grating in turn, as many of each as of any other, but for a remainder."""
    chosen, names = textured(world), classes_of(world)
    number = np.full(len(names), -1)
    number[chosen] = np.arange(len(chosen))
    rounds, shape = np.divmod(np.arange(drawn.images), len(names))
    texture = np.where(number[shape] >= 0, (number[shape] + rounds) % len(chosen), 0)
    images, labels, _ = generate(
        world.model_copy(update={"test": drawn.images}), "test", textures=np.array(chosen)[texture]
    )
    kept = np.flatnonzero(number[labels] >= 0)
    pair = number[labels[kept]] * len(chosen) + texture[kept]

    def read(indices: NDArray[np.int64]) -> Iterator[tuple[str, ImageSource]]:
        for i in indices:
            yield f"image {kept[i]}", Image.fromarray(images[kept[i]])

    described = {"kind": "shapes", "task": world.task, "drawn": drawn.images}
    licence = "generated: no rights are claimed on the images"
    return Conflicts(tuple(names[i] for i in chosen), LabelledImages(pair, read), described, licence)


def _of_folder(folder: FolderConflicts) -> Conflicts:
    root = resolved(folder.path)
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; expected is one with images named {PATTERN}")
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.name[0] != ".")

    def read(indices: NDArray[np.int64]) -> Iterator[tuple[str, ImageSource]]:
        for i in indices:
            yield str(paths[i].relative_to(root)), paths[i]

    names = [path.name for path in paths]
    return _named(root, names, read, {"kind": "folder", "path": folder.path}, licence_of(read_info(root)))


def _of_parquet(parquet: ParquetConflicts) -> Conflicts:
    root = resolved(parquet.path)
    path = root / CONFLICTS
    if not path.is_file():
        raise DatasetError(f"{path}: no such file; expected are rows of images and their names, {PATTERN}")
    try:
        with pq.ParquetFile(path) as file:
            missing = {parquet.image_column, parquet.name_column} - set(file.schema_arrow.names)
            if missing:
                raise DatasetError(
                    f"{path}: no column {', '.join(sorted(missing))}; there are {', '.join(file.schema_arrow.names)}: "
                    "write image_column and name_column"
                )
            names = file.read(columns=[parquet.name_column]).column(0).to_pylist()
    except pa.ArrowException as error:
        raise DatasetError(f"{path}: not a parquet file ({error})") from None

    def read(indices: NDArray[np.int64]) -> Iterator[tuple[str, ImageSource]]:
        wanted, first = set(indices.tolist()), 0
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(ROWS, columns=[parquet.image_column]):
                for row, value in enumerate(batch.column(0).to_pylist(), start=first):
                    if row in wanted:
                        image = value["bytes"] if isinstance(value, dict) else value
                        yield f"{CONFLICTS} row {row} ({names[row]})", image or UnreadableImage("no image in this row")
                first += batch.num_rows

    described = {"kind": "parquet", "path": parquet.path}
    return _named(path, [str(name) for name in names], read, described, licence_of(read_info(root)))


def _named(
    where: Path,
    names: Sequence[str],
    read: Any,
    described: dict[str, Any],
    licence: str | None,
) -> Conflicts:
    """The images of these names; raises DatasetError for names that do not tell their classes."""
    if not names:
        raise DatasetError(f"{where}: no images; expected are files named {PATTERN}")
    parsed = {name: NAME.fullmatch(PurePath(name).stem if name.lower().endswith(SUFFIXES) else name) for name in names}
    if wrong := [name for name, match in parsed.items() if match is None]:
        raise DatasetError(
            f"{where}: {len(wrong)} of {len(names)} names do not say which shape and which texture an image shows: "
            f"{listed(wrong, 5)}; expected is {PATTERN}"
        )
    shown = [(match["shape"], match["texture"]) for match in (parsed[name] for name in names) if match]
    classes = tuple(sorted({shape for shape, _ in shown}))
    if strange := sorted({texture for _, texture in shown} - {*classes}):
        raise DatasetError(
            f"{where}: textures of classes that no shape is of: {listed(strange)}; shapes are of {listed([*classes])}"
        )
    _check_whole(where, classes)
    number = {name: label for label, name in enumerate(classes)}
    labels = np.array([number[shape] * len(classes) + number[texture] for shape, texture in shown], np.int64)
    return Conflicts(classes, LabelledImages(labels, read), described, licence)


def _check_whole(where: Path, classes: tuple[str, ...]) -> None:
    """Raise DatasetError for a part of the published set, whose numbers nothing could be compared with."""
    published = imagenet16()
    if {*classes} < {*published}:
        lacks = listed([name for name in published if name not in classes])
        raise DatasetError(
            f"{where}: shapes of {len(classes)} of the {len(published)} published classes, no {lacks}; fetch the rest "
            "(rgeirhos/texture-vs-shape on GitHub, stimuli/style-transfer-preprocessed-512)"
        )
    if len(classes) < LEAST:
        raise DatasetError(
            f"{where}: shapes of {len(classes)} classes, {listed([*classes])}: of fewer than {LEAST}, every "
            "decision is for the shape or for the texture, and guessing cannot be told from knowing"
        )
