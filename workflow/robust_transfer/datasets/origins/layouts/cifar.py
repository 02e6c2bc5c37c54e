"""CIFAR-10 and CIFAR-100 in the form of the official Python archives: pickled batches of 32 × 32 pixels.

A pickle may name any function for its reader to call. Here nothing is imported or called that a pickle names: arrays
are rebuilt by this module, from bytes, and every other name is refused.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robust_transfer.datasets.collection import Collection, LabelledImages
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.images import ImageSource

SIDE = 32
LIMIT_BYTES = 2**29
"""The largest batch, all of CIFAR-100's training images, has 155 MB."""


def cifar(
    base: Path, *, train: Sequence[str], test: Sequence[str], meta: str, names: str, labels: str, incomplete: bool
) -> Collection:
    """Batches `train` and `test`, whose key `labels` holds labels; class names under the key `names` of file `meta`.

    Raises DatasetError if a file is not such a batch. Batches are held in memory: 184 MB of pixels.
    """
    del incomplete  # a batch is there or not, which `found_by` has established
    classes = _load(base / meta).get(names)
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise DatasetError(f"{base / meta}: no list of class names under {names!r}; unpack the archive again")
    splits = {
        split: _images([_batch(base / file, labels, len(classes)) for file in files])
        for split, files in (("train", train), ("test", test))
    }
    return Collection(tuple(classes), splits, {})


@dataclass(frozen=True)
class _Batch:
    name: str
    pixels: NDArray[np.uint8]
    """[N, 3 · 32 · 32]: channel by channel."""
    labels: NDArray[np.int64]
    files: list[str]


def _images(batches: list[_Batch]) -> LabelledImages:
    starts = np.cumsum([0, *(len(batch.labels) for batch in batches)])

    def read(indices: NDArray[np.int64]) -> Iterator[tuple[str, ImageSource]]:
        for i in indices:
            which = int(np.searchsorted(starts, i, side="right")) - 1
            batch, row = batches[which], int(i - starts[which])
            pixels = batch.pixels[row].reshape(3, SIDE, SIDE).transpose(1, 2, 0)
            yield f"{batch.name} {row} ({batch.files[row]})", Image.fromarray(np.ascontiguousarray(pixels))

    return LabelledImages(np.concatenate([batch.labels for batch in batches]), read)


def _batch(path: Path, key: str, classes: int) -> _Batch:
    content = _load(path)
    pixels, labels, files = content.get("data"), content.get(key), content.get("filenames")
    if not isinstance(pixels, _Array) or not isinstance(labels, list):
        raise DatasetError(f"{path}: no array data and list {key}; unpack the archive again")
    values = pixels.values(path)
    if values.ndim != 2 or values.shape[1] != 3 * SIDE * SIDE or len(values) != len(labels):
        raise DatasetError(
            f"{path}: data of shape {values.shape} with {len(labels)} labels, where [N, 3072] is expected"
        )
    if not all(isinstance(label, int) and 0 <= label < classes for label in labels):
        raise DatasetError(f"{path}: {key} are not all numbers from 0 to {classes - 1}; unpack the archive again")
    named = files if isinstance(files, list) and len(files) == len(labels) else [""] * len(labels)
    return _Batch(path.name, values, np.array(labels, np.int64), list(map(str, named)))


class _Array:
    """Takes the place of a NumPy array in a pickle, and keeps its state unexamined."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def values(self, path: Path) -> NDArray[np.uint8]:
        """The array, if its state is that of uint8 values; raises DatasetError."""
        if isinstance(self.state, tuple) and len(self.state) == 5:
            _, shape, kind, fortran, data = self.state
            data = data.encode("latin-1") if isinstance(data, str) else data
            plain = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)
            single = isinstance(kind, _Kind) and kind.name in ("u1", "|u1") and fortran is False
            if plain and single and isinstance(data, bytes) and math.prod(shape) == len(data):
                return np.frombuffer(data, np.uint8).reshape(shape)
        raise DatasetError(f"{path}: its array is not one of uint8 values; unpack the archive again")


class _Kind:
    """Takes the place of a NumPy dtype in a pickle."""

    def __init__(self, name: Any = None, *_: Any):
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like, of which single bytes have none."""


def _rebuilt(*_: Any) -> _Array:
    return _Array()


def _encoded(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes into pickles that Python 2 can read."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("bytes in an unknown encoding")
    return text.encode("latin-1")


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _rebuilt,
    ("numpy._core.multiarray", "_reconstruct"): _rebuilt,
    ("numpy", "ndarray"): _rebuilt,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _encoded,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _KNOWN[module, name]


def _load(path: Path) -> dict[str, Any]:
    """The dictionary in a batch; raises DatasetError for one that holds anything but plain values and arrays."""
    try:
        if path.stat().st_size > LIMIT_BYTES:
            raise DatasetError(f"{path}: larger than any file of this dataset; unpack the archive again")
        with open(path, "rb") as file:
            content = _Reader(file, encoding="latin-1").load()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror or error}); unpack the archive again") from None
    except (DatasetError, MemoryError):
        raise
    except Exception as error:  # a broken pickle may raise anything
        raise DatasetError(f"{path}: not a batch of this dataset ({error}); fetch the archive again") from error
    if not isinstance(content, dict):
        raise DatasetError(
            f"{path}: holds a {type(content).__name__}, where a batch is a dict; unpack the archive again"
        )
    return {key.decode("latin-1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}
