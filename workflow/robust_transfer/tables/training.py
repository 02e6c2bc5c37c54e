"""The training table, one row per epoch of a backbone, and the list of sanity flags: how they are read and written.

They lie beside the results table as `training.parquet`, with the experiment's description in its metadata as there, and
`flags.csv`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from robust_transfer.store.entry import write_text
from robust_transfer.tables.categories import in_order
from robust_transfer.tables.errors import TableError, again
from robust_transfer.tables.experiment_info import ATTRIBUTE, ExperimentInfo
from robust_transfer.tables.parquet import TableFormat

SCHEMA = pa.schema(
    [
        ("entry", pa.string()),
        ("source", pa.string()),
        ("arch", pa.string()),
        ("recipe", pa.string()),
        ("norm", pa.string()),
        ("eps", pa.string()),
        ("seed", pa.int32()),
        ("epoch", pa.int32()),
        ("side", pa.int32()),
        ("loss", pa.float64()),
        ("train_accuracy", pa.float64()),
        ("clean_accuracy", pa.float64()),
        ("robust_accuracy", pa.float64()),
        ("learning_rate", pa.float64()),
        ("images_per_second", pa.float64()),
        ("seconds", pa.float64()),
        ("peak_memory_mb", pa.float64()),
    ]
)
NULLABLE = frozenset(("side", "clean_accuracy", "robust_accuracy", "images_per_second", "seconds", "peak_memory_mb"))
TRAINING = TableFormat("training table", SCHEMA, NULLABLE)
FLAG_COLUMNS = ("entry", "stage", "flag", "message")


def read_training(path: str | Path) -> pd.DataFrame:
    """A training table as a DataFrame: one row per epoch of a backbone.

    entry              entry of the backbone in the store
    source             dataset that it was pretrained on
    arch, recipe       its architecture, and how it was pretrained
    norm, eps          threat model of its training: `l2` or `linf` and a radius; `none` and `0` for standard training
    seed               seed of its training
    epoch              from 1
    side               of the epoch's images, in pixels; null: not recorded
    loss               mean over the training images, as perturbed
    train_accuracy     percent of the training images, as perturbed
    clean_accuracy     percent of the check sample of training images, in eval mode; null: not checked in this epoch
    robust_accuracy    the same under PGD from a random start at the backbone's own eps; null: not checked, or eps 0
    learning_rate      at the epoch's last step
    images_per_second  training images; null: not recorded
    seconds            that the epoch took; null: not recorded
    peak_memory_mb     megabytes; null: not recorded

    `arch`, `norm` and `eps` are categoricals in the experiment's order, and `attrs` describe the experiment, as for
    `read_results`. Raises TableError if the file is missing or is no training table.
    """
    epochs = TRAINING.read(Path(path))
    return in_order(epochs, ExperimentInfo.of(epochs))


def as_training(epochs: Any, info: ExperimentInfo) -> pd.DataFrame:
    """Epochs as `read_training` gives them, from records with a value for each column, or a DataFrame with these."""
    found = TRAINING.frame(epochs)
    found.attrs[ATTRIBUTE] = info.as_json()
    return in_order(found, info)


def write_flags(path: Path, flags: pd.DataFrame) -> None:
    """Write flags, a row each with `FLAG_COLUMNS`, as CSV; without flags its header stands alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, flags.to_csv(columns=list(FLAG_COLUMNS), index=False, lineterminator="\n"))


def read_flags(path: Path) -> pd.DataFrame:
    """A list of flags: the entry each was raised for, its stage, one of `flags.FLAGS`, and a message with the fix.

    Raises TableError if the file is missing or is none.
    """
    try:
        flags = pd.read_csv(path, dtype="string", keep_default_na=False, encoding_errors="replace")
    except FileNotFoundError:
        raise TableError(f"{path}: no list of flags there; `robust-transfer results` makes it") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError):
        flags = pd.DataFrame()
    # Fields beyond the header become an index, and those that a line lacks are empty, which none of a flag is.
    whole = isinstance(flags.index, pd.RangeIndex) and (flags != "").all(axis=None)
    if list(flags.columns) != list(FLAG_COLUMNS) or not whole:
        raise TableError(f"{path}: not a list of flags; {again(path)}")
    return flags
