"""`predictions.parquet`: what an entry said of every image, from which any comparison can be made later.

One row per image and classifier: its `split`, `index` (row in that split's stored file), `label` and `prediction`;
where an entry has several classifiers, `run` and `head_seed` say which one it was, and `selection` where its
hyperparameters were chosen.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from robust_transfer.statistics.predictions import Predictions
from robust_transfer.store.entry import Entry, StoreError
from robust_transfer.store.features import integers, strings

PREDICTIONS = "predictions.parquet"


def predictions_table(
    split: str,
    indices: NDArray[np.int64],
    labels: NDArray[np.int64],
    predictions: NDArray[np.int64],
    *,
    selection: str | None = None,
    **of: int,
) -> pa.Table:
    """The rows of one classifier on some images of a split; all arrays are [N], `indices` rows of its stored file.

    `of` adds columns with one number throughout: `run`, `head_seed`.
    """
    columns = {"index": indices, "label": labels, "prediction": predictions}
    columns |= {name: np.full(len(labels), value) for name, value in of.items()}
    arrays = [strings([split] * len(labels)), *map(integers, columns.values())]
    table = pa.Table.from_arrays(arrays, ["split", *columns])
    return table if selection is None else selected(table, selection)


def selected(table: pa.Table, selection: str) -> pa.Table:
    """The rows, marked with where the hyperparameters behind them were chosen."""
    return table.append_column("selection", strings([selection] * len(table)))


def write_predictions(path: Path, tables: Iterable[pa.Table]) -> None:
    """Write the tables, one after the other, as parquet."""
    pq.write_table(pa.concat_tables(tables), path)


def read_predictions(entry: Entry, selection: str | None) -> dict[str, Predictions]:
    """An entry's predictions by split, where hyperparameters were chosen on `selection`; of several heads, their mean.

    Raises StoreError if an image is there twice, or not once for each head.
    """
    import pyarrow.compute as pc  # those who write alone do without

    table = pq.read_table(entry.file(PREDICTIONS))
    if "selection" in table.column_names:  # entries with one selection alone need not name it
        table = table.filter(pc.equal(table["selection"], selection))
    splits = pc.unique(table["split"]).to_pylist()
    return {split: _of_split(table.filter(pc.equal(table["split"], split)), entry, split) for split in splits}


def _of_split(table: pa.Table, entry: Entry, split: str) -> Predictions:
    import pyarrow.compute as pc

    heads = pc.count_distinct(table["head_seed"]).as_py() if "head_seed" in table.column_names else 1
    table = table.sort_by("index")
    index, labels, predicted = (table[name].to_numpy().astype(np.int64) for name in ("index", "label", "prediction"))
    images, first, counts = np.unique(index, return_index=True, return_counts=True)
    if (counts != heads).any():
        raise StoreError(
            f"{entry.path}: {PREDICTIONS} has a {split} image twice, or not once for each head; make the entry again"
        )
    correct = np.add.reduceat((labels == predicted).astype(np.float64), first) / heads
    return Predictions(images, labels[first], correct)
