"""Pretraining: a backbone from scratch on the source, adversarially where eps is above 0.

    python -m robust_transfer pretraining store/pretraining/<entry>

Reads the training images of its input `source`. Writes `weights.safetensors` (the last epoch's) and `epochs.csv`.
One core of an AMD EPYC (Zen 4) trains a resnet8_w16 at 32 px in bf16 on 470 images a second under PGD with two steps,
on 1,230 without an attack; in fp32 on 284 and 839.
"""

from __future__ import annotations

import logging

import torch

from robust_transfer.attacks import threat_model
from robust_transfer.augmentation import resident_images
from robust_transfer.configuration.training import PretrainingSettings
from robust_transfer.datasets.arrow import open_split
from robust_transfer.devices import prepare
from robust_transfer.networks.backbones import WEIGHTS, save_weights
from robust_transfer.networks.build import build
from robust_transfer.store import Entry
from robust_transfer.training import Adversary, cost, fit, write_epochs

log = logging.getLogger("robust_transfer")


def run(entry: Entry, *, threads: int, device: str) -> None:
    """Train the backbone that `entry` describes."""
    settings = PretrainingSettings.model_validate(entry.settings)
    recipe, on = settings.training, prepare(device, threads)
    source = entry.input("source")
    with entry.writing() as draft:
        split = open_split(source, "train")
        ratio = settings.preprocessing.resize_ratio
        pixels = resident_images(split, recipe.augmentation, settings.input_size, ratio, threads=threads).to(on)
        labels = torch.tensor(split.labels, device=on)
        network = build(settings.architecture, len(split.classes), seed=settings.seed).to(on)
        log.info(
            "%s, %s parameters; %d images at %d px, %d classes",
            *(settings.architecture, f"{network.parameters_n:,}", len(labels), settings.input_size, network.classes),
        )
        perturb = None
        if settings.norm and settings.attack:
            perturb = Adversary(network, threat_model(settings.norm, settings.eps), settings.attack, settings.seed)
        epochs = fit(
            network, pixels, labels, recipe, input_size=settings.input_size, seed=settings.seed, perturb=perturb
        )
        facts = {
            "architecture": settings.architecture,
            "classes": list(split.classes),
            "input_size": settings.input_size,
            "norm": settings.norm,
            "eps": settings.eps,
            "precision": recipe.precision,
        }
        save_weights(draft.file(WEIGHTS), network, facts)
        write_epochs(draft.file("epochs.csv"), epochs)
        draft.facts = facts | {"parameters": network.parameters_n, "source": source.name}
        draft.timing.update(cost(epochs), device=device, threads=threads)
