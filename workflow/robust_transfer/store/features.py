"""Stored features: a memory-mappable Arrow file per split, and the check that they belong to what lies beside them.

The columns are `features` (fixed-size list of float16 or float32) and `label` (int32), uncompressed, in the order of
the dataset's images. The card records SHA-256 checksums of the backbone's weights and of the dataset's files.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from robust_transfer.store.entry import CARD, Entry, StoreError, open_entry, renewing

Features = NDArray[Any]
"""float16 or float32, [N, D]."""
Labels = NDArray[np.int64]


def write_features(path: Path, features: Features, labels: Labels) -> None:
    """Write features [N, D], float16 or float32, and labels [N] as one record batch of an Arrow IPC file."""
    kind = pa.list_(pa.from_numpy_dtype(features.dtype), features.shape[1])
    schema = pa.schema([("features", kind), ("label", pa.int32())])
    values = _column(kind.value_type, np.ascontiguousarray(features).reshape(-1))
    columns = [pa.Array.from_buffers(kind, len(features), [None], children=[values]), integers(labels)]
    with pa.ipc.new_file(str(path), schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))


def open_features(entry: Entry, split: str) -> tuple[Features, Labels]:
    """Features [N, D] in their stored dtype and labels int64 [N] of one split of a finished features entry.

    Features are mapped from the file, read-only, and take no memory of their own. Raises StoreError if the file is not
    the one its card describes, or if the backbone or dataset beside it is not the one the features were made from.
    """
    _check_origin(entry)
    path = entry.file(f"{split}.arrow")
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        parts = [_values(batch.column("features")).reshape(batch.num_rows, -1) for batch in batches]
        labels: list[Labels] = [_values(batch.column("label")).astype(np.int64) for batch in batches]
    except (pa.ArrowException, KeyError) as error:
        raise StoreError(f"{path}: not a file of features ({error}); {renewing(entry.path)}") from None
    return (parts[0], labels[0]) if len(parts) == 1 else (np.concatenate(parts), np.concatenate(labels))


def origin(entry: Entry, roles: Iterable[str] = ("backbone", "dataset")) -> dict[str, dict[str, str]]:
    """SHA-256 by file of what features, or what else has such roles, are made from, as the inputs' cards have them."""
    return {role: _checksums(entry.input(role)) for role in roles}


def _check_origin(entry: Entry) -> None:
    """An input that has been moved away leaves nothing to compare with; one that has changed is an error."""
    for role, recorded in entry.facts()["origin"].items():
        path = entry.path.parent.parent / entry.inputs[role]
        if (path / CARD).exists() and _checksums(open_entry(path)) != recorded:
            raise StoreError(
                f"{entry.path}: made from another {role} than {path} is now; make the features again: "
                f"robust-transfer features {entry.path}"
            )


def _checksums(entry: Entry) -> dict[str, str]:
    files = entry.card()["files"]
    return {name: files[name]["sha256"] for name in sorted(files) if name.endswith((".arrow", ".safetensors"))}


def integers(values: NDArray[np.integer[Any]]) -> pa.Array:
    """An Arrow array of int32, without importing pandas, as `pyarrow.array` does (1.5 s of CPU)."""
    return _column(pa.int32(), values.astype(np.int32))


def strings(values: list[str]) -> pa.Array:
    """An Arrow array of strings, without importing pandas."""
    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)


def _column(kind: pa.DataType, values: NDArray[Any]) -> pa.Array:
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def _values(column: pa.Array) -> NDArray[Any]:
    """The numbers of a column without nulls, also one of lists, mapped; `flatten` would import pyarrow.compute."""
    lists = isinstance(column.type, pa.FixedSizeListType)
    kind, size = (column.type.value_type, column.type.list_size) if lists else (column.type, 1)
    found = np.frombuffer(column.buffers()[-1], kind.to_pandas_dtype())
    return found[column.offset * size : (column.offset + len(column)) * size]
