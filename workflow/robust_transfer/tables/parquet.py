"""Parquet files read as DataFrames: a schema for each kind of file, and the experiment's description with it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from robust_transfer.tables.errors import TableError, again
from robust_transfer.tables.experiment_info import ATTRIBUTE
from robust_transfer.tables.key import canonical

_DTYPES = {pa.string(): pd.StringDtype(), pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype()}
"""Nullable dtypes; floats are NumPy's, where null is NaN."""


@dataclass(frozen=True)
class TableFormat:
    """What a kind of parquet file holds."""

    name: str
    """As messages call it, such as `results table`."""
    schema: pa.Schema
    nullable: frozenset[str]
    """Columns that may be null. Of the other float columns NaN is a value."""
    added: frozenset[str] = frozenset()
    """Nullable columns that were added later: rows and files that lack them have null there."""

    def frame(self, rows: pd.DataFrame | Iterable[dict[str, Any]]) -> pd.DataFrame:
        """The rows in the columns and dtypes of the schema."""
        found = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame.from_records(list(rows), columns=self.columns)
        found = found.assign(**dict.fromkeys(self.added - set(found)))
        return found[self.columns].astype({field.name: self._dtype(field.type) for field in self.schema})

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in order."""
        return list(self.schema.names)

    def write(self, path: Path, rows: pd.DataFrame, described: dict[str, Any] | None = None) -> None:
        """Write the rows, with an experiment's description as metadata. The same rows give the same bytes.

        The file appears in one piece: a reader sees the old one or the new one.
        """
        rows = self.frame(rows)
        arrays = [
            pa.array(rows[field.name], type=field.type, from_pandas=field.name in self.nullable)
            for field in self.schema
        ]
        table = pa.Table.from_arrays(arrays, schema=self.schema)
        if described is not None:
            table = table.replace_schema_metadata({ATTRIBUTE: canonical(described)})
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.draft")
        pq.write_table(table, draft)
        draft.replace(path)

    def read(self, path: Path) -> pd.DataFrame:
        """The rows of a file that `write` wrote with a description, which is in `attrs["experiment"]`.

        Raises TableError if the file is missing, is not parquet, or lacks columns of the schema or the description.
        """
        try:
            with pq.ParquetFile(path) as file:
                table = file.read()
        except FileNotFoundError:
            raise TableError(f"{path}: no {self.name} there; `robust-transfer results` makes it") from None
        except pa.ArrowInvalid as error:
            raise TableError(f"{path}: not a parquet file ({error}); {again(path)}") from None
        missing = [name for name in self.columns if name not in table.column_names and name not in self.added]
        metadata = (table.schema.metadata or {}).get(ATTRIBUTE.encode())
        if missing or metadata is None:
            lacks = ", ".join(missing) or "the experiment's description"
            raise TableError(f"{path}: not a {self.name}, it lacks {lacks}; {again(path)}")
        rows = self.frame(
            table.select([name for name in self.columns if name in table.column_names]).to_pandas(
                types_mapper=_DTYPES.get
            )
        )
        rows.attrs[ATTRIBUTE] = json.loads(metadata)
        return rows

    @staticmethod
    def _dtype(kind: pa.DataType) -> Any:
        return _DTYPES.get(kind, "float64")
