"""Training: one flat loop over images that are resident on the device, for pretraining and fine-tuning alike."""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robust_transfer import randomness
from robust_transfer.attacks import Starts, Threat, pgd
from robust_transfer.augmentation import Augmenter
from robust_transfer.configuration.training import Attack, Recipe
from robust_transfer.devices import autocast, peak_memory_mb
from robust_transfer.networks.build import Network
from robust_transfer.networks.folding import Folded
from robust_transfer.sgd import SGD

log = logging.getLogger("robust_transfer")

SPEAK_EVERY = 10.0
"""Seconds between the live lines within an epoch."""


class TrainingError(RuntimeError):
    """Training went wrong in a way that more epochs do not mend; the message says what to change."""


class Perturb(Protocol):
    """What an adversary does to a batch before the network learns from it."""

    def __call__(self, images: Tensor, labels: Tensor, epoch: int, indices: Tensor) -> Tensor:
        """Images float [B, 3, H, W] in [0, 1] and what is known of them, to images of the same shape and range."""


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to. Loss and accuracy are those of the training batches, perturbed if they were."""

    epoch: int
    loss: float
    train_accuracy: float
    """Percent."""
    learning_rate: float
    """At the epoch's last step."""
    images: int
    """Seen in the epoch."""
    seconds: float
    images_per_second: float
    peak_memory_mb: float


# What `epochs.csv` has of it: the same settings give the same file, and so the same card. Its cost is in `timing.json`.
RESULT = ("epoch", "loss", "train_accuracy", "learning_rate")
COST = ("epoch", "seconds", "images_per_second", "peak_memory_mb")


class Adversary:
    """Perturbs every batch by PGD against the network as it is at that step; a Perturb."""

    def __init__(self, network: Network, threat: Threat, attack: Attack, seed: int) -> None:
        self._network, self._threat, self._attack, self._seed = network, threat, attack, seed
        self._folded: Folded | None = None

    def __call__(self, images: Tensor, labels: Tensor, epoch: int, indices: Tensor) -> Tensor:
        """As Perturb."""
        if self._folded is None:  # not before training has put the network in its place and memory format
            self._folded = Folded(self._network)
        self._folded.refresh()
        return pgd(self._folded, images, labels, self._threat, self._attack, Starts(self._seed, epoch, indices))


def fit(
    network: Network,
    pixels: Tensor,
    labels: Tensor,
    recipe: Recipe,
    *,
    input_size: int,
    seed: int,
    learning_rate: float | None = None,
    perturb: Perturb | None = None,
) -> list[Epoch]:
    """Train `network` in place by SGD; returns what each epoch came to.

    `pixels` (uint8 [N, side, side, 3], from `augmentation.resident_images`) and `labels` (int64 [N]) are on the
    network's device. `learning_rate` stands in for the recipe's. Order, augmentation and perturbation depend on `seed`,
    the epoch and the number of an image alone. Raises TrainingError when the loss is not finite.
    """
    device = pixels.device
    network.train().to(memory_format=torch.channels_last)
    augmenter = Augmenter(pixels, recipe.augmentation, input_size, seed)
    peak = learning_rate or recipe.learning_rate
    optimiser = SGD(
        network.parameters(), momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov
    )
    sizes = batch_sizes(len(pixels), recipe.batch_size, recipe.batchnorm_group)
    live = _Live(recipe.epochs, sum(sizes))
    rows, step = [], 0
    for epoch in range(recipe.epochs):
        order = randomness.order(seed, epoch, len(pixels)).to(device)[: sum(sizes)]
        loss_sum, right = torch.zeros((), device=device), torch.zeros((), device=device)
        live.start_epoch(epoch)
        for indices in torch.split(order, sizes):
            rate = learning_rate_at(recipe, peak, step, len(sizes))
            images, targets = augmenter.batch(indices, epoch), labels[indices]
            with autocast(recipe.precision, device):
                if perturb is not None:
                    images = perturb(images, targets, epoch, indices)
            optimiser.zero_grad()
            for part, part_targets in groups(network, images, targets, recipe.batchnorm_group):
                with autocast(recipe.precision, device):
                    logits = network(part).float()
                loss = F.cross_entropy(logits, part_targets, label_smoothing=recipe.label_smoothing, reduction="sum")
                torch.autograd.backward(loss / len(indices))
                loss_sum += loss.detach()
                right += (logits.detach().argmax(1) == part_targets).sum()
            optimiser.step(rate)
            step += 1
            if live.due(len(indices)):
                live.speak(_finite(loss_sum, step, rate), right)
        rows.append(live.end_epoch(_finite(loss_sum, step, rate), right, rate, peak_memory_mb(device)))
    return rows


