"""Open origins: every one becomes a Collection, whose labels are known and whose images are not read yet.

The checks that all origins share are here: every split has images, every class has training images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robust_transfer.configuration.datasets import CatalogueOrigin, FolderOrigin, Origin, ParquetOrigin, ShapesOrigin
from robust_transfer.configuration.running import running
from robust_transfer.datasets.collection import Collection, LabelledImages, listed
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.images import ImageSource


def open_origin(origin: Origin) -> Collection:
    """List the images of an origin; raises DatasetError if it is missing or not as the configuration describes it."""
    if isinstance(origin, ShapesOrigin):
        collection = _generated(origin)
    elif isinstance(origin, FolderOrigin):
        from robust_transfer.datasets.origins.folder import open_folder

        collection = open_folder(origin)
    elif isinstance(origin, ParquetOrigin):
        from robust_transfer.datasets.origins.parquet import open_parquet

        collection = open_parquet(origin)
    elif isinstance(origin, CatalogueOrigin):
        from robust_transfer.datasets.origins.catalogued import open_catalogued

        on = running()
        collection = open_catalogued(origin, on.originals(origin.dataset), downloads=on.downloads)
    else:
        from robust_transfer.datasets.origins.torchvision import open_torchvision

        collection = open_torchvision(origin)
    _check(collection)
    return collection


def _generated(origin: ShapesOrigin) -> Collection:
    from robust_transfer.datasets.origins.shapes import generate

    splits: dict[str, LabelledImages] = {}
    classes: list[str] = []
    for split in ("train", "test"):
        images, labels, classes = generate(origin, split)
        splits[split] = LabelledImages(labels, _drawn(split, images))
    described = {"kind": "shapes", "task": origin.task}
    return Collection(tuple(classes), splits, described, "generated: no rights are claimed on the images")


def _drawn(split: str, images: NDArray[np.uint8]) -> Callable[[NDArray[np.int64]], Iterator[tuple[str, ImageSource]]]:
    def read(indices: NDArray[np.int64]) -> Iterator[tuple[str, ImageSource]]:
        for i in indices:
            yield f"{split} {i}", Image.fromarray(images[i])

    return read


def _check(collection: Collection) -> None:
    where = " ".join(str(value) for value in collection.described.values())
    for split, images in collection.splits.items():
        if not len(images.labels) and (collection.labelled or split == "train"):
            raise DatasetError(f"{where}: no {split} images{_reason(collection, split)}")
    if len(collection.classes) < 2 and collection.labelled:
        raise DatasetError(
            f"{where}: a single class, {listed(list(collection.classes))}: there is nothing to tell it from, and every "
            "accuracy would be 100 %; give images of at least two classes"
        )
    counts = np.bincount(collection.splits["train"].labels, minlength=len(collection.classes))
    empty = [collection.classes[i] for i in np.flatnonzero(counts == 0)]
    if empty:
        raise DatasetError(f"{where}: no training images of {listed(empty)}; add some, or remove the class")


def _reason(collection: Collection, split: str) -> str:
    """Why a split that was to be set aside by seed is empty."""
    counts = np.bincount(collection.splits["train"].labels, minlength=len(collection.classes))
    if split != "test" or counts.max(initial=0) > 1:
        return ""
    return (
        ": every class has a single image, which is trained on, so that none can be set aside to test on; add images, "
        "at least three of each class (to train, choose and test on), or a folder test/"
    )
