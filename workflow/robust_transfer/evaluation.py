"""Evaluation: how well a backbone classifies the source's test images, clean and attacked.

    python -m robust_transfer evaluation store/evaluation/<entry>

Reads its inputs `backbone` and `source`. Writes `metrics.json`: accuracy on clean images and under PGD at every eps.
The network computes at the precision it was trained at, which its card names: on 1,000 CIFAR-10 images a resnet8_w16
had 39.9 % clean and 32.5 % under PGD in bf16, and 39.5 and 32.7 in fp32, which takes twice as long.
"""

from __future__ import annotations

import logging
import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robust_transfer.attacks import Starts, Threat, pgd, threat_model
from robust_transfer.augmentation import as_images
from robust_transfer.configuration.training import Attack, EvaluationSettings, Precision
from robust_transfer.datasets.arrow import open_split
from robust_transfer.datasets.resident import square_images
from robust_transfer.devices import autocast, prepare
from robust_transfer.inference import BATCH, classify, predict
from robust_transfer.metrics import measurements
from robust_transfer.networks.backbones import load_backbone
from robust_transfer.networks.build import Network
from robust_transfer.networks.folding import Folded
from robust_transfer.store import Entry, StoreError

log = logging.getLogger("robust_transfer")


def run(entry: Entry, *, threads: int, device: str) -> None:
    """Evaluate the backbone that `entry` names."""
    settings = EvaluationSettings.model_validate(entry.settings)
    on = prepare(device, threads)
    backbone, source = entry.input("backbone"), entry.input("source")
    with entry.writing() as draft:
        facts, split = backbone.facts(), open_split(source, "test")
        if facts["classes"] != list(split.classes):
            raise StoreError(
                f"{backbone.path}: its {len(facts['classes'])} classes are not the {len(split.classes)} of "
                f"{source.path}; a backbone is evaluated on the dataset it was trained on"
            )
        precision: Precision = facts["precision"]
        network = load_backbone(backbone).to(on).to(memory_format=torch.channels_last)
        squares = square_images(split, facts["input_size"], settings.preprocessing.resize_ratio, threads=threads)
        pixels, labels = torch.from_numpy(squares).to(on), torch.tensor(split.labels, device=on)
        start = time.monotonic()
        clean = predict(network, pixels, precision)
        rows = measurements(split.labels, clean, network.classes, split="test")
        log.info("accuracy %.1f %%", rows[0]["value"])
        for eps in settings.eps:
            threat = threat_model(settings.norm, eps)
            found = attacked_predictions(
                network, pixels, labels, clean, threat, settings.attack, settings.seed, precision
            )
            attack = {
                "norm": settings.norm,
                "eps": eps,
                "steps": settings.attack.steps,
                "restarts": settings.attack.restarts,
            }
            attacked = measurements(split.labels, found, network.classes, split="test", attack=attack)
            log.info("accuracy under PGD within %s %s: %.1f %%", settings.norm, eps, attacked[0]["value"])
            rows += attacked
        images = len(labels) * (1 + len(settings.eps))
        rate = images / (time.monotonic() - start)
        draft.write_json("metrics.json", rows)
        draft.facts = {"backbone": backbone.name, "images": len(labels), "precision": precision}
        draft.timing.update(images=images, images_per_second=round(rate, 1), device=device, threads=threads)


def attacked_predictions(
    network: Network,
    pixels: Tensor,
    labels: Tensor,
    clean: NDArray[np.int64],
    threat: Threat,
    attack: Attack,
    seed: int,
    precision: Precision,
) -> NDArray[np.int64]:
    """The classes (int64 [N]) that images (uint8 [N, S, S, 3]) are taken for once PGD has perturbed them.

    Images whose `clean` prediction (int64 [N]) is wrong are lost without an attack, and keep it: an image withstands
    where neither it nor its perturbed copy is misclassified.
    """
    folded = Folded(network.eval())
    predictions = torch.from_numpy(clean).to(labels.device, copy=True)
    for indices in torch.split(torch.nonzero(predictions == labels).flatten(), BATCH):
        images = as_images(pixels[indices])
        with autocast(precision, images.device):
            images = pgd(folded, images, labels[indices], threat, attack, Starts(seed, 0, indices))
        predictions[indices] = classify(network, images, precision)
    found: NDArray[np.int64] = predictions.cpu().numpy()
    return found