def learning_rate_at(recipe: Recipe, peak: float, step: int, steps_an_epoch: int) -> float:
    """The learning rate of a step, counted from 0 over all epochs; see `Recipe.schedule`. Never 0."""
    total = recipe.epochs * steps_an_epoch
    if recipe.schedule == "step":
        return peak / recipe.step_factor ** (step // steps_an_epoch // recipe.step_epochs)
    if recipe.schedule == "cosine":
        return peak * (1 + math.cos(math.pi * step / total)) / 2
    warmup = recipe.warmup_fraction * total
    up = (step + 1) / warmup if warmup else 1.0
    return peak * min(up, (total - step) / (total - warmup), 1.0)


def batch_sizes(n: int, batch_size: int, group: int | None) -> list[int]:
    """Sizes of an epoch's batches of n images: full ones, then what is left.

    BatchNorm needs two images: a single one at the end, of the epoch or of its last group, is left out, another in
    every epoch. Raises TrainingError if nothing remains.
    """
    full, rest = divmod(n, batch_size)
    if rest % (group or batch_size) == 1 and batch_size > 1:
        rest -= 1
    sizes = [batch_size] * full + [rest] * (rest > 0)
    if not sizes:
        raise TrainingError(f"{n} training images: BatchNorm needs at least two in a batch")
    return sizes


def groups(network: nn.Module, images: Tensor, labels: Tensor, group: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """A batch in the groups over which BatchNorm takes its statistics, one after the other.

    Over the batch, running statistics move once, towards the mean of its groups' statistics: the same whatever the
    order of the groups and whichever process has seen them.
    """
    if group is None or len(images) <= group:
        yield images, labels
        return
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    parts = list(zip(torch.split(images, group), torch.split(labels, group), strict=True))
    try:
        for number, part in enumerate(parts, start=1):
            for norm, momentum in zip(norms, momenta, strict=True):
                # Of k parts, these weights leave momentum / k for each and 1 - momentum for what was before.
                norm.momentum = momentum and momentum / (len(parts) - (len(parts) - number) * momentum)
            yield part
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def write_epochs(path: Path, epochs: list[Epoch]) -> None:
    """Write what the epochs came to as CSV with a header: epoch, loss, train_accuracy, learning_rate."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(RESULT)
        writer.writerows([getattr(epoch, name) for name in RESULT] for epoch in epochs)


def cost(epochs: list[Epoch]) -> dict[str, Any]:
    """What `timing.json` says of a training: images, each counted every time it was seen, and by epoch what it took."""
    images, seconds = sum(epoch.images for epoch in epochs), sum(epoch.seconds for epoch in epochs)
    by_epoch = [{name: getattr(epoch, name) for name in COST} for epoch in epochs]
    return {"images": images, "images_per_second": round(images / seconds, 1), "epochs": by_epoch}


def _finite(loss_sum: Tensor, step: int, rate: float) -> float:
    loss = float(loss_sum)  # waits for a GPU to catch up, so it is asked for when something is said, not every step
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss} at step {step}, learning rate {rate:.3g}: training diverged; "
            "lower training.learning_rate, lengthen warmup_fraction, or train in precision: fp32"
        )
    return loss


class _Live:
    """What the terminal and the log are told while training runs."""

    def __init__(self, epochs: int, images_an_epoch: int) -> None:
        self._epochs, self._images = epochs, images_an_epoch
        self._begun = time.monotonic()

    def start_epoch(self, epoch: int) -> None:
        self._epoch, self._seen = epoch, 0
        self._start = self._spoken = time.monotonic()

    def due(self, images: int) -> bool:
        """Count a batch; is it time for a line?"""
        self._seen += images
        return time.monotonic() - self._spoken >= SPEAK_EVERY and self._seen < self._images

    def speak(self, loss: float, right: Tensor) -> None:
        now = time.monotonic()
        done = self._epoch * self._images + self._seen
        left = (now - self._begun) / done * (self._epochs * self._images - done)
        of_epoch = f" ({100 * self._seen // self._images} %)" if self._seen < self._images else ""
        log.info(
            "epoch %d/%d%s  loss %.3f  accuracy %.1f %%  %.0f images/s  %s left",
            self._epoch + 1, self._epochs, of_epoch, loss / self._seen, 100 * float(right) / self._seen,
            self._seen / (now - self._start), _span(left),
        )  # fmt: skip
        self._spoken = now

    def end_epoch(self, loss: float, right: Tensor, rate: float, memory: float) -> Epoch:
        self.speak(loss, right)
        seconds = time.monotonic() - self._start
        return Epoch(
            epoch=self._epoch + 1,
            loss=round(loss / self._seen, 6),
            train_accuracy=round(100 * float(right) / self._seen, 4),
            learning_rate=rate,
            images=self._seen,
            images_per_second=round(self._seen / seconds, 1),
            seconds=round(seconds, 3),
            peak_memory_mb=memory,
        )


def _span(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
