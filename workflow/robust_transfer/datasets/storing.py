"""Write prepared datasets in the format that `arrow` reads, image by image, holding one record batch at a time."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from robust_transfer.datasets.arrow import COLUMNS, FORMAT, Images, checksum, footer_checksum
from robust_transfer.quantities import duration
from robust_transfer.store.entry import Draft

BATCH_BYTES = 64 * 2**20  # of a record batch: what is held in memory to write one, and read to verify one
RAW_SIDE = 64  # pixels; up to this, raw images take less time to read than encoded ones and little more space
PROGRESS_SECONDS = 10.0

log = logging.getLogger("robust_transfer")

In = TypeVar("In")
Out = TypeVar("Out")


class Item(NamedTuple):
    """One image to be stored in a dataset."""

    image: bytes | Images
    """An encoded file, or uint8 RGB [height, width, 3] where the dataset is stored raw."""
    label: int
    size: tuple[int, int]
    """(height, width) in pixels."""


@dataclass(frozen=True)
class Stream:
    """The images of one split, produced one by one."""

    count: int
    """How many are expected; there are fewer where unreadable ones are left out."""
    items: Iterable[Item]


class SplitWriter:
    """Writes one split's Arrow file; a context manager. `checksums` go into the card, for the reader."""

    def __init__(self, path: Path, shape: tuple[int, int] | None, *, batch_bytes: int = BATCH_BYTES):
        self.shape, self.path, self._limit = shape, path, batch_bytes
        metadata = {"format": FORMAT, "encoding": "encoded" if shape is None else "raw"}
        if shape is not None:
            metadata |= {"height": str(shape[0]), "width": str(shape[1])}
        self._schema = pa.schema(COLUMNS, metadata=metadata)
        self._writer = pa.ipc.new_file(str(path), self._schema)
        self._images: list[bytes] = []
        self._labels: list[int] = []
        self._held = 0
        self._image_checksums: list[str] = []
        self._label_checksums: list[str] = []

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._flush()
        self._writer.close()

    def add(self, image: bytes | Images, label: int) -> None:
        """Append an image: an encoded file, or, where the split is raw, uint8 RGB [height, width, 3]."""
        if isinstance(image, bytes) != (self.shape is None):
            raise TypeError(f"{self.path}: {type(image).__name__} given to a split of shape {self.shape}")
        if not isinstance(image, bytes):
            if image.dtype != np.uint8 or image.shape != (*(self.shape or ()), 3):
                raise ValueError(f"{self.path}: an image of {image.dtype} {image.shape} in a split of {self.shape}")
            image = image.tobytes()
        self._images.append(image)
        self._labels.append(label)
        self._held += len(image)
        if self._held >= self._limit:
            self._flush()

    @property
    def checksums(self) -> dict[str, str]:
        """CRC-32 of the footer and of every record batch's images and labels, in hexadecimal; once closed."""
        return {
            "footer": f"{footer_checksum(self.path):08x}",
            "images": " ".join(self._image_checksums),
            "labels": " ".join(self._label_checksums),
        }

    def _flush(self) -> None:
        if not self._images:
            return
        offsets = np.cumsum([0, *map(len, self._images)], dtype=np.int64)
        data = np.frombuffer(b"".join(self._images), np.uint8)
        labels = np.array(self._labels, np.int32)
        images = pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), len(labels), [None, pa.py_buffer(offsets), pa.py_buffer(data)]
        )
        self._writer.write_batch(pa.record_batch([images, pa.array(labels)], schema=self._schema))
        self._image_checksums.append(f"{checksum(offsets, data):08x}")
        self._label_checksums.append(f"{checksum(labels):08x}")
        self._images, self._labels, self._held = [], [], 0


def store_splits(
    draft: Draft, classes: tuple[str, ...], shape: tuple[int, int] | None, splits: dict[str, Stream], *, name: str
) -> dict[str, Any]:
    """Write every split into the draft and return the facts for its card; `name` is that of the dataset in the log.

    Facts: classes, counts, shape, short_side, encoding, images_per_class (least and most), classes_without_train and
    classes_without_test (names), checksums. The draft's timing gets images and images_per_second.
    """
    counts, checksums, per_class, short_sides = {}, {}, {}, []
    start = time.monotonic()
    for split, stream in splits.items():
        labels = []
        with SplitWriter(draft.file(f"{split}.arrow"), shape) as writer:
            for item in _with_progress(stream, f"{name}: {split}"):
                writer.add(item.image, item.label)
                labels.append(item.label)
                short_sides.append(min(item.size))
        counts[split], checksums[split] = len(labels), writer.checksums
        per_class[split] = np.bincount(labels, minlength=len(classes))
    seconds = time.monotonic() - start
    draft.timing.update(images=len(short_sides), images_per_second=round(len(short_sides) / max(seconds, 1e-9), 1))
    return {
        "classes": list(classes),
        "counts": counts,
        "shape": list(shape) if shape else None,
        "short_side": _summary(short_sides),
        "encoding": "raw" if shape else "encoded",
        "images_per_class": {split: {"min": int(n.min()), "max": int(n.max())} for split, n in per_class.items()},
        "classes_without_train": [classes[i] for i in np.flatnonzero(per_class["train"] == 0)],
        "classes_without_test": [classes[i] for i in np.flatnonzero(per_class["test"] == 0)],
        "checksums": checksums,
    }


def raw_shape(sizes: Iterable[tuple[int, int]]) -> tuple[int, int] | None:
    """The (height, width) to store raw, where all sizes are the same and small, else None; stops at the first other."""
    shape = None
    for size in sizes:
        if max(size) > RAW_SIDE or (shape or size) != size:
            return None
        shape = size
    return shape


def in_order(work: Callable[[In], Out], items: Iterable[In], threads: int) -> Iterator[Out]:
    """`map` over threads, with results in the order of items; at most eight items per thread are worked on ahead."""
    if threads == 1:
        yield from map(work, items)
        return
    waiting: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= 8 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _with_progress(stream: Stream, name: str) -> Iterator[Item]:
    start = last_logged = time.monotonic()
    for done, item in enumerate(stream.items, start=1):
        yield item
        now = time.monotonic()
        if now - last_logged >= PROGRESS_SECONDS:
            last_logged, rate = now, done / (now - start)
            left = duration((stream.count - done) / rate)
            log.info("%s: %d of %d images, %.0f images/s, %s left", name, done, stream.count, rate, left)


def _summary(short_sides: list[int]) -> dict[str, float] | None:
    if not short_sides:
        return None
    return {"min": min(short_sides), "median": float(np.median(short_sides)), "max": max(short_sides)}
