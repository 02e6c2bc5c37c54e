"""Predictions of a trained network, in batches."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robust_transfer.configuration.training import Precision
from robust_transfer.loading.augmentation import as_images
from robust_transfer.machine.devices import autocast
from robust_transfer.networks.build import Network

BATCH = 256
"""Images per forward pass: large enough to fill a GPU, and their activations fit into its memory without gradients."""


@torch.no_grad()
def classify(network: Network, images: Tensor, precision: Precision) -> Tensor:
    """The most probable class, int64 [B], of images float [B, 3, S, S] in [0, 1], in the network's current mode.

    The body computes in `precision`, the head always in float32.
    """
    with autocast(precision, images.device):
        logits = network.logits(images)
    return logits.argmax(1)


def predict(network: Network, pixels: Tensor, precision: Precision) -> NDArray[np.int64]:
    """The most probable class of each image (uint8 [N, S, S, 3]): int64 [N]; of H parallel heads [N, H].

    Puts the network in eval mode.
    """
    network.eval()
    classes = [classify(network, as_images(batch), precision) for batch in torch.split(pixels, BATCH)]
    predictions: NDArray[np.int64] = torch.cat(classes).cpu().numpy()
    return predictions
