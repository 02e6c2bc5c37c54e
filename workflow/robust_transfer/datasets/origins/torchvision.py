"""The origin `torchvision`: a class of `torchvision.datasets`, by name, as that library downloads and parses it.

torchvision returns decoded images. Where it keeps the paths of their files, the files are stored instead, provided that
the first of them decodes to the same pixels; otherwise pixels are stored, losslessly.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robust_transfer.configuration.datasets import TorchvisionOrigin
from robust_transfer.configuration.paths import resolved
from robust_transfer.datasets.arrow import Labels, decode
from robust_transfer.datasets.collection import Collection, LabelledImages
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.images import ImageSource, UnreadableImage

# Attributes in which torchvision's classes keep labels and files. Some are private, so their values are checked.
LABELS = ("targets", "labels", "_labels", "y")
PAIRS = ("samples", "_samples")
FILES = ("_image_files", "_images")


def open_torchvision(origin: TorchvisionOrigin) -> Collection:
    """Open the dataset's splits; raises DatasetError if there is no such class, or its files are missing."""
    maker = _class(origin.dataset)
    if origin.train == origin.test:
        raise DatasetError(
            f"torchvision {origin.dataset}: origin.train and origin.test both select {origin.train}; "
            "training and test images must differ"
        )
    selections = {"train": origin.train, "validation": origin.validation, "test": origin.test}
    opened = {
        split: _open(maker, split, selected, origin) for split, selected in selections.items() if selected is not None
    }
    splits = {split: LabelledImages(_labels(dataset), _reader(split, dataset)) for split, dataset in opened.items()}
    classes = _class_names(opened["train"], splits["train"].labels)
    for split, images in splits.items():
        if len(images.labels) and not 0 <= images.labels.min() <= images.labels.max() < len(classes):
            raise DatasetError(
                f"torchvision {origin.dataset}: {split} has labels from {images.labels.min()} to "
                f"{images.labels.max()}, but there are {len(classes)} classes, 0 to {len(classes) - 1}"
            )
    return Collection(classes, splits, {"kind": "torchvision", "dataset": origin.dataset, "root": origin.root})


def _class(name: str) -> Any:
    from torchvision import datasets

    maker = getattr(datasets, name, None)
    if not inspect.isclass(maker) or not hasattr(maker, "__getitem__"):
        known = {each.lower(): each for each in datasets.__all__}
        near = [known[each] for each in difflib.get_close_matches(name.lower(), known, n=3)]
        hint = f"; did you mean {' or '.join(near)}?" if near else "; see torchvision's list of datasets"
        raise DatasetError(f"origin.dataset = {name}: torchvision.datasets has no such class{hint}")
    return maker


def _open(maker: Any, split: str, selected: dict[str, Any], origin: TorchvisionOrigin) -> Any:
    accepted = inspect.signature(maker.__init__).parameters
    arguments = dict(selected)
    if "root" in accepted:
        arguments["root"] = str(resolved(origin.root))
    if "download" in accepted:
        arguments["download"] = origin.download
    elif origin.download:
        raise DatasetError(f"torchvision {origin.dataset} downloads nothing; put its files into {origin.root}")
    unknown = [key for key in selected if key not in accepted]
    if unknown:
        takes = [key for key in accepted if key not in ("self", "root", "download", "transform", "target_transform")]
        raise DatasetError(
            f"torchvision {origin.dataset} takes no {', '.join(unknown)}: set origin.{split} to what selects the "
            f"{split} images, of {', '.join(takes) or 'nothing'}"
        )
    try:
        return maker(**arguments)
    except (RuntimeError, OSError, ValueError, HTTPException, ImportError, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        fix = (
            f"could not be downloaded; put its files into {origin.root} by other means and set download: false"
            if origin.download
            else f"is not complete in {origin.root}; put its files there, or set download: true"
        )
        raise DatasetError(f"torchvision {origin.dataset}, {split}: {fix} ({reason})") from error


def _labels(dataset: Any) -> Labels:
    """int64 [N]: from an attribute if that agrees with the labels of three items, else by reading every image."""
    count = len(dataset)
    if not count:
        return np.empty(0, np.int64)
    known = [getattr(dataset, name, None) for name in LABELS]
    known += [[pair[1] for pair in getattr(dataset, name, None) or ()] for name in PAIRS]
    sampled = {i: _label(dataset[i][1]) for i in (0, count // 2, count - 1)}
    for values in known:
        if values is None or len(values) != count:
            continue
        labels = np.array([_label(value) for value in values], np.int64)
        if all(labels[i] == label for i, label in sampled.items()):
            return labels
    return np.array([_label(dataset[i][1]) for i in range(count)], np.int64)


def _label(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise DatasetError(
            f"torchvision gives the label {value!r}, which is not a number; choose one target in origin.train and "
            "origin.test, for instance target_type: category"
        ) from None


def _class_names(dataset: Any, labels: Labels) -> tuple[str, ...]:
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    if not names:
        return tuple(str(label) for label in range(int(labels.max(initial=-1)) + 1))
    return tuple(", ".join(name) if isinstance(name, tuple | list) else str(name) for name in names)


def _reader(split: str, dataset: Any) -> Callable[[NDArray[np.int64]], Iterator[tuple[str, ImageSource]]]:
    files = _files(dataset)

    def read(indices: NDArray[np.int64]) -> Iterator[tuple[str, ImageSource]]:
        for i in map(int, indices):
            yield (str(files[i]), files[i]) if files else (f"{split} {i}", _pixels(dataset, i))

    return read


def _files(dataset: Any) -> list[Path] | None:
    """The file of each image, if the class keeps their paths and the first decodes to the image that it returns."""
    count = len(dataset)
    known = [[pair[0] for pair in getattr(dataset, name, None) or ()] for name in PAIRS]
    known += [list(getattr(dataset, name, None) or ()) for name in FILES]
    for values in known:
        if count and len(values) == count and all(isinstance(value, str | Path) for value in values):
            files = [Path(value) for value in values]
            given = _pixels(dataset, 0)
            if files[0].is_file() and isinstance(given, Image.Image):
                same = np.array_equal(decode(files[0].read_bytes()), np.asarray(given.convert("RGB")))
                return files if same else None
    return None


def _pixels(dataset: Any, index: int) -> Image.Image | UnreadableImage:
    try:
        image = dataset[index][0]
    except (OSError, ValueError, SyntaxError) as error:
        return UnreadableImage(str(error))
    return image if isinstance(image, Image.Image) else UnreadableImage(f"{type(image).__name__}, not an image")
