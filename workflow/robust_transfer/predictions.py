"""`predictions.parquet`: what an entry said of every image, from which any comparison can be made later."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from robust_transfer.selection import Predictions
from robust_transfer.store import Entry
from robust_transfer.table import TableError


def read_predictions(entry: Entry, selection: str | None) -> dict[str, Predictions]:
    """An entry's predictions by split, where hyperparameters were chosen on `selection`; of several heads, their mean.

    Raises TableError if an image is there twice, or not once for each head.
    """
    table = pq.read_table(entry.file("predictions.parquet"))
    if "selection" in table.column_names:  # entries with one selection alone need not name it
        table = table.filter(pc.equal(table["selection"], selection))
    splits = pc.unique(table["split"]).to_pylist()
    return {split: _of_split(table.filter(pc.equal(table["split"], split)), entry, split) for split in splits}


def _of_split(table: pa.Table, entry: Entry, split: str) -> Predictions:
    heads = pc.count_distinct(table["head_seed"]).as_py() if "head_seed" in table.column_names else 1
    table = table.sort_by("index")
    index, labels, predicted = (table[name].to_numpy().astype(np.int64) for name in ("index", "label", "prediction"))
    images, first, counts = np.unique(index, return_index=True, return_counts=True)
    if (counts != heads).any():
        raise TableError(
            f"{entry.path}: predictions.parquet has a {split} image twice, or not once for each head; "
            "make the entry again"
        )
    correct = np.add.reduceat((labels == predicted).astype(np.float64), first) / heads
    return Predictions(images, labels[first], correct)
