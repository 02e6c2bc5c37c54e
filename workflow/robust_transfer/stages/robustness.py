"""Robustness: how transferred models withstand attacks, network and head as one, on test images of their targets.

    python -m robust_transfer robustness store/robustness/<entry>

Reads its inputs `model0`, …, transfers of one backbone (probing, finetuning, or selecting), and what their weights come
from (`training/transferred.py`). On test images that are the same for every network it attacks each model as stage
`evaluation` attacks backbones: PGD at every radius, and where asked for AutoAttack. An image that is misclassified
before an attack is lost. Models compute at the precision they were measured at, heads that were fitted or trained on
frozen features in float32.

Writes `metrics.json` (rows name their `model`; the attack of kind `none` is accuracy on the same images as they are)
and `attacked.parquet`. It can be stopped at any time, saves the batches that are done, and goes on after them. Three
probes of a resnet8_w16, 200 images of 24 pixels each under PGD of ten steps, take 5 s of one core of an Intel Xeon,
half of them to import torch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robust_transfer.attacks import threat_model
from robust_transfer.configuration.robustness import RobustnessSettings
from robust_transfer.configuration.running import running
from robust_transfer.configuration.training import Precision
from robust_transfer.datasets.arrow import Split, open_split
from robust_transfer.datasets.resident import square_blocks
from robust_transfer.machine.devices import device_name, prepare
from robust_transfer.networks.build import Network
from robust_transfer.resuming.interruption import Interruption
from robust_transfer.resuming.shards import Shards
from robust_transfer.statistics.metrics import measurements
from robust_transfer.store.attacked import ATTACKED, attacked_table
from robust_transfer.store.entry import Entry
from robust_transfer.store.predictions import write_predictions
from robust_transfer.tables.key import canonical
from robust_transfer.training.attacking import (
    attacked_predictions,
    autoattacked_predictions,
    described,
    described_autoattack,
    drawn,
    library,
)
from robust_transfer.training.inference import BATCH, predict
from robust_transfer.training.transferred import Transferred, load_transferred

log = logging.getLogger("robust_transfer")


def run(entry: Entry, *, threads: int, device: str) -> None:
    """Attack the models that `entry` names. Raises Interrupted if it was asked to leave before it was done."""
    settings, how = RobustnessSettings.model_validate(entry.settings), running()
    if settings.autoattack:
        library()
    attacks = 1 + len(settings.eps) * (1 + settings.autoattack)
    setting = {"torch": str(torch.__version__), "device": device_name(device), "threads": threads}
    rows: list[dict[str, Any]] = []
    tables, images, start = [], 0, time.monotonic()
    with (
        entry.writing() as draft,
        Interruption(how.deadline) as interruption,
        Shards(
            entry, dtype="int32", dimension=attacks, every=how.save_seconds, interruption=interruption, setting=setting
        ) as shards,
    ):
        for role, name in models_of(entry).items():
            model = load_transferred(entry.input(role), settings.selection)
            on = prepare(device, threads, model.precision)
            model.network.to(device=on, memory_format=torch.channels_last)  # type: ignore[call-overload]
            split = open_split(model.dataset, "test")
            chosen = drawn(len(split), settings.images, settings.seed).numpy()
            first = shards.done(role)
            for found in attacked_batches(model, split, chosen[first:], settings, threads):
                shards.add(role, found)
                images += len(found) * attacks
            labels, labelled = split.labels[chosen], labels_of(settings, model.precision)
            for attack, predictions in zip(labelled, shards.all(role, len(chosen)).T.astype(np.int64), strict=True):
                measured = measurements(
                    labels, predictions, len(model.classes), split="test", selection=settings.selection, attack=attack,
                    hyperparameters=model.hyperparameters,
                )  # fmt: skip
                rows += [{**row, "model": name} for row in measured]
                tables.append(attacked_table(name, canonical(attack), chosen, labels, predictions))
                _report(name, attack, measured[0])
        shards.save_rest()
        draft.write_json("metrics.json", rows)
        write_predictions(draft.file(ATTACKED), tables)
        draft.facts = {"backbone": entry.input("backbone").name, "models": list(models_of(entry).values())}
        if shards.resumed:
            draft.facts["resumed"] = shards.resumed
        rate = images / (time.monotonic() - start)
        draft.timing.update(images=images, images_per_second=round(rate, 1), device=device, threads=threads)


def models_of(entry: Entry) -> dict[str, str]:
    """The transfers whose models are attacked, by role, as paths below the store."""
    return {role: name for role, name in entry.inputs.items() if role.startswith("model")}


def labels_of(settings: RobustnessSettings, precision: Precision) -> list[dict[str, Any]]:
    """What each column of the predictions is of: the images as they are, then every attack."""
    unattacked = {"kind": "none", "norm": settings.norm, "eps": "0", "precision": precision}
    by_pgd = [described(settings.attack, settings.norm, eps, precision) for eps in settings.eps]
    by_autoattack = [described_autoattack(settings.norm, eps, precision) for eps in settings.eps]
    return [unattacked, *by_pgd, *(by_autoattack if settings.autoattack else [])]


def attacked_batches(
    model: Transferred, split: Split, numbers: NDArray[np.int64], settings: RobustnessSettings, threads: int
) -> Iterator[NDArray[np.int32]]:
    """What a model takes some images of a split for, batch by batch: [n, attacks], in the order of `labels_of`."""
    device = model.network.head.weight.device
    for here, squares in square_blocks(split, model.input_size, model.resize_ratio, indices=numbers, threads=threads):
        for pixels, batch in zip(_batches(squares), _batches(numbers[here]), strict=True):
            truth = torch.from_numpy(split.labels[batch.numpy()].astype(np.int64)).to(device)
            if model.is_diverged:  # its logits are constant: nothing changes what it says
                clean = predict(model.network, pixels.to(device), model.precision)
                found = [clean] * len(labels_of(settings, model.precision))
            else:
                found = attacked_batch(model.network, pixels.to(device), truth, batch, settings, model.precision)
            yield np.stack(found, 1).astype(np.int32)


def _batches(array: NDArray[Any]) -> tuple[Tensor, ...]:
    return torch.from_numpy(array).split(BATCH)  # type: ignore[no-untyped-call, no-any-return]


def attacked_batch(
    network: Network,
    pixels: Tensor,
    truth: Tensor,
    numbers: Tensor,
    settings: RobustnessSettings,
    precision: Precision,
) -> list[NDArray[np.int64]]:
    """What a network takes images for, an array [N] for each of `labels_of`.

    Args:
        network: Images float [N, 3, S, S] in [0, 1] to logits [N, classes].
        pixels: uint8 [N, S, S, 3].
        truth: Their classes, int64 [N].
        numbers: Of the images in their split, by which random starts are drawn: int64 [N].
        settings: Attacks and their radii.
        precision: Of the network.
    """
    clean = predict(network, pixels, precision)
    threats = [threat_model(settings.norm, eps) for eps in settings.eps]
    found = [clean]
    for threat in threats:
        found.append(
            attacked_predictions(
                network, pixels, truth, clean, threat, settings.attack, settings.seed, precision, numbers=numbers
            )
        )
    for threat in threats if settings.autoattack else ():
        found.append(autoattacked_predictions(network, pixels, truth, clean, threat, settings.seed, precision))
    return found


def _report(model: str, attack: dict[str, Any], row: dict[str, Any]) -> None:
    by = {"none": "clean", "autoattack": "under AutoAttack"}.get(attack.get("kind", ""), "under PGD")
    within = "" if attack["eps"] == "0" else f" within {attack['norm']} {attack['eps']}"
    log.info("%s: accuracy %s%s %.1f %% of %d images", model, by, within, row["value"], row["n"])
