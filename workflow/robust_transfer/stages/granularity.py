"""Derive a dataset with less detail: every image downscaled, so that only what is visible at that size is left.

    python -m robust_transfer granularity store/granularity/<entry>

Reads the entry's input `dataset`, writes the same splits with the same labels in the same order. The released code
resized to 32 pixels on the short side in front of its ordinary transforms; here the small images are stored,
losslessly, and the ordinary transform enlarges them. With `smaller: enlarge` the pixels are the released code's for
every image; by default those below the size stay as they are.

On one core of a Xeon (2026), to 12 px: about 18,000 raw images of 32 px or 3,200 encoded ones of 64 px a second.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from robust_transfer.configuration.datasets import GranularitySettings
from robust_transfer.datasets.arrow import Split, entry_splits, open_split
from robust_transfer.datasets.images import stored_size, to_store
from robust_transfer.datasets.storing import Item, Stream, in_order, raw_shape, store_splits
from robust_transfer.store.entry import Entry

log = logging.getLogger("robust_transfer")

# Facts that a derived dataset has of its own; all others carry over.
OWN = ("counts", "shape", "short_side", "encoding", "checksums")


def run(entry: Entry, *, threads: int, device: str) -> None:
    """Downscale every image to short side `size` by antialiased bilinear interpolation; `smaller` ones as set."""
    settings = GranularitySettings.model_validate(entry.settings)
    size, enlarge = settings.size, settings.smaller == "enlarge"
    dataset = entry.input("dataset")
    splits = {name: open_split(dataset, name) for name in entry_splits(dataset)}
    with entry.writing() as draft:
        sizes = [split.size(i) for split in splits.values() for i in range(len(split))]
        shape = raw_shape(stored_size(*one, size, enlarge=enlarge) for one in sizes)
        streams = {
            name: Stream(len(split), _downscaled(split, size, enlarge, shape is not None, threads))
            for name, split in splits.items()
        }
        classes = next(iter(splits.values())).classes
        stored = store_splits(draft, classes, shape, streams, name=entry.name)
        draft.timing.update(device="cpu", threads=threads)
        draft.facts = {**dataset.facts(), **{key: stored[key] for key in OWN}, "downscaled_to": size}
    log.info(
        "%s: %d images at short side %d%s",
        entry.name,
        sum(stored["counts"].values()),
        size,
        "" if enlarge else " or less",
    )


def _downscaled(split: Split, size: int, enlarge: bool, raw: bool, threads: int) -> Iterator[Item]:
    def downscale(index: int) -> Item:
        image, height, width = to_store(split.stored(index), side=size, exif_rotation=False, raw=raw, enlarge=enlarge)
        return Item(image, int(split.labels[index]), (height, width))

    return in_order(downscale, range(len(split)), threads)
