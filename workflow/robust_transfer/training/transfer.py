"""Training on a target, as heads and fine-tuning share it: which images, how they are normalised, what is predicted."""

from __future__ import annotations

import logging
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robust_transfer.configuration.datasets import Statistics
from robust_transfer.configuration.running import running
from robust_transfer.configuration.transfer import FinetuningSettings, LinearHeadsSettings
from robust_transfer.datasets.arrow import entry_splits, open_split
from robust_transfer.datasets.resident import square_blocks
from robust_transfer.datasets.splits import few_mask, validation_mask
from robust_transfer.loading.loader import Subset, open_loader
from robust_transfer.networks.backbones import load_backbone
from robust_transfer.networks.build import Network, Normalise
from robust_transfer.resuming.states import states_of
from robust_transfer.store.entry import Entry, StoreError
from robust_transfer.training.inference import predict
from robust_transfer.training.loop import fit
from robust_transfer.training.progress import Epoch
from robust_transfer.training.sgd import SGD

log = logging.getLogger("robust_transfer")


def parts(dataset: Entry, settings: LinearHeadsSettings | FinetuningSettings) -> tuple[list[Subset], Subset]:
    """What a run trains on, and what it measures on.

    A search run measures on validation images: the dataset's official ones where it has some, else
    `validation_fraction` of each class's training images, the same for every run of one seed. Other runs train on them
    too, and measure on the test images. Where `images_per_class` limits the training images, validation images are
    always among these: who has few images has no official validation set beside them.
    """
    training = _whole(dataset, "train")
    official = _whole(dataset, "validation") if "validation" in entry_splits(dataset) else None
    if settings.images_per_class:
        mask = few_mask(training.labels, settings.images_per_class, settings.seed)
        training, official = Subset(training.split, np.flatnonzero(mask)), None
    if settings.purpose != "search":
        return [training, official] if official else [training], _whole(dataset, "test")
    if official:
        return [training], official
    mask = validation_mask(training.labels, settings.validation_fraction, settings.seed)
    if not mask.any():
        raise StoreError(f"{dataset.path}: no class has two training images, so none can be set aside to choose on")
    return [Subset(training.split, training.indices[~mask])], Subset(training.split, training.indices[mask])


def load_network(backbone: Entry, statistics: Statistics | None) -> tuple[Network, int]:
    """A backbone and its input's side in pixels; images are normalised by `statistics`, if given, from now on."""
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
    optimiser: SGD | None = None,
    threads: int,
    device: str,
) -> tuple[list[Epoch], list[dict[str, Any]]]:
    """Train `network` in place, going on from the entry's last state; what the epochs came to, and what a state that
    was taken up differed in."""
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
        epochs = fit(
            network,
            loader,
            settings.training,
            input_size=input_size,
            seed=settings.seed,
            learning_rate=learning_rate,
            optimiser=optimiser,
            states=states,
        )
        return epochs, states.resumed


def predicted(
    network: Network,
    measured_on: Subset,
    settings: LinearHeadsSettings | FinetuningSettings,
    *,
    input_size: int,
    threads: int,
) -> NDArray[np.int64]:
    """The most probable class of each image, int64 [N]; of H parallel heads [N, H]. Puts the network in eval mode."""
    split, indices, ratio, found = measured_on.split, measured_on.indices, settings.preprocessing.resize_ratio, []
    for _, squares in square_blocks(split, input_size, ratio, indices=indices, threads=threads):
        pixels = torch.from_numpy(squares).to(network.head.weight.device)
        found.append(predict(network, pixels, settings.training.precision))
    return np.concatenate(found)


def _whole(dataset: Entry, name: str) -> Subset:
    split = open_split(dataset, name)
    return Subset(split, np.arange(len(split)))
