"""Pretraining: a backbone from scratch on the source, adversarially where eps is above 0.

    python -m robust_transfer pretraining store/pretraining/<entry>

Reads the training images of its input `source`. Writes `weights.safetensors` (the last epoch's) and `epochs.csv`.
"""

from __future__ import annotations

import logging

import torch

from robust_transfer.attacks import threat_model
from robust_transfer.augmentation import resident_side
from robust_transfer.configuration.training import PretrainingSettings
from robust_transfer.datasets.arrow import open_split
from robust_transfer.datasets.resident import square_images
from robust_transfer.devices import prepare
from robust_transfer.networks.backbones import WEIGHTS, save_weights
from robust_transfer.networks.build import build
from robust_transfer.store import Entry
from robust_transfer.training import Adversary, fit, write_epochs

log = logging.getLogger("robust_transfer")


def run(entry: Entry, *, threads: int, device: str) -> None:
    """Train the backbone that `entry` describes."""
    settings = PretrainingSettings.model_validate(entry.settings)
    on = prepare(device, threads)
    source = entry.input("source")
    split = open_split(source, "train")
    side = resident_side(settings.training.augmentation, settings.input_size)
    pixels = torch.from_numpy(square_images(split, side, settings.preprocessing.resize_ratio, threads=threads)).to(on)
    labels = torch.tensor(split.labels, device=on)
    network = build(settings.architecture, len(split.classes), seed=settings.seed).to(on)
    perturb = None
    if settings.norm and settings.attack:
        perturb = Adversary(threat_model(settings.norm, settings.eps), settings.attack, settings.seed)
    log.info(
        "%s: %s parameters, %d images of %s at %d px, %d classes",
        entry.name, f"{network.parameters_n:,}", len(labels), source.name, settings.input_size, len(split.classes),
    )  # fmt: skip
    with entry.writing() as draft:
        rows = fit(
            network, pixels, labels, settings.training, input_size=settings.input_size, seed=settings.seed,
            perturb=perturb,
        )  # fmt: skip
        facts = {
            "architecture": settings.architecture,
            "classes": list(split.classes),
            "input_size": settings.input_size,
            "norm": settings.norm,
            "eps": settings.eps,
        }
        save_weights(draft.file(WEIGHTS), network, facts)
        write_epochs(draft.file("epochs.csv"), rows)
        draft.facts = facts | {"parameters": network.parameters_n, "source": source.name}
        draft.timing.update(
            images=len(rows) * len(labels),
            images_per_second=round(len(rows) * len(labels) / sum(row.seconds for row in rows), 1),
            device=device,
            threads=threads,
        )
