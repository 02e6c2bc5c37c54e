"""Prepare cue-conflict images, which show the shape of one class with the texture of another.

    python -m robust_transfer conflicts store/conflicts/<entry>

Reads the files that the entry's settings name, or draws the images; writes `test.arrow`, in the format of prepared
datasets, with pairs of classes as labels. Images are stored as they are, neither resized nor cropped: the published
ones have 224 pixels, as networks for ImageNet see them. The card names the classes and counts conflicts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np

from robust_transfer.configuration.conflicts import ConflictsSettings
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.images import ImageSource, UnreadableImage, predicted_size, to_store
from robust_transfer.datasets.originals import originals_of_conflicts
from robust_transfer.datasets.origins.conflicts import Conflicts, open_conflicts
from robust_transfer.datasets.storing import SplitWriter, raw_shape
from robust_transfer.statistics.shape_bias import pairs
from robust_transfer.store.entry import Entry
from robust_transfer.store.originals import record, write_record

log = logging.getLogger("robust_transfer")

SPLIT = "test"


def run(entry: Entry, *, threads: int, device: str) -> None:
    """Prepare the conflict images of an entry; raises DatasetError, naming what is wrong with them."""
    settings = ConflictsSettings.model_validate(entry.settings)
    with entry.writing() as draft:
        conflicts = open_conflicts(settings)
        place = originals_of_conflicts(settings.images)
        originals = record(*place) if place else None
        sides, shape = _sides(conflicts)
        with SplitWriter(draft.file(f"{SPLIT}.arrow"), shape) as writer:
            for (name, image), label in zip(_all(conflicts), conflicts.images.labels.tolist(), strict=True):
                try:
                    stored, *_ = to_store(image, side=None, exif_rotation=True, raw=shape is not None)
                except UnreadableImage as error:
                    raise DatasetError(f"{name}: cannot be read: {error}; replace or remove it") from None
                writer.add(stored, label)
        classes, labels = conflicts.classes, conflicts.images.labels
        shapes, textures = pairs(labels, len(classes))
        agreeing = int((shapes == textures).sum())
        draft.facts = {
            "classes": [f"{shape} with the texture of {texture}" for shape in classes for texture in classes],
            "cues": list(classes),
            "counts": {SPLIT: len(labels)},
            "conflicting": len(labels) - agreeing,
            "agreeing": agreeing,
            "sides": sides,
            "shape": list(shape) if shape else None,
            "encoding": "raw" if shape else "encoded",
            "origin": conflicts.described,
            "licence": conflicts.licence,
            "checksums": {SPLIT: writer.checksums},
        }
        draft.timing.update(images=len(labels), device="cpu", threads=threads)
    if originals:
        write_record(entry.path, originals)
    log.info(
        "%s: %d images of %d classes, %d of them with shape and texture in conflict, sides of %s pixels",
        entry.name, len(labels), len(classes), len(labels) - agreeing, " and ".join(map(str, sides)),
    )  # fmt: skip


def _all(conflicts: Conflicts) -> Iterator[tuple[str, ImageSource]]:
    return conflicts.images.images(np.arange(len(conflicts.images.labels)))


def _sides(conflicts: Conflicts) -> tuple[list[int], tuple[int, int] | None]:
    """The short sides that occur, growing, and the shape to store images raw in, if any; from headers."""
    sizes = []
    for name, image in _all(conflicts):
        try:
            sizes.append(predicted_size(image, side=None, exif_rotation=True))
        except UnreadableImage as error:
            raise DatasetError(f"{name}: cannot be read: {error}; replace or remove it") from None
    return sorted({min(size) for size in sizes}), raw_shape(sizes)
