"""What a trained network says of images: predictions in batches, in eval mode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robust_transfer.augmentation import as_images
from robust_transfer.configuration.training import Precision
from robust_transfer.devices import autocast

BATCH = 256
"""Images a forward pass."""


@torch.no_grad()
def classify(network: nn.Module, images: Tensor, precision: Precision) -> Tensor:
    """The most probable class, int64 [B], of images float [B, 3, S, S] in [0, 1], in the mode the network is in."""
    with autocast(precision, images.device):
        logits: Tensor = network(images)
    return logits.float().argmax(1)


def predict(network: nn.Module, pixels: Tensor, precision: Precision) -> NDArray[np.int64]:
    """The most probable class of each image (uint8 [N, S, S, 3]): int64 [N]; of H parallel heads [N, H].

    Puts the network in eval mode.
    """
    network.eval()
    found = [classify(network, as_images(part), precision) for part in torch.split(pixels, BATCH)]
    predictions: NDArray[np.int64] = torch.cat(found).cpu().numpy()
    return predictions


def predictions_table(
    split: str,
    indices: NDArray[np.int64],
    labels: NDArray[np.int64],
    predictions: NDArray[np.int64],
    **of: int,
) -> pa.Table:
    """One split's part of `predictions.parquet`: a row for each image, `indices` its row where it is stored.

    `of` adds columns with one number throughout: `run`, `head_seed`.
    """
    columns = {"index": indices, "label": labels, "prediction": predictions}
    columns |= {name: np.full(len(labels), value) for name, value in of.items()}
    arrays = {name: pa.array(values, pa.int32()) for name, values in columns.items()}
    return pa.table({"split": pa.array([split] * len(labels), pa.string()), **arrays})


def write_predictions(path: Path, tables: list[pa.Table]) -> None:
    """Write the parts, one after the other, as parquet."""
    pq.write_table(pa.concat_tables(tables), path)
