"""Read prepared datasets: one uncompressed Arrow IPC file per split, memory-mapped, with random access to its images.

The file has the columns `image` (large_binary: 64-bit offsets) and `label` (int32) in record batches of about 64 MB.
Its schema metadata says how images are stored: `raw`, height × width × 3 bytes of uint8 RGB each, where all images of a
dataset have one small shape; `encoded`, an image file each, otherwise. `storing` writes it.

What is checked, and when: size, footer, schema and labels on opening; the images of a record batch when a process
first reads one of them. The checksums (CRC-32) are in the entry's card. Reading maps pages of the file: anonymous
memory does not grow with the dataset, except for the labels (8 bytes per image).
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from robust_transfer.store.entry import Entry, StoreError, renewing

FORMAT = "1"
COLUMNS = (("image", pa.large_binary()), ("label", pa.int32()))
SPLITS = ("train", "validation", "test")

_MAGIC = b"ARROW1"
_TAIL = 4 + len(_MAGIC)  # length of the footer as int32, then the magic

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


class _Batch(NamedTuple):
    offsets: NDArray[np.int64]
    data: Images


class Split:
    """One split of a prepared dataset; opened by `open_split`. Can be pickled: the copy opens the file again."""

    def __init__(self, entry: Entry, name: str):
        self.entry, self.name = entry, name
        self._path = entry.file(f"{name}.arrow", checksum=False)
        facts = entry.facts()
        if name not in facts.get("checksums", {}):
            raise StoreError(f"{entry.path}: its card has no checksums for split {name!r}; {self._remedy}")
        recorded = facts["checksums"][name]
        self.classes: tuple[str, ...] = tuple(facts["classes"])
        """Names, by label."""
        self._checksums = [int(crc, 16) for crc in recorded["images"].split()]
        self._check_footer(recorded["footer"])
        with self._reading():
            reader = pa.ipc.open_file(pa.memory_map(str(self._path)))
            self.shape = self._check_schema(reader.schema)
            """(height, width) of every image where they are stored raw, else None."""
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self._batches = [self._images(batch) for batch in batches]
        self.verified = np.zeros(len(batches), np.bool_)
        """bool [record batches]: those verified. In shared memory, they are verified once for all processes."""
        self._starts = list(accumulate((batch.num_rows for batch in batches), initial=0))
        self.labels = self._labels(batches, [int(crc, 16) for crc in recorded["labels"].split()])
        """int64 [N], read-only."""
        if len(self) != facts["counts"][name]:
            raise StoreError(f"{self._path}: {len(self)} images where the card counts {facts['counts'][name]}")

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_split, (self.entry, self.name)

    def image(self, index: int) -> Images:
        """Pixels of one image: uint8 RGB [height, width, 3]. Raises StoreError if the file was altered there."""
        stored = self._stored(index)
        return decode(stored.data) if self.shape is None else stored.reshape(*self.shape, 3).copy()

    def picture(self, index: int) -> Image.Image:
        """One image as a Pillow image in mode RGB. Raises StoreError if it cannot be decoded."""
        stored = self._stored(index)
        if self.shape is not None:
            return Image.fromarray(stored.reshape(*self.shape, 3))
        try:
            return _rgb(stored.data)
        except MemoryError:
            raise
        except Exception as error:  # Pillow's decoders raise errors of many kinds on broken files
            raise StoreError(
                f"{self._path}: image {index} cannot be decoded ({type(error).__name__}: {error}); it was stored like "
                f"this: repair it in the original dataset; {renewing(self.entry.path)}"
            ) from error

    def stored(self, index: int) -> bytes | Image.Image:
        """One image as it is stored: the bytes of an encoded file, or a Pillow image where images are stored raw."""
        return bytes(self._stored(index)) if self.shape is None else self.picture(index)

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of one image, without decoding it."""
        if self.shape is not None:
            return self.shape
        with Image.open(io.BytesIO(self._stored(index).data)) as image:
            return image.height, image.width

    def stacks(self) -> Iterator[Images]:
        """Where images are stored raw: all of them in order, uint8 [n, height, width, 3] a record batch, read-only."""
        if self.shape is None:
            raise ValueError(f"{self._path}: images are stored encoded; read them one by one")
        for batch in range(len(self._batches)):
            yield self._verified(batch).data.reshape(-1, *self.shape, 3)

    def verify(self) -> None:
        """Read everything; raises StoreError if any record batch was altered."""
        for batch in range(len(self._batches)):
            self._verified(batch)

    def _stored(self, index: int) -> Images:
        if not 0 <= index < len(self):
            raise IndexError(f"{self._path}: no image {index}; it holds {len(self)}")
        batch = bisect_right(self._starts, index) - 1
        offsets, data = self._verified(batch)
        row = index - self._starts[batch]
        return data[offsets[row] : offsets[row + 1]]

    def _verified(self, batch: int) -> _Batch:
        images = self._batches[batch]
        if not self.verified[batch]:
            if checksum(images.offsets, images.data) != self._checksums[batch]:
                raise self._altered(f"images {self._starts[batch]} to {self._starts[batch + 1] - 1}")
            self.verified[batch] = True
        return images

    def _images(self, batch: pa.RecordBatch) -> _Batch:
        _, offsets, data = batch.column(0).buffers()
        count = batch.num_rows + 1
        if offsets is None or offsets.size < count * 8:
            raise self._altered("a record batch's header")
        return _Batch(np.frombuffer(offsets, np.int64, count), np.frombuffer(data or b"", np.uint8))

    def _labels(self, batches: list[pa.RecordBatch], recorded: list[int]) -> Labels:
        if not len(batches) == len(recorded) == len(self._checksums):
            raise self._altered("the list of record batches")
        labels = np.empty(self._starts[-1], np.int64)
        for batch, crc, start in zip(batches, recorded, self._starts, strict=False):
            values = np.frombuffer(batch.column(1).buffers()[1] or b"", np.int32, batch.num_rows)
            if checksum(values) != crc:
                raise self._altered(f"labels {start} to {start + len(values) - 1}")
            labels[start : start + len(values)] = values
        labels.flags.writeable = False
        return labels

    def _check_footer(self, recorded: str) -> None:
        if footer_checksum(self._path) != int(recorded, 16):
            raise self._altered("the footer")

    def _check_schema(self, schema: pa.Schema) -> tuple[int, int] | None:
        metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
        if metadata.get("format") != FORMAT:
            raise StoreError(
                f"{self._path}: dataset format {metadata.get('format', 'unknown')}, where this code reads {FORMAT}; "
                f"{self._remedy}"
            )
        if [(column.name, column.type) for column in schema] != list(COLUMNS):
            raise StoreError(f"{self._path}: columns {schema.names}, where a dataset has image, label; {self._remedy}")
        return (int(metadata["height"]), int(metadata["width"])) if metadata["encoding"] == "raw" else None

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise StoreError(f"{self._path}: not readable as Arrow ({error}); {self._remedy}") from error

    def _altered(self, part: str) -> StoreError:
        return StoreError(f"{self._path}: {part} do not match the checksum in its card; {self._remedy}")

    @property
    def _remedy(self) -> str:
        return f"the file was altered or is another one; {renewing(self.entry.path)}"


