"""A tiny training: a few images of three classes, a network of a few thousand weights, a second on one core."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from robust_transfer.attacks import Threat
from robust_transfer.configuration.running import Running
from robust_transfer.configuration.training import Attack, PretrainingSettings, Recipe
from robust_transfer.datasets.arrow import open_split
from robust_transfer.loading.loader import Loader, Subset, open_loader
from robust_transfer.networks.build import Network, build
from robust_transfer.training.loop import Adversary, fit
from robust_transfer.training.progress import Epoch
from torch import Tensor

from support.prepared_datasets import squares, written

SIDE, CLASSES = 16, 3
"""Of the images that `squares` makes."""


def loader_of(
    pixels: Tensor, labels: Tensor, recipe: Recipe, *, seed: int = 0, input_size: int = SIDE, **running: Any
) -> Loader:
    """A loader of images at hand.

    Args:
        pixels: uint8 [n, side, side, 3].
        labels: int64 [n].
        recipe: Its augmentation and batch size count.
        seed: Of the augmentation.
        input_size: Side of what it yields.
        running: Settings under `running`.
    """
    with tempfile.TemporaryDirectory() as folder:  # what is mapped stays
        entry = written(Path(folder), list(pixels.numpy()), labels.tolist())
        return open_loader(
            [Subset(open_split(entry, "train"), np.arange(len(labels)))],
            recipe,
            input_size=input_size,
            resize_ratio=1.0,
            seed=seed,
            device=torch.device("cpu"),
            threads=1,
            running=Running(**running),
        )


def pretraining_settings(training: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Settings of a robust pretraining of a network of a few weights, with these settings of training."""
    return PretrainingSettings.model_validate(
        {
            "architecture": "resnet8_w4",
            "input_size": SIDE,
            "preprocessing": {"resize_ratio": 1.0},
            "norm": "l2",
            "eps": "0.5",
            "seed": 0,
            "recipe": "test",
            "training": training,
            "attack": {"steps": 2, "random_start": True},
            "check": {"images": 6, "steps": 2},
            **changes,
        }
    ).model_dump(mode="json")


def short_recipe(**changes: Any) -> Recipe:
    """A recipe of two epochs of cropped and mirrored images in batches of ten, changed where `changes` says so."""
    settings = {"epochs": 2, "batch_size": 10, "learning_rate": 0.05, "augmentation": "crop-flip", **changes}
    return Recipe.model_validate(settings)


def trained(
    recipe: Recipe | None = None,
    *,
    seed: int = 0,
    threat: Threat | None = None,
    images: tuple[Tensor, Tensor] | None = None,
    **options: Any,
) -> tuple[Network, list[Epoch]]:
    """A network after `fit`, and its epochs.

    Args:
        recipe: By default `short_recipe()`.
        seed: Of the initial weights, the order, the augmentation and the attack.
        threat: What it is trained against, by two steps of PGD from random starts; None for standard training.
        images: Pixels and labels; by default `squares()`.
        options: More arguments of `fit`.
    """
    recipe = recipe or short_recipe()
    network = build("resnet8_w4", CLASSES, seed=seed)
    attack = Attack(steps=2, random_start=True)
    perturb = Adversary(network, threat, attack, seed, SIDE, fp32_head=recipe.fp32_head) if threat else None
    pixels, labels = images or squares()
    loader = loader_of(pixels, labels, recipe, seed=seed)
    return network, fit(network, loader, recipe, input_size=SIDE, seed=seed, perturb=perturb, **options)


def augmented(pixels: Tensor) -> Tensor:
    """Images float [n, 3, side, side] in [0, 1] of pixels uint8 [n, side, side, 3]."""
    return pixels.permute(0, 3, 1, 2) / 255
