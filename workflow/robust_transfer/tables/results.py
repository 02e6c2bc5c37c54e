"""The results table: one schema for every measured number, ours or published, and what its columns mean.

A row is one number. `KEY` says which one, the rest what it is. Figures, tables and the report read a results file and
nothing else: the experiment's labels and choices travel in the file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

BEST_ROBUST = "best-robust"
"""The eps of a row whose eps was chosen, on validation, among all robust ones."""
BEST_ARCH = "best"
"""The arch of a row whose architecture was chosen, on validation."""
DIFFERENCE = "_difference"
"""Ending of the metric of a paired difference to the standard networks, in percentage points."""
METADATA = b"experiment"

R = TypeVar("R")


class TableError(ValueError):
    """A results table that cannot be made or read; the message names the row or file and the fix."""


@dataclass(frozen=True)
class Row:
    """One number of the results table."""

    experiment: str
    source: str
    target: str
    """The source itself where `mode` is `source`; among published rows also other images of the same classes."""
    arch: str
    """An architecture, or `best`."""
    recipe: str
    norm: str
    """`l2` or `linf`; `none` for eps 0."""
    eps: str
    """In its canonical spelling, or `best-robust`."""
    eps_value: float | None
    """Radius in [0, 1] pixel units; None for `best-robust`."""
    backbone_seed: int | None
    """None for a mean over seeds of pretraining, and for a chosen row."""
    transfer_seed: int | None
    """None for a mean over seeds of transfer, for a chosen row, and where nothing is transferred."""
    mode: str
    """`source`, `fixed-feature` or `full-network`."""
    protocol: str | None
    variant: str
    """Deviations from the protocol, as JSON with sorted keys."""
    images_per_class: int | None
    attack: str | None
    """JSON of norm, eps, steps and restarts, and of `kind` where it is not PGD; None for clean images."""
    split: str
    """`test` or `validation`."""
    selection: str | None
    """Where hyperparameters (and eps and arch, if chosen) were chosen; None: nothing was."""
    metric: str
    value: float
    """Percent; for a difference, percentage points."""
    ci_low: float
    ci_high: float
    ci_kind: str
    """`images`: 95 % bootstrap over images; `seeds`: 95 % t interval over seeds."""
    n: int
    """Images, or for a `seeds` interval seeds."""
    hyperparameters: str
    """JSON with sorted keys."""
    backbone: str | None
    """Entry of the backbone; None for rows made from several."""
    entry: str | None
    """Entry that measured the number; None for rows made from several."""
    code: str | None
    """Fingerprint of the code that made the entry."""

    @property
    def key(self) -> tuple[object, ...]:
        """What makes this row different from every other one."""
        return tuple(getattr(self, name) for name in KEY)

    @property
    def downscaled(self) -> int | None:
        """Short side in pixels to which images were downscaled first; None for native ones."""
        size = json.loads(self.variant).get("downscaled")
        return None if size is None else int(size)

    @property
    def chosen(self) -> dict[str, Any]:
        """The hyperparameters as a dict: for a chosen row `eps`, `arch` and what else the choice says."""
        found: dict[str, Any] = json.loads(self.hyperparameters)
        return found


KEY = (
    "experiment",
    "source",
    "target",
    "arch",
    "recipe",
    "norm",
    "eps",
    "backbone_seed",
    "transfer_seed",
    "mode",
    "protocol",
    "variant",
    "images_per_class",
    "attack",
    "split",
    "selection",
    "metric",
)

_TYPES = {
    "eps_value": pa.float64(),
    "value": pa.float64(),
    "ci_low": pa.float64(),
    "ci_high": pa.float64(),
    "backbone_seed": pa.int32(),
    "transfer_seed": pa.int32(),
    "images_per_class": pa.int32(),
    "n": pa.int32(),
}
SCHEMA = pa.schema([(column.name, _TYPES.get(column.name, pa.string())) for column in fields(Row)])


@dataclass(frozen=True)
class Target:
    """A downstream dataset as figures show it."""

    name: str
    label: str
    metric: str
    """The accuracy that selection and figures use."""


@dataclass(frozen=True)
class ExperimentInfo:
    """What figures need to know of the experiment beside its numbers."""

    experiment: str
    title: str = ""
    notice: str = ""
    source: str = ""
    source_label: str = ""
    targets: tuple[Target, ...] = ()
    """In the order of figures."""
    architectures: tuple[str, ...] = ()
    widths: tuple[str, ...] = ()
    """Architectures along the x axis of the width figure."""
    fixed_eps: dict[str, str] = field(default_factory=dict)
    """Norm to the eps chosen beforehand."""
    bootstrap: int = 1000
    """Resamples behind the intervals of chosen rows."""
    selection: str = "validation"
    """Where what figures show was chosen, if the table has numbers of several selections."""
    protocol: str | None = None
    """Of fixed-feature transfer, that figures show where several were measured; None: frozen."""
    dropped: tuple[str, ...] = ()
    """Labels of datasets that were left out, since their images are missing."""
    released: tuple[str, ...] = ()
    """Recipes that are networks which the paper's authors released, for which they published accuracies."""

    @property
    def ordered(self) -> tuple[str, ...]:
        """Architectures as figures order them: those of the width figure by width, then the others."""
        return tuple(dict.fromkeys([*self.widths, *self.architectures]))

    @classmethod
    def from_json(cls, described: dict[str, Any]) -> ExperimentInfo:
        """Read the experiment file's description; keys that figures do not need are left alone."""
        return cls(
            experiment=described["experiment"],
            title=described.get("title", ""),
            notice=described.get("notice", ""),
            source=described["source"]["name"],
            source_label=described["source"]["label"],
            targets=tuple(Target(**target) for target in described["targets"]),
            architectures=tuple(described["architectures"]),
            widths=tuple(described.get("widths") or described["architectures"]),
            fixed_eps=dict(described.get("fixed_eps") or {}),
            bootstrap=int(described.get("bootstrap", 1000)),
            selection=described.get("selection", "validation"),
            protocol=described.get("protocol"),
            dropped=tuple(described.get("dropped") or ()),
            released=tuple(described.get("released") or ()),
        )