def open_split(entry: Entry, split: str) -> Split:
    """Open a split of a finished dataset entry; raises StoreError if it is missing, altered or not a dataset."""
    return Split(entry, split)


def entry_splits(entry: Entry) -> list[str]:
    """The splits that a finished dataset entry has, in the order train, validation, test."""
    return [split for split in SPLITS if f"{split}.arrow" in entry.card()["files"]]


def decode(data: bytes | memoryview) -> Images:
    """Pixels of a stored image: uint8 RGB [height, width, 3]."""
    return np.array(_rgb(data))


def _rgb(data: bytes | memoryview) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


def checksum(*arrays: NDArray[Any]) -> int:
    """CRC-32 of the bytes of contiguous arrays, one after the other."""
    crc = 0
    for array in arrays:
        crc = zlib.crc32(array.data, crc)
    return crc


def footer_checksum(path: Path) -> int:
    """CRC-32 of an Arrow file's footer, which holds its schema and says where its record batches are.

    Raises StoreError if the file does not end as an Arrow file does.
    """
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
        length = struct.unpack("<i", tail[:4])[0] if tail.endswith(_MAGIC) and len(tail) == _TAIL else -1
        if not 0 < length <= size - _TAIL:
            raise StoreError(f"{path}: does not end as an Arrow file does; {renewing(path.parent)}")
        file.seek(size - _TAIL - length)
        return zlib.crc32(file.read())
