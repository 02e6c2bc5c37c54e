"""The origin `parquet`: `train.parquet` and `test.parquet`, perhaps `validation.parquet`, one image per row.

A split may also be in shards, `train-00000-of-00004.parquet`, as the Hugging Face Hub keeps them. Images are encoded
files: bytes, or a struct with a field `bytes`. Labels are integers or class names. Class names come from `classes` in
an `info.json` beside the files, else from the Hugging Face description in the schema, else they are the labels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from robust_transfer.configuration.datasets import ParquetOrigin
from robust_transfer.configuration.paths import resolved
from robust_transfer.datasets.arrow import SPLITS, Labels
from robust_transfer.datasets.collection import Collection, LabelledImages, licence_of, listed, read_info
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.images import ImageSource, UnreadableImage

ROWS = 64  # read at a time, so that a file with one large row group needs little memory

Values = NDArray[Any]
"""Labels as a file has them: int64, or str objects."""


@dataclass(frozen=True)
class _Classes:
    names: tuple[str, ...]
    label: dict[int | str, int]
    """By the labels in the files."""
    known: str
    """The end of a message on a label that is not among them."""


def open_parquet(origin: ParquetOrigin) -> Collection:
    """Read the labels in a folder of parquet files; raises DatasetError if it is not as described above."""
    root = resolved(origin.path)
    return read_parquet(_files(root), origin, read_info(root))


def read_parquet(files: dict[str, list[Path]], origin: ParquetOrigin, info: dict[str, Any]) -> Collection:
    """Read the labels in the parquet files of each split; `info` is as in an `info.json`. Raises DatasetError."""
    described = _hugging_face(_schema(files["train"][0]))
    values = {split: [_values(path, origin) for path in paths] for split, paths in files.items()}
    named = info.get("classes") or _label_names(described, origin.label_column)
    classes = _classes(named, "info.json" if info.get("classes") else "the schema of train", values["train"])
    splits = {}
    for split, paths in files.items():
        labels = [_labels(path, of_file, classes) for path, of_file in zip(paths, values[split], strict=True)]
        splits[split] = LabelledImages(np.concatenate(labels), _Reader(paths, origin.image_column))
    licence = licence_of(info) or licence_of(described)
    return Collection(classes.names, splits, {"kind": "parquet", "path": origin.path}, licence)


@dataclass(frozen=True)
class _Reader:
    """Reads the images of chosen rows, in order, without holding more than a few."""

    paths: list[Path]
    column: str

    def __call__(self, indices: NDArray[np.int64]) -> Iterator[tuple[str, ImageSource]]:
        first = 0
        for path in self.paths:
            with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
                rows = file.metadata.num_rows
                chosen = indices[(indices >= first) & (indices < first + rows)] - first
                yield from self._chosen(path, file, chosen)
                first += rows

    def _chosen(self, path: Path, file: pq.ParquetFile, chosen: NDArray[np.int64]) -> Iterator[tuple[str, ImageSource]]:
        start = 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            if np.searchsorted(chosen, start) < np.searchsorted(chosen, end):
                for batch in file.iter_batches(ROWS, row_groups=[group], columns=[self.column]):
                    here = chosen[(chosen >= start) & (chosen < start + batch.num_rows)]
                    for row, value in zip(here, batch.column(0).take(pa.array(here - start)).to_pylist(), strict=True):
                        yield _named(path, int(row), value)
                    start += batch.num_rows
            start = end


def _named(path: Path, row: int, value: Any) -> tuple[str, ImageSource]:
    name = f"{path.name} row {row}"
    if isinstance(value, dict):
        name += f" ({value['path']})" if value.get("path") else ""
        value = value["bytes"]
    return name, UnreadableImage("no image in this row") if value is None else value


def _files(root: Path) -> dict[str, list[Path]]:
    if not root.is_dir():
        what = "not a folder" if root.exists() else "no such folder"
        raise DatasetError(f"{root}: {what}; expected is one that holds train.parquet and test.parquet")
    files = {}
    for split in SPLITS:
        one = root / f"{split}.parquet"
        paths = [one] if one.exists() else sorted(root.glob(f"{split}-*.parquet"))
        if paths:
            files[split] = paths
        elif split != "validation":
            there = listed(sorted(path.name for path in root.iterdir())) or "nothing"
            raise DatasetError(f"{root}: no {split}.parquet, and no shards {split}-*.parquet; it holds {there}")
    return files


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path}: not readable as parquet ({error}); fetch it again") from error


def _values(path: Path, origin: ParquetOrigin) -> Values:
    """The labels in a file, once its columns are known to be of the right types."""
    schema = _schema(path)
    for key, column in (("image_column", origin.image_column), ("label_column", origin.label_column)):
        if column not in schema.names:
            raise DatasetError(f"{path}: no column {column!r}; set origin.{key} to one of {listed(schema.names)}")
    kind = schema.field(origin.image_column).type
    content = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
    if not (pa.types.is_binary(content) or pa.types.is_large_binary(content) or pa.types.is_binary_view(content)):
        raise DatasetError(
            f"{path}: column {origin.image_column!r} is {kind}; images are encoded files, as binary or as a struct "
            "with a binary field bytes"
        )
    labels = pq.read_table(path, columns=[origin.label_column]).column(0).combine_chunks()
    if pa.types.is_dictionary(labels.type):
        labels = labels.dictionary_decode()
    if labels.null_count:
        row = int(np.flatnonzero(labels.is_null().to_numpy(zero_copy_only=False))[0])
        raise DatasetError(f"{path}: {labels.null_count} rows without a label, the first is row {row}; remove them")
    if pa.types.is_integer(labels.type):
        return np.asarray(labels.cast(pa.int64()), np.int64)
    if pa.types.is_string(labels.type) or pa.types.is_large_string(labels.type):
        return np.array(labels.to_pylist(), object)
    raise DatasetError(
        f"{path}: column {origin.label_column!r} is {labels.type}; labels are integers or class names (strings)"
    )


def _classes(named: list[str] | None, by: str, train: list[Values]) -> _Classes:
    distinct: list[int | str] = sorted({value for values in train for value in values.tolist()}, key=_order)
    if not named:
        return _Classes(
            tuple(map(str, distinct)), {value: i for i, value in enumerate(distinct)}, "not a label of train"
        )
    if all(isinstance(value, int) for value in distinct):
        known = f"but {by} names {len(named)} classes, 0 to {len(named) - 1}"
        return _Classes(tuple(named), {i: i for i in range(len(named))}, known)
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise DatasetError(f"{by} names classes twice, so labels are ambiguous: {listed(twice)}")
    known = f"not among the {len(named)} classes that {by} names"
    return _Classes(tuple(named), {name: i for i, name in enumerate(named)}, known)


def _order(value: int | str) -> tuple[bool, int | str]:
    return isinstance(value, str), value  # numbers before names, should shards disagree


def _labels(path: Path, values: Values, classes: _Classes) -> Labels:
    distinct, inverse = np.unique(values, return_inverse=True)
    labels = np.array([classes.label.get(value, -1) for value in distinct.tolist()], np.int64)[inverse]
    unknown = np.flatnonzero(labels < 0)
    if len(unknown):
        row = int(unknown[0])
        raise DatasetError(f"{path}: label {values.tolist()[row]!r} in row {row}, {classes.known}")
    return labels


def _hugging_face(schema: pa.Schema) -> dict[str, Any]:
    """What the `datasets` library wrote into the schema, {} if it did not."""
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]
    except (ValueError, KeyError, TypeError):
        return {}
    return described if isinstance(described, dict) else {}


def _label_names(described: dict[str, Any], column: str) -> list[str] | None:
    features = described.get("features")
    label = features.get(column) if isinstance(features, dict) else None
    names = label.get("names") if isinstance(label, dict) else None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None
