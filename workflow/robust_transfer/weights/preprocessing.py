"""How whoever published a network prepares images for it, and what of that is another thing here.

Mean and std become the network's own, so that they are honoured. Images are resized by antialiased bilinear
interpolation to `preprocessing.resize_ratio` times the experiment's `input_size`, whatever the network was published
with: what differs is said in the log and the card.
"""

from __future__ import annotations

from typing import Any

import torch

from robust_transfer.configuration.catalogue.models import Preprocessing
from robust_transfer.configuration.weights import (
    AresWeights,
    ImportingSettings,
    RobustBenchWeights,
    TimmWeights,
    TorchvisionWeights,
    published_model,
    timm_weights,
)
from robust_transfer.networks.build import Network


def published_preprocessing(settings: ImportingSettings) -> Preprocessing | None:
    """What is known of the images that a network is published for; None where nothing is."""
    weights = settings.weights
    if isinstance(weights, RobustBenchWeights | AresWeights):
        return published_model(weights).preprocessing
    if isinstance(weights, TimmWeights):
        return _timm(timm_weights(weights, settings.architecture))
    if isinstance(weights, TorchvisionWeights):
        return _torchvision(settings.architecture, weights.weights)
    return None


def normalise_by(network: Network, preprocessing: Preprocessing) -> None:
    """Give a network mean and std."""
    network.normalise.mean.copy_(torch.tensor(preprocessing.mean).view(1, -1, 1, 1))
    network.normalise.std.copy_(torch.tensor(preprocessing.std).view(1, -1, 1, 1))


def _timm(name: str) -> Preprocessing:
    import timm

    config: Any = timm.get_pretrained_cfg(name)
    side = config.input_size[-1]
    return Preprocessing(
        tuple(config.mean), tuple(config.std), side, int(side / config.crop_pct), str(config.interpolation)
    )


def _torchvision(architecture: str, name: str) -> Preprocessing:
    from torchvision.models import get_model_weights

    transforms: Any = get_model_weights(architecture)[name].transforms()
    return Preprocessing(
        tuple(transforms.mean),
        tuple(transforms.std),
        int(transforms.crop_size[0]),
        int(transforms.resize_size[0]),
        str(transforms.interpolation.value),
    )
