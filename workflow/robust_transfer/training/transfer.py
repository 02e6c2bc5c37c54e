"""Training on a target, shared by linear heads and fine-tuning: images, normalisation, training and predictions."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from robust_transfer.attacks import Threat, threat_model
from robust_transfer.configuration.adversarial import ChoosingAttack
from robust_transfer.configuration.datasets import Statistics
from robust_transfer.configuration.running import running
from robust_transfer.configuration.transfer import FinetuningSettings, LinearHeadsSettings
from robust_transfer.datasets.arrow import entry_splits, open_split
from robust_transfer.datasets.resident import square_blocks
from robust_transfer.datasets.splits import few_images, validation_mask
from robust_transfer.loading.loader import Subset, open_loader
from robust_transfer.networks.backbones import WEIGHTS, load_backbone, save_weights
from robust_transfer.networks.build import Network, Normalise
from robust_transfer.networks.parallel_heads import unwrap_body
from robust_transfer.resuming.states import states_of
from robust_transfer.statistics.metrics import measurements
from robust_transfer.store.entry import Draft, Entry, StoreError
from robust_transfer.tables.flags import flag
from robust_transfer.training.attacking import attacked_predictions, described
from robust_transfer.training.divergence import DivergedError, FiniteSteps, unsound_heads
from robust_transfer.training.inference import predict
from robust_transfer.training.loop import Adversary, fit
from robust_transfer.training.optimiser import Optimiser
from robust_transfer.training.progress import Epoch

log = logging.getLogger("robust_transfer")


@dataclass(frozen=True)
class Trained:
    """What a training left beside its weights."""

    epochs: list[Epoch]
    """Those that were finished."""
    resumed: list[dict[str, Any]]
    """How trainings that it resumed from differed from this one (`States.resumed`)."""
    diverged_at: list[int | None]
    """For each head the step, from 1, since which its loss was not finite; None where it always was."""

    @property
    def is_lost(self) -> bool:
        """Whether every head diverged, so that training stopped."""
        return None not in self.diverged_at


def parts(dataset: Entry, settings: LinearHeadsSettings | FinetuningSettings) -> tuple[list[Subset], Subset]:
    """The subsets that a run trains on, and the one that it measures on.

    A search run measures on validation images: the dataset's official ones if it has any, else `validation_fraction` of
    each class's training images, the same for all runs with one seed. A fixed run does so too, and is tested besides
    (`test_images`). Other runs train on these too, and measure on the test images. With few images validation
    images are always taken from the limited training images, since whoever has only a few images has no official
    validation set besides.

    Raises StoreError if validation images are to be taken from classes of a single image.
    """
    training = _whole(dataset, "train")
    official = _whole(dataset, "validation") if "validation" in entry_splits(dataset) else None
    few = few_images(training.labels, settings.images_per_class, settings.training_images, settings.seed)
    if few is not None:
        training, official = Subset(training.split, few), None
    if settings.purpose not in ("search", "fixed"):
        return [training, official] if official else [training], test_images(dataset)
    if official:
        return [training], official
    mask = validation_mask(training.labels, settings.validation_fraction, settings.seed)
    if not mask.any():
        raise StoreError(
            f"{dataset.path}: no class has two training images, so none can be set aside to choose on; add training "
            "images, or an official validation split (val/)"
        )
    return [Subset(training.split, training.indices[~mask])], Subset(training.split, training.indices[mask])


def test_images(dataset: Entry) -> Subset:
    """All test images."""
    return _whole(dataset, "test")


def load_network(backbone: Entry, statistics: Statistics | None) -> tuple[Network, int]:
    """A backbone in eval mode and its input size in pixels; `statistics`, if given, replace its normalisation."""
    network = load_backbone(backbone)
    if statistics:
        network.normalise = Normalise(statistics.mean, statistics.std)
    return network, int(backbone.facts()["input_size"])


def train(
    entry: Entry,
    network: Network,
    trained_on: list[Subset],
    settings: LinearHeadsSettings | FinetuningSettings,
    *,
    input_size: int,
    learning_rate: float,
    optimiser: Optimiser | None = None,
    threads: int,
    device: str,
) -> Trained:
    """Train `network` in place, from the entry's last state if there is one; adversarially if the settings say so.

    Where every head diverges, training stops, and the network is of no use.

    Args:
        entry: Entry that is made, whose lock the caller holds.
        network: On the device.
        trained_on: Training images.
        settings: Recipe, preprocessing and seed.
        input_size: Side of the network's input, pixels.
        learning_rate: Peak learning rate.
        optimiser: Optimiser in place of the recipe's.
        threads: CPU threads, and by default workers.
        device: `cpu` or `cuda`.
    """
    with ExitStack() as stack:
        loader = stack.enter_context(
            closing(
                open_loader(
                    trained_on,
                    settings.training,
                    input_size=input_size,
                    resize_ratio=settings.preprocessing.resize_ratio,
                    seed=settings.seed,
                    device=network.head.weight.device,
                    threads=threads,
                    running=running(),
                )
            )
        )
        log.info("%d images of %d classes at learning rate %g", len(loader.labels), network.classes, learning_rate)
        states = stack.enter_context(states_of(entry, device=device, threads=threads))
        finite = FiniteSteps(network.head.weight.shape[:-2], network.head.weight.device)
        try:
            epochs = fit(
                network,
                loader,
                settings.training,
                input_size=input_size,
                seed=settings.seed,
                learning_rate=learning_rate,
                optimiser=optimiser,
                perturb=adversary(network, settings, input_size),
                states=states,
                finite=finite,
            )
        except DivergedError as error:
            return Trained(error.epochs, states.resumed, finite.diverged_at())
        last = [finite.steps if unsound else None for unsound in unsound_heads(network)]
        diverged = [step or at_last for step, at_last in zip(finite.diverged_at(), last, strict=True)]
        return Trained(epochs, states.resumed, diverged)


def adversary(
    network: Network, settings: LinearHeadsSettings | FinetuningSettings, input_size: int
) -> Adversary | None:
    """The adversary of a training on a target, which is that of pretraining; None for standard training."""
    attack = settings.attack
    if attack is None:
        return None
    ramp = (attack.ramp_start, attack.ramp_end)
    return Adversary(network, threat_model(attack.norm, attack.eps), attack, settings.seed, input_size, ramp)


def predicted(
    network: Network,
    measured_on: Subset,
    settings: LinearHeadsSettings | FinetuningSettings,
    *,
    input_size: int,
    threads: int,
) -> NDArray[np.int64]:
    """The most probable class of each image, int64 [N]; of H parallel heads [N, H]. Puts the network in eval mode."""
    split, indices, ratio = measured_on.split, measured_on.indices, settings.preprocessing.resize_ratio
    predictions = []
    for _, squares in square_blocks(split, input_size, ratio, indices=indices, threads=threads):
        pixels = torch.from_numpy(squares).to(network.head.weight.device)
        predictions.append(predict(network, pixels, settings.training.precision))
    return np.concatenate(predictions)


def attacked_rows(
    network: Network,
    heads: Sequence[nn.Linear],
    measured_on: Subset,
    clean: NDArray[np.int64],
    settings: LinearHeadsSettings | FinetuningSettings,
    hyperparameters: dict[str, Any],
    *,
    input_size: int,
    threads: int,
) -> list[dict[str, Any]]:
    """Rows of `metrics.json`: accuracy on validation images under the attack that hyperparameters are chosen by.

    `clean` are the predictions by H heads, which differ in their seed alone, of the images as they are: int64 [H, N].
    Each head is attacked by itself, on `network`, and the mean is measured. Puts the network in eval mode. No rows for
    a run that is not measured so.
    """
    under = settings.chosen_under
    if under is None or settings.purpose != "search":
        return []
    found: dict[str, list[NDArray[np.int64]]] = {eps: [] for eps in under.eps if eps != "0"}
    before = network.head
    for head, of_head in zip(heads, clean, strict=True):
        network.head = head
        for eps, parts_of in found.items():
            threat = threat_model(under.norm, eps)
            parts_of.append(_attacked(network, measured_on, of_head, threat, settings, under, input_size, threads))
    network.head = before
    rows = []
    for eps, predictions in found.items():
        attack = described(under, under.norm, eps, settings.training.precision)
        rows += measurements(
            measured_on.labels, np.stack(predictions), network.classes,
            split="validation", attack=attack, hyperparameters=hyperparameters,
        )  # fmt: skip
        log.info("validation accuracy under PGD within %s %s: %.1f %%", under.norm, eps, rows[-2]["value"])
    return rows


def _attacked(
    network: Network,
    measured_on: Subset,
    clean: NDArray[np.int64],
    threat: Threat,
    settings: LinearHeadsSettings | FinetuningSettings,
    under: ChoosingAttack,
    input_size: int,
    threads: int,
) -> NDArray[np.int64]:
    split, indices, ratio = measured_on.split, measured_on.indices, settings.preprocessing.resize_ratio
    labels, device = torch.from_numpy(measured_on.labels), network.head.weight.device
    found = []
    for here, squares in square_blocks(split, input_size, ratio, indices=indices, threads=threads):
        found.append(
            attacked_predictions(
                network, torch.from_numpy(squares).to(device), labels[here].to(device), clean[here], threat, under,
                settings.seed, settings.training.precision, numbers=torch.from_numpy(indices[here]),
            )
        )  # fmt: skip
    return np.concatenate(found)


def diverged_facts(diverged: list[dict[str, Any]], *, is_candidate: bool) -> dict[str, Any]:
    """What a card says of runs that diverged: their hyperparameters, each with the `step` since which the loss was not
    finite; with the flag of candidates to choose among, if they are such. Empty where none did. Logs a warning."""
    if not diverged:
        return {}
    said = "; ".join(
        ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in one.items()) for one in diverged
    )
    log.warning("diverged, and guess: runs at %s", said)
    facts: dict[str, Any] = {"diverged": diverged}
    if is_candidate:
        facts["flags"] = [flag("candidate-diverged", f"the loss was not finite at {said}").as_json()]
    return facts


def keep_network(draft: Draft, network: Network, classes: tuple[str, ...], input_size: int) -> None:
    """Keep a trained network, or one with parallel heads, among an entry's outputs, and say in its card what it is."""
    facts = {"architecture": network.architecture, "classes": list(classes), "input_size": input_size}
    unwrap_body(network)
    save_weights(draft.file(WEIGHTS), network, facts)
    draft.facts |= facts


def _whole(dataset: Entry, name: str) -> Subset:
    split = open_split(dataset, name)
    return Subset(split, np.arange(len(split)))
