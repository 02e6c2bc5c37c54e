"""What a trained network says of images: predictions in batches, in eval mode."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robust_transfer.configuration.training import Precision
from robust_transfer.loading.augmentation import as_images
from robust_transfer.machine.devices import autocast

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
