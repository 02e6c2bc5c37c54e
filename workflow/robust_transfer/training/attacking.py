"""Classifiers under attack: PGD and AutoAttack on test images, for backbones and for transferred models alike."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robust_transfer import randomness
from robust_transfer.attacks import Starts, Threat, attacked, pgd
from robust_transfer.configuration.training import Attack, Norm, Precision
from robust_transfer.loading.augmentation import as_images
from robust_transfer.machine.devices import autocast
from robust_transfer.networks.build import Network
from robust_transfer.networks.folding import Folded
from robust_transfer.store.entry import StoreError
from robust_transfer.training.inference import BATCH, classify


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


def described_autoattack(norm: Norm, eps: str, precision: Precision) -> dict[str, Any]:
    """The same of AutoAttack, whose standard version has no settings."""
    return {"norm": norm, "eps": eps, "steps": None, "restarts": 1, "kind": "autoattack", "precision": precision}


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

    `numbers` are those of the images in their split, int64 [N], by which random starts are drawn; None: 0, 1, …

    Images whose `clean` prediction (int64 [N]) is wrong are lost without an attack, and keep it: an image withstands
    where neither it nor its perturbed copy is misclassified.
    """
    folded = Folded(network.eval(), fp32_head=True)
    predictions = torch.from_numpy(clean).to(labels.device, copy=True)
    correct = torch.nonzero(predictions == labels).flatten()
    if not len(correct):  # torch.split would give one empty batch
        return clean
    numbers = (torch.arange(len(labels)) if numbers is None else numbers).to(correct.device)
    for indices in torch.split(correct, BATCH):
        images = as_images(pixels[indices])
        with autocast(precision, images.device):
            images = pgd(folded, images, labels[indices], threat, attack, Starts(seed, 0, numbers[indices]))
        predictions[indices] = classify(network, images, precision)
    found: NDArray[np.int64] = predictions.cpu().numpy()
    return found


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
            return network.logits(images)

    norm = {"l2": "L2", "linf": "Linf"}[threat.norm]
    adversary = library().AutoAttack(logits, norm=norm, eps=threat.eps, seed=seed, device=labels.device)
    adversary.fab.n_target_classes = adversary.apgd_targeted.n_target_classes = min(9, network.classes - 1)
    if network.classes < 4:
        adversary.attacks_to_run.remove("apgd-t")
    with attacked(network):
        images = as_images(pixels[correct]).contiguous()
        _, found = adversary.run_standard_evaluation(images, labels[correct], batch_size=BATCH)
    predictions[correct] = found
    result: NDArray[np.int64] = predictions.cpu().numpy()
    return result


def drawn(n: int, wanted: int | None, seed: int) -> Tensor:
    """The numbers of `wanted` of n images, in order: int64. More of the same seed hold those of fewer; None: all."""
    return randomness.order(seed, 0, n)[: wanted or n].sort().values


def library() -> Any:
    """The optional package that AutoAttack comes in. Raises StoreError without it."""
    try:
        return importlib.import_module("pyautoattack")
    except ModuleNotFoundError:
        raise StoreError(
            "autoattack: true needs the library pyautoattack, which is not installed: run `make setup EXTRAS=attacks`"
        ) from None
