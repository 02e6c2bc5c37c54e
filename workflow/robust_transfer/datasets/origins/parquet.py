"""The origin `parquet`: `train.parquet` and `test.parquet`, perhaps `validation.parquet`, one image per row.

A split may also be in shards, `train-00000-of-00004.parquet`, as the Hugging Face Hub keeps them, and be spelled in any
usual way (`training`, `valid-…`; `datasets.names`). Without test files those for validation are tested on.

Images are encoded files: bytes, or a struct with a field `bytes`. Labels are integers or class names. Class names come
from `classes` in an `info.json` beside the files, else from the Hugging Face description in the schema, else they are
the labels.
"""

from __future__ import annotations

import json
import re
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
from robust_transfer.datasets.names import split_of

_NAME = re.compile(r"(?P<split>[A-Za-z]+)(?P<shard>[-_.].*)?")
"""`train`, or `train-00000-of-00004`, without the suffix."""
_SHARD = re.compile(r"[-_.](?P<number>\d+)-of-(?P<of>\d+)")

ROWS = 64  # read at a time, so that a file with one large row group needs little memory

EMBED = (
    "store the files' bytes in the column (Hugging Face: datasets.table.embed_table_storage), or open the images by "
    "kind: folder"
)
"""What to do about a file that holds the paths of images."""

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
        known, value = value.get("path"), value["bytes"]
        if value is None and known:
            return name, UnreadableImage(f"the path of an image and no image; {EMBED}")
    return name, UnreadableImage("no image in this row") if value is None else value


def _files(root: Path) -> dict[str, list[Path]]:
    """The files of each split, in order; raises DatasetError where some are missing, or which count is unclear."""
    if not root.is_dir():
        what = "not a folder" if root.exists() else "no such folder"
        raise DatasetError(f"{root}: {what}; expected is one that holds train.parquet and test.parquet")
    found: dict[str, dict[str, list[Path]]] = {}  # by split and by the name that stands for it
    for path in sorted(root.glob("*.parquet")):
        name = _NAME.fullmatch(path.stem)
        if name and (split := split_of(name["split"])):
            found.setdefault(split, {}).setdefault("one" if not name["shard"] else name["split"], []).append(path)
    files = {split: _one_way(root, split, by_name) for split, by_name in found.items()}
    if "test" not in files and "validation" in files:
        files["test"] = files.pop("validation")
    for split in ("train", "test"):
        if split not in files:
            raise DatasetError(f"{root}: no {split}.parquet, and no shards {split}-*.parquet; {_there(root)}")
    return {split: files[split] for split in SPLITS if split in files}


def _one_way(root: Path, split: str, by_name: dict[str, list[Path]]) -> list[Path]:
    """A split's files, which one name stands for; raises DatasetError if there are several, or shards are missing."""
    paths = [path for of_name in by_name.values() for path in of_name]
    if len(by_name) > 1 or len(by_name.get("one", ())) > 1:
        raise DatasetError(
            f"{root}: {listed([path.name for path in paths], 5)} are all files of the {split} split: one "
            "file, or shards of one name; move the others elsewhere"
        )
    numbers = {path.name: shard for path in paths if (shard := _SHARD.search(path.stem))}
    totals = {int(shard["of"]) for shard in numbers.values()}
    if not numbers:
        return paths
    if len(numbers) < len(paths) or len(totals) > 1:
        raise DatasetError(
            f"{root}: {listed([path.name for path in paths], 5)} are not numbered as shards of one set; move those of "
            "another set elsewhere"
        )
    there, (total,) = [int(shard["number"]) for shard in numbers.values()], totals
    first = int(0 not in there and total in there)  # a few number them from 1
    missing = sorted({*range(first, total + first)} - {*there})
    if missing or len(there) > total:
        what = f"missing: {listed([str(one) for one in missing])}" if missing else "there are more"
        raise DatasetError(f"{root}: {split} says it has {total} shards: {what}; fetch them again")
    return paths


def _there(root: Path) -> str:
    """What a folder holds instead, and what to do where its files lie one level lower."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if any(folder.glob("*.parquet")):
            return f"those in {folder.name}/ are opened by path: {folder}"
    names = sorted(path.name for path in root.iterdir())
    if names and not any(name.endswith(".parquet") for name in names) and any(path.is_dir() for path in root.iterdir()):
        return f"it holds {listed(names)}; class folders with images are opened by kind: folder"
    return f"it holds {listed(names) or 'nothing'}; name files by their split"


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
        holds_paths = pa.types.is_struct(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
        raise DatasetError(
            f"{path}: column {origin.image_column!r} is {kind}; images are encoded files, as binary or as a struct "
            f"with a binary field bytes{f': {EMBED}' if holds_paths else ''}"
        )
    if pa.types.is_struct(kind):
        _check_embedded(path, origin.image_column)
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


def _check_embedded(path: Path, column: str) -> None:
    """Raise DatasetError for a file whose first images are all paths without bytes."""
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
        first = next(file.iter_batches(ROWS, columns=[column]), None)
    rows = first.column(0).to_pylist() if first is not None else []
    if (
        rows
        and all(row is None or row["bytes"] is None for row in rows)
        and any(row and row.get("path") for row in rows)
    ):
        shown = next(row["path"] for row in rows if row and row.get("path"))
        raise DatasetError(f"{path}: column {column!r} holds paths ({shown}, …) and no images; {EMBED}")


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
