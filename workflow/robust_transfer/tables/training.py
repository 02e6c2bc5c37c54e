"""The training table, one row per epoch of a backbone, and the list of sanity flags: how they are read and written.

They lie beside the results table as `training.parquet`, with the experiment's description in its metadata as there, and
`flags.csv`.
"""

from __future__ import annotations

import csv
import io
import types
import typing
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from robust_transfer.store.entry import write_text
from robust_transfer.tables.results import ExperimentInfo, TableError, read_described, write_described


@dataclass(frozen=True)
class Backbone:
    """A backbone as the experiment file names it."""

    entry: str
    source: str
    arch: str
    recipe: str
    norm: str
    """`l2` or `linf`; `none` for eps 0."""
    eps: str
    """In its canonical spelling."""
    seed: int


@dataclass(frozen=True)
class EpochRow(Backbone):
    """What an epoch of pretraining came to; accuracies in percent. None where it was not looked at or not recorded."""

    epoch: int
    """From 1."""
    side: int | None
    """Of the epoch's images, in pixels."""
    loss: float
    """Mean over the training images, as perturbed."""
    train_accuracy: float
    """On the training images, as perturbed."""
    clean_accuracy: float | None
    """On the check sample of training images, in eval mode."""
    robust_accuracy: float | None
    """The same under PGD from a random start at the backbone's own eps."""
    learning_rate: float
    """At the epoch's last step."""
    images_per_second: float | None
    seconds: float | None
    peak_memory_mb: float | None


@dataclass(frozen=True)
class FlagRow:
    """A sanity flag (see `sanity.py`) and the entry that it was raised for."""

    entry: str
    stage: str
    flag: str
    message: str


@dataclass(frozen=True)
class TrainingTable:
    """A training table in memory."""

    about: ExperimentInfo
    rows: tuple[EpochRow, ...]


_FLAG_COLUMNS = [field.name for field in fields(FlagRow)]
_ARROW = {str: pa.string(), int: pa.int32(), float: pa.float64()}


def _arrow(annotation: Any) -> pa.DataType:
    """The column type of a field: `float | None` is a float64, whose column may hold nulls as every one may."""
    kinds = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return _ARROW[next(kind for kind in kinds if kind is not types.NoneType)]


SCHEMA = pa.schema([(name, _arrow(kind)) for name, kind in typing.get_type_hints(EpochRow).items()])


def write_training(path: Path, rows: Iterable[EpochRow], described: dict[str, Any]) -> None:
    """Write a training table to parquet, with the experiment's description as metadata."""
    write_described(path, rows, SCHEMA, described)


def read_training(path: Path) -> TrainingTable:
    """Read a training table; raises TableError if the file is missing or is none."""
    about, rows = read_described(path, EpochRow, SCHEMA, "training table")
    return TrainingTable(about, rows)


def write_flags(path: Path, flags: Iterable[FlagRow]) -> None:
    """Write flags as CSV with a header, which stands alone where there are none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_FLAG_COLUMNS)
    writer.writerows(astuple(flag) for flag in flags)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text.getvalue())


def read_flags(path: Path) -> list[FlagRow]:
    """Read a list of flags; raises TableError if the file is missing or is none."""
    try:
        text = path.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        raise TableError(f"{path}: no list of flags there; `python -m robust_transfer results` makes it") from None
    header, *lines = csv.reader(io.StringIO(text, newline="")) if text else [[]]
    if header != _FLAG_COLUMNS or any(len(line) != len(header) for line in lines):
        raise TableError(f"{path}: not a list of flags; delete it and make it again")
    return [FlagRow(*line) for line in lines]
