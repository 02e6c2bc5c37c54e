"""Evaluation: how well a backbone classifies the source's test images, clean and attacked.

    python -m robust_transfer evaluation store/evaluation/<entry>

Reads its inputs `backbone` and `source`. Writes `metrics.json`: accuracy on clean images, under PGD at every eps, and
where asked for under AutoAttack (Croce and Hein 2020, the standard version) on some of the images.
The network's body computes at `evaluation.precision`, by default what it was trained at; its head always in float32. On
1,000 CIFAR-10 images a resnet8_w16 had 39.9 % clean and 32.5 % under PGD in bf16, head included, and 39.5 and 32.7 in
fp32, which takes twice as long on a CPU. docs/method.md has the differences of the default experiment.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robust_transfer.attacks import threat_model
from robust_transfer.configuration.training import EvaluationSettings, Precision
from robust_transfer.datasets.arrow import Split, open_split
from robust_transfer.datasets.resident import square_blocks, square_images
from robust_transfer.machine.devices import prepare
from robust_transfer.networks.backbones import load_backbone
from robust_transfer.networks.build import Network
from robust_transfer.statistics.metrics import measurements
from robust_transfer.store.entry import Entry, StoreError
from robust_transfer.training.attacking import (
    attacked_predictions,
    autoattacked_predictions,
    described,
    described_autoattack,
    drawn,
    library,
)
from robust_transfer.training.inference import BATCH, predict
from robust_transfer.weights.outputs import other_classes, outputs_for

log = logging.getLogger("robust_transfer")


def run(entry: Entry, *, threads: int, device: str) -> None:
    """Evaluate the backbone that `entry` names."""
    settings = EvaluationSettings.model_validate(entry.settings)
    if settings.autoattack:
        library()
    backbone, source = entry.input("backbone"), entry.input("source")
    with entry.writing() as draft:
        facts, split = backbone.facts(), open_split(source, "test")
        precision: Precision = settings.precision or facts["precision"]
        on = prepare(device, threads, precision)
        truth = outputs_of(backbone, source, split.classes)[split.labels]
        network = load_backbone(backbone).to(on).to(memory_format=torch.channels_last)
        size, ratio = facts["input_size"], settings.preprocessing.resize_ratio
        start = time.monotonic()
        clean, under = _predicted(network, split, truth, settings, precision, size, threads)
        rows = measurements(truth, clean, network.classes, split="test")
        log.info("accuracy %.1f %%", rows[0]["value"])
        for eps, found in under.items():
            attack = described(settings.attack, settings.norm, eps, precision)
            measured = measurements(truth, found, network.classes, split="test", attack=attack)
            log.info("accuracy under PGD within %s %s: %.1f %%", settings.norm, eps, measured[0]["value"])
            rows += measured
        images = len(truth) * (1 + len(settings.eps))
        rate = images / (time.monotonic() - start)
        if settings.autoattack:
            start = time.monotonic()
            chosen = drawn(len(truth), settings.autoattack_images, settings.seed).numpy()
            pixels = torch.from_numpy(square_images(split, size, ratio, indices=chosen, threads=threads)).to(on)
            labels = torch.from_numpy(truth[chosen]).to(on)
            rows += _under_autoattack(network, pixels, labels, clean[chosen], settings, precision)
            draft.timing["autoattack_seconds"] = round(time.monotonic() - start, 1)
        draft.write_json("metrics.json", rows)
        draft.facts = {"backbone": backbone.name, "images": len(truth), "precision": precision}
        if "published_top1" in facts:
            log.info("published accuracy %.2f %%", facts["published_top1"])
        draft.timing.update(images=images, images_per_second=round(rate, 1), device=device, threads=threads)


def outputs_of(backbone: Entry, source: Entry, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """The output of the backbone that stands for each of the source's classes: int64 [classes].

    `weights/outputs.py` says which. Raises StoreError for a backbone that was trained on other classes.
    """
    known: list[str] = backbone.facts()["classes"]
    outputs = outputs_for(known, classes, imported="imported" in backbone.facts())
    if outputs is None:
        raise StoreError(other_classes(str(backbone.path), len(known), str(source.path), len(classes)))
    if len(classes) < len(known):
        log.info("%s has %d of the %d classes of the network", source.name, len(classes), len(known))
    elif known != list(classes):
        log.info("outputs are taken for the classes of %s in their order, since all names differ", source.name)
    return np.array(outputs)


def _predicted(
    network: Network,
    split: Split,
    truth: NDArray[np.int64],
    settings: EvaluationSettings,
    precision: Precision,
    input_size: int,
    threads: int,
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """What the images of a split are taken for, int64 [N]: as they are, and by eps under PGD."""
    device = next(network.parameters()).device
    ratio = settings.preprocessing.resize_ratio
    clean = np.empty(len(truth), np.int64)

    def right() -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        for here, squares in square_blocks(split, input_size, ratio, threads=threads):
            pixels = torch.from_numpy(squares).to(device)
            clean[here] = predict(network, pixels, precision)
            chosen = np.flatnonzero(clean[here] == truth[here])
            yield here.start + chosen, pixels[torch.from_numpy(chosen).to(device)]
            if len(squares) < len(truth):
                log.info("%d of %d images", here.stop, len(truth))

    parts: list[NDArray[np.int64]] = []
    attacked_parts: dict[str, list[NDArray[np.int64]]] = {eps: [] for eps in settings.eps}
    for numbers, pixels in in_whole_batches(right()):
        parts.append(numbers)
        labels, places = (torch.from_numpy(values).to(device) for values in (truth[numbers], numbers))
        for eps, found in attacked_parts.items():
            threat = threat_model(settings.norm, eps)
            found.append(
                attacked_predictions(
                    network, pixels, labels, truth[numbers], threat, settings.attack, settings.seed, precision,
                    numbers=places,
                )
            )  # fmt: skip
    under = {eps: clean.copy() for eps in settings.eps}
    for eps, found in attacked_parts.items():
        for numbers, predictions in zip(parts, found, strict=True):
            under[eps][numbers] = predictions
    return clean, under


def in_whole_batches(
    blocks: Iterable[tuple[NDArray[np.int64], Tensor]],
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """The images of blocks, with their numbers, in multiples of BATCH but for the last: [n] and [n, …] each.

    What fills no batch waits for the next block, since a GPU chooses its kernels anew for every size of a batch.
    """
    left: list[tuple[NDArray[np.int64], Tensor]] = []
    for block in blocks:
        left.append(block)
        numbers, images = np.concatenate([part for part, _ in left]), torch.cat([part for _, part in left])
        ready = len(numbers) - len(numbers) % BATCH
        if ready:
            yield numbers[:ready], images[:ready]
        left = [(numbers[ready:], images[ready:].clone())]  # a view would keep the block in memory
    if left and len(left[0][0]):
        yield left[0]


def _under_autoattack(
    network: Network,
    pixels: Tensor,
    labels: Tensor,
    clean: NDArray[np.int64],
    settings: EvaluationSettings,
    precision: Precision,
) -> list[dict[str, Any]]:
    """Rows of accuracy under AutoAttack at every eps."""
    rows, truth = [], labels.cpu().numpy()
    for eps in settings.eps:
        threat = threat_model(settings.norm, eps)
        found = autoattacked_predictions(network, pixels, labels, clean, threat, settings.seed, precision)
        attack = described_autoattack(settings.norm, eps, precision)
        measured = measurements(truth, found, network.classes, split="test", attack=attack)
        log.info(
            "accuracy under AutoAttack within %s %s: %.1f %% of %d images",
            settings.norm, eps, measured[0]["value"], len(truth),
        )  # fmt: skip
        rows += measured
    return rows
