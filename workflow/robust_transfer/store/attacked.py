"""`attacked.parquet`: what transferred models took every attacked image for.

One row per image, model and attack: `model` (entry of the transfer), `attack` (canonical JSON, as in the results
table), `split`, `index` (row in that split's stored file), `label` and `prediction`. A file of its own, so that nothing
that reads `predictions.parquet` takes attacked images for clean ones.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from robust_transfer.statistics.predictions import Predictions
from robust_transfer.store.entry import Entry
from robust_transfer.store.features import strings
from robust_transfer.store.predictions import predictions_table

ATTACKED = "attacked.parquet"


def attacked_table(
    model: str, attack: str, indices: NDArray[np.int64], labels: NDArray[np.int64], predictions: NDArray[np.int64]
) -> pa.Table:
    """The rows of one model under one attack on some test images; all arrays are [N]."""
    table = predictions_table("test", indices, labels, predictions)
    for name, value in (("attack", attack), ("model", model)):
        table = table.add_column(0, name, strings([value] * len(labels)))
    return table


def read_attacked(entry: Entry, model: str) -> dict[str, Predictions]:
    """What one model took the test images for, by attack."""
    import pyarrow.compute as pc  # those who write alone do without

    table = pq.read_table(entry.file(ATTACKED))
    table = table.filter(pc.equal(table["model"], model))
    found = {}
    for attack in pc.unique(table["attack"]).to_pylist():
        rows = table.filter(pc.equal(table["attack"], attack))
        index, labels, predicted = (rows[name].to_numpy().astype(np.int64) for name in ("index", "label", "prediction"))
        found[str(attack)] = Predictions(index, labels, (labels == predicted).astype(np.float64))
    return found