@dataclass(frozen=True)
class Results:
    """A results table in memory."""

    about: ExperimentInfo
    rows: tuple[Row, ...]


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values have equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def check_keys(rows: Iterable[Row]) -> None:
    """Raise TableError if two rows have one key; the message names the key and what wrote both."""
    seen: dict[tuple[object, ...], Row] = {}
    for row in rows:
        other = seen.setdefault(row.key, row)
        if other is not row:
            key = ", ".join(f"{name}={getattr(row, name)}" for name in KEY if getattr(row, name) is not None)
            raise TableError(
                f"two rows with one key ({key}): from {other.entry or 'a summary'} ({other.value:.2f}) and "
                f"{row.entry or 'a summary'} ({row.value:.2f}); a key names one number, so what tells them apart "
                "belongs into the variant"
            )


def write(path: Path, rows: Iterable[Row], described: dict[str, Any]) -> None:
    """Write a results table to parquet, with the experiment's description as metadata.

    Raises TableError for a duplicate key. The same rows give the same bytes.
    """
    kept = list(rows)
    check_keys(kept)
    write_described(path, kept, SCHEMA, described)


def write_described(path: Path, rows: Iterable[Any], schema: pa.Schema, described: dict[str, Any]) -> None:
    """Write dataclass rows to parquet, with the experiment's description as metadata."""
    schema = schema.with_metadata({METADATA: canonical(described).encode()})
    write_parquet(pa.Table.from_pylist([asdict(row) for row in rows], schema=schema), path)


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a parquet file in one piece: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    pq.write_table(table, draft)
    draft.replace(path)


def read(path: Path) -> Results:
    """Read a results table; raises TableError as `read_described`."""
    about, rows = read_described(path, Row, SCHEMA, "results table")
    return Results(about, rows)


def read_described(path: Path, kind: type[R], schema: pa.Schema, what: str) -> tuple[ExperimentInfo, tuple[R, ...]]:
    """The experiment's description and the rows, of that kind, that `write_described` wrote.

    Raises TableError, which calls the file `what`, if it is missing, is not parquet, or lacks columns of the schema.
    """
    try:
        with pq.ParquetFile(path) as file:  # read_table would import pandas: 0.5 s of a figure's 3.4 s
            table = file.read()
    except FileNotFoundError:
        raise TableError(f"{path}: no {what} there; `python -m robust_transfer results` makes it") from None
    except pa.ArrowInvalid as error:
        raise TableError(f"{path}: not a parquet file ({error}); delete it and make it again") from None
    missing = [name for name in schema.names if name not in table.column_names]
    metadata = (table.schema.metadata or {}).get(METADATA)
    if missing or metadata is None:
        lacks = ", ".join(missing) or "the experiment's description"
        raise TableError(f"{path}: not a {what}, it lacks {lacks}; delete it and make it again")
    rows = tuple(kind(**row) for row in table.select(schema.names).to_pylist())
    return ExperimentInfo.from_json(json.loads(metadata)), rows
