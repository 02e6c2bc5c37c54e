"""Features: activations of a frozen backbone, before its head or at a layer, for every image of a dataset.

    python -m robust_transfer features store/features/<entry>

Reads its inputs `backbone` and `dataset`. Writes `train.arrow`, `test.arrow` and, where the dataset has one,
`validation.arrow` (format in `feature_store`). The network is in eval mode: BatchNorm uses the statistics of
pretraining, and an image's features do not depend on the images beside it.

It can be stopped at any time: SIGTERM, SIGUSR1, Ctrl-C and `--stop-before` save the rows that are done (`shards`) and
exit with code 75; the same command goes on after them, to the same bits, since batches are cut at the same images.
Memory does not grow with the dataset.

On one core of an AMD EPYC resnet8_w16 gives 4,100 images/s of 32 pixels in bf16, as many as its forward pass alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robust_transfer.configuration.running import running
from robust_transfer.configuration.training import Recipe
from robust_transfer.configuration.transfer import FeaturesSettings
from robust_transfer.datasets.arrow import Split, entry_splits, open_split
from robust_transfer.loading.loader import Subset, open_loader
from robust_transfer.machine.devices import autocast, device_name, prepare
from robust_transfer.networks.backbones import load_backbone
from robust_transfer.networks.layers import Activations, activations, layer_named
from robust_transfer.resuming.interruption import Interruption
from robust_transfer.resuming.shards import Shards
from robust_transfer.store.entry import Entry, refused
from robust_transfer.store.features import Features, origin, write_features

RESIDENT_MB = 256
"""Splits up to this size, as pixels, are decoded as a whole, which is over sooner than workers are started; larger ones
while the network computes."""
BATCH_PIXELS = 2**22
"""Pixels a forward pass, within 16 to 256 images: 256 images of 32 pixels, 83 of 224."""

log = logging.getLogger("robust_transfer")


class FeatureError(ValueError):
    """Features that cannot be stored; the message names the image and the fix."""


def run(entry: Entry, *, threads: int, device: str) -> None:
    """Extract the features that `entry` describes. Raises Interrupted if it was asked to leave before it was done."""
    settings, how = FeaturesSettings.model_validate(entry.settings), running()
    on = prepare(device, threads, settings.precision)
    backbone, dataset = entry.input("backbone"), entry.input("dataset")
    network = load_backbone(backbone).to(device=on, memory_format=torch.channels_last)  # type: ignore[call-overload]
    input_size = int(backbone.facts()["input_size"])
    layer = layer_named(network, settings.layer, input_size) if settings.layer else None
    dimension = layer.dimension if layer else network.head.in_features
    read = activations(network, layer)
    splits = {name: open_split(dataset, name) for name in entry_splits(dataset)}
    setting = {"torch": str(torch.__version__), "device": device_name(device), "threads": threads}
    with (
        entry.writing() as draft,
        Interruption(how.deadline) as interruption,
        Shards(
            entry,
            dtype=settings.dtype,
            dimension=dimension,
            every=how.save_seconds,
            interruption=interruption,
            setting=setting,
        ) as shards,
    ):
        start, before = time.monotonic(), {name: shards.done(name) for name in splits}
        for name, split in splits.items():
            where = f"{dataset.name}, {name}"
            found = extract(split, read, settings, input_size, first=before[name], on=on, threads=threads, where=where)
            with closing(found):
                for features in found:
                    shards.add(name, features)
        shards.save_rest()
        counts = {name: len(split) for name, split in splits.items()}
        rate = (sum(counts.values()) - sum(before.values())) / (time.monotonic() - start)
        for name, split in splits.items():
            _write(draft.file(f"{name}.arrow"), shards.all(name, len(split)), split)
        draft.facts = {
            "dimension": dimension,
            "counts": counts,
            "classes": list(split.classes),
            "input_size": input_size,
            "origin": origin(entry),
        }
        if shards.resumed:
            draft.facts["resumed"] = shards.resumed
        draft.timing.update(
            images=sum(counts.values()), images_per_second=round(rate, 1), device=device, threads=threads
        )
    log.info(
        "%d features of %s images at %d px, %.0f images/s",
        dimension,
        f"{sum(counts.values()):,}",
        input_size,
        rate,
    )


def extract(
    split: Split,
    read: Activations,
    settings: FeaturesSettings,
    input_size: int,
    *,
    first: int,
    on: torch.device,
    threads: int,
    where: str,
) -> Generator[Features]:
    """Features [n, D] in `settings.dtype` of a split's images from number `first` on, batch by batch.

    `first` is where a batch ends. Raises as `computed` does, and StoreError if an image cannot be read.
    """
    if first == len(split):
        return
    part, size, how = Subset(split, np.arange(first, len(split))), batch_size(input_size), running()
    loader = open_loader(
        [part],
        Recipe(augmentation="none", batch_size=size),
        input_size=input_size,
        resize_ratio=settings.preprocessing.resize_ratio,
        seed=0,
        device=on,
        threads=threads,
        running=how.model_copy(update={"resident_mb": min(how.resident_mb, RESIDENT_MB)}),
    )
    with closing(loader):
        batches = loader.batches(0, torch.split(torch.arange(len(part)), size), input_size)
        yield from computed(read, batches, settings, first=first, where=where)


def batch_size(input_size: int) -> int:
    """Images a forward pass."""
    return min(256, max(16, BATCH_PIXELS // input_size**2))


def computed(
    read: Activations, batches: Iterable[Tensor], settings: FeaturesSettings, *, first: int = 0, where: str = "images"
) -> Iterator[Features]:
    """Features [n, D] in `settings.dtype` of batches of images, float [n, 3, S, S] in [0, 1], on the network's device.

    Raises FeatureError, which says `where` and at which image, for features that are not finite or too large for the
    dtype. Images are counted from `first`.
    """
    dtype, waiting = np.dtype(settings.dtype), None
    for batch in chain(batches, [None]):
        ahead = None
        if batch is not None:
            with torch.inference_mode(), autocast(settings.precision, batch.device):
                ahead = read(batch)
        if waiting is not None:  # fetched once the next batch is on its way, so that a GPU need not wait
            features = waiting.cpu().numpy()
            _check(features, dtype, where, first)
            first += len(features)
            yield features.astype(dtype)
        waiting = ahead


def _check(features: NDArray[np.float32], dtype: np.dtype[Any], where: str, first: int) -> None:
    largest = np.abs(features).max(1)  # not a number if one of them is
    wrong = ~(largest <= np.finfo(dtype).max)
    if wrong.any():
        row = int(np.argmax(wrong))
        if np.isfinite(largest[row]):
            raise FeatureError(
                f"{where}: image {first + row} has a feature of size {largest[row]:g}, more than {dtype} holds "
                f"({np.finfo(dtype).max:g}); set features.dtype: float32"
            )
        raise FeatureError(
            f"{where}: image {first + row} has features that are not finite; the backbone's weights are damaged or its "
            "training diverged, or features.precision: bf16 overflows where fp32 does not"
        )


def _write(path: Path, features: Features, split: Split) -> None:
    try:
        write_features(path, features, split.labels)
    except OSError as error:
        raise refused(path, features.nbytes, error) from error
