"""Evaluation: how well a backbone classifies the source's test images, clean and attacked.

    python -m robust_transfer evaluation store/evaluation/<entry>

Reads its inputs `backbone` and `source`. Writes `metrics.json`: accuracy on clean images, under PGD at every eps, and
where asked for under AutoAttack (Croce and Hein 2020, the standard version) on some of the images.
The network computes at the precision it was trained at, which its card names: on 1,000 CIFAR-10 images a resnet8_w16
had 39.9 % clean and 32.5 % under PGD in bf16, and 39.5 and 32.7 in fp32, which takes twice as long.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robust_transfer import randomness
from robust_transfer.attacks import Starts, Threat, attacked, pgd, threat_model
from robust_transfer.configuration.training import Attack, EvaluationSettings, Norm, Precision
from robust_transfer.datasets.arrow import Split, open_split
from robust_transfer.datasets.resident import square_blocks, square_images
from robust_transfer.loading.augmentation import as_images
from robust_transfer.machine.devices import autocast, prepare
from robust_transfer.networks.backbones import load_backbone
from robust_transfer.networks.build import Network
from robust_transfer.networks.folding import Folded
from robust_transfer.statistics.metrics import measurements
from robust_transfer.store.entry import Entry, StoreError
from robust_transfer.training.inference import BATCH, classify, predict
from robust_transfer.weights.outputs import other_classes, outputs_for

log = logging.getLogger("robust_transfer")


def run(entry: Entry, *, threads: int, device: str) -> None:
    """Evaluate the backbone that `entry` names."""
    settings = EvaluationSettings.model_validate(entry.settings)
    if settings.autoattack:
        _library()
    backbone, source = entry.input("backbone"), entry.input("source")
    with entry.writing() as draft:
        facts, split = backbone.facts(), open_split(source, "test")
        on = prepare(device, threads, facts["precision"])
        truth = outputs_of(backbone, source, split.classes)[split.labels]
        precision: Precision = facts["precision"]
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


def described(attack: Attack, norm: Norm, eps: str, precision: Precision) -> dict[str, Any]:
    """Everything about PGD that decides the accuracy under it: two attacks that differ have different labels."""
    return {
        "norm": norm,
        "eps": eps,
        "steps": attack.steps,
        "relative_step_size": round(attack.step_size, 6),
        "random_start": attack.random_start,
        "restarts": attack.restarts,
        "use_best": attack.use_best,
        "precision": precision,
    }


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


def attacked_predictions(
    network: Network,
    pixels: Tensor,
    labels: Tensor,
    clean: NDArray[np.int64],
    threat: Threat,
    attack: Attack,
    seed: int,
    precision: Precision,
    *,
    numbers: Tensor | None = None,
) -> NDArray[np.int64]:
    """The classes (int64 [N]) that images (uint8 [N, S, S, 3]) are taken for once PGD has perturbed them.

    `numbers` (int64 [N]) are the images' numbers, by which random starts are drawn; by default 0 to N - 1.

    Images whose `clean` prediction (int64 [N]) is wrong are lost without an attack, and keep it: an image withstands
    where neither it nor its perturbed copy is misclassified.
    """
    folded = Folded(network.eval())
    predictions = torch.from_numpy(clean).to(labels.device, copy=True)
    correct = torch.nonzero(predictions == labels).flatten()
    if not len(correct):  # torch.split would give one empty batch
        return clean
    for indices in torch.split(correct, BATCH):
        images = as_images(pixels[indices])
        starts = Starts(seed, 0, indices if numbers is None else numbers[indices])
        with autocast(precision, images.device):
            images = pgd(folded, images, labels[indices], threat, attack, starts)
        predictions[indices] = classify(network, images, precision)
    found: NDArray[np.int64] = predictions.cpu().numpy()
    return found


def drawn(n: int, wanted: int | None, seed: int) -> Tensor:
    """The numbers of `wanted` of n images, in order: int64. More of the same seed hold those of fewer; None: all."""
    return randomness.order(seed, 0, n)[: wanted or n].sort().values


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
        attack = {
            "norm": settings.norm,
            "eps": eps,
            "steps": None,
            "restarts": 1,
            "kind": "autoattack",
            "precision": precision,
        }
        measured = measurements(truth, found, network.classes, split="test", attack=attack)
        log.info(
            "accuracy under AutoAttack within %s %s: %.1f %% of %d images",
            settings.norm, eps, measured[0]["value"], len(truth),
        )  # fmt: skip
        rows += measured
    return rows


def autoattacked_predictions(
    network: Network,
    pixels: Tensor,
    labels: Tensor,
    clean: NDArray[np.int64],
    threat: Threat,
    seed: int,
    precision: Precision,
) -> NDArray[np.int64]:
    """As `attacked_predictions`, by the standard version of AutoAttack: APGD on cross-entropy, targeted APGD and FAB
    against the nine most probable classes, and 5,000 queries of Square, each on what withstood those before.

    With fewer than ten classes all the others are targets. The loss of targeted APGD needs four: with fewer it is left
    out. Seeds torch's global random state. Raises StoreError without the library.
    """
    predictions = torch.from_numpy(clean).to(labels.device, copy=True)
    correct = torch.nonzero(predictions == labels).flatten()
    if not len(correct):
        return clean

    def logits(images: Tensor) -> Tensor:
        # The library views gradients as vectors. Through a flat tensor they come back in the layout that permits it.
        images = images.flatten(1).view(images.shape).contiguous(memory_format=torch.channels_last)
        with autocast(precision, images.device):
            found: Tensor = network(images)
        return found.float()

    norm = {"l2": "L2", "linf": "Linf"}[threat.norm]
    adversary = _library().AutoAttack(logits, norm=norm, eps=threat.eps, seed=seed, device=labels.device)
    adversary.fab.n_target_classes = adversary.apgd_targeted.n_target_classes = min(9, network.classes - 1)
    if network.classes < 4:
        adversary.attacks_to_run.remove("apgd-t")
    with attacked(network):
        images = as_images(pixels[correct]).contiguous()
        _, found = adversary.run_standard_evaluation(images, labels[correct], batch_size=BATCH)
    predictions[correct] = found
    result: NDArray[np.int64] = predictions.cpu().numpy()
    return result


def _library() -> Any:
    """The optional package that AutoAttack comes in."""
    try:
        return importlib.import_module("pyautoattack")
    except ModuleNotFoundError:
        raise StoreError(
            "autoattack: true needs the library pyautoattack, which is not installed: run `make setup EXTRAS=attacks`"
        ) from None
