"""Stylize a dataset: every image keeps its shapes and its label, and gets other textures.

    python -m robust_transfer stylizing store/stylizing/<entry>

Reads its input `dataset` and, where the styles are another dataset's, `styles`. Writes the same splits with the same
labels in the same order, losslessly, and `samples.png`: some test images, what became of them, and the images that gave
the styles. Which style an image gets is a function of (seed, split, image) (`stylization/styles.py`). Methods: `phase`
and `adain` take the centre squares of images at the network's size (`stylization/phase.py`, `adain.py`);
`texture-swap` has the built-in generator draw its images again with the gratings of other classes.

It can be stopped at any time: SIGTERM, SIGUSR1, Ctrl-C and `--stop-before` save the images that are done (`shards`)
and exit with code 75; the same command goes on after them, to the same bits. Until it ends, they take 3·side² bytes
each.

On one core of a Xeon (2026), `phase` stylizes about 3,400 encoded images of 64 pixels a second at 32.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from robust_transfer.configuration.datasets import DatasetSettings, ShapesOrigin
from robust_transfer.configuration.paths import resolved
from robust_transfer.configuration.running import running
from robust_transfer.configuration.stylizing import StylizingSettings
from robust_transfer.datasets.arrow import Images, Split, entry_splits, open_split
from robust_transfer.datasets.images import to_store
from robust_transfer.datasets.origins.shapes import generate
from robust_transfer.datasets.resident import square_images
from robust_transfer.datasets.splits import balanced_subset
from robust_transfer.datasets.storing import Item, Stream, in_order, raw_shape, store_splits
from robust_transfer.machine.devices import device_name, prepare
from robust_transfer.quantities import duration
from robust_transfer.resuming.interruption import Interruption
from robust_transfer.resuming.shards import Shards
from robust_transfer.store.entry import Entry, StoreError, renewing, sha256
from robust_transfer.stylization.phase import recombined
from robust_transfer.stylization.sheet import SHOWN, write_sheet
from robust_transfer.stylization.styles import Styles, chosen

BATCH_PIXELS = 2**20
"""Pixels that are stylized at a time, within 4 to 256 images: 20 images of 224 pixels."""
PROGRESS_SECONDS = 10.0
OWN = ("counts", "shape", "short_side", "encoding", "checksums")
"""Facts that a derived dataset has of its own; all others carry over."""

log = logging.getLogger("robust_transfer")

Numbers = NDArray[np.int64]
Rows = tuple[Images, ...]
"""Originals, stylized images and, where there are some, style images: uint8 [n, S, S, 3] each."""


def run(entry: Entry, *, threads: int, device: str) -> None:
    """Stylize the dataset that `entry` names. Raises Interrupted if it was asked to leave before it was done.

    Raises DatasetError for fewer than two usable style images, CheckpointError for files of weights that are no
    encoder or decoder or do not fit each other.
    """
    settings, how = StylizingSettings.model_validate(entry.settings), running()
    on = prepare(device, threads, "fp32")
    dataset = entry.input("dataset")
    splits = {name: open_split(dataset, name) for name in entry_splits(dataset)}
    setting = {"torch": str(torch.__version__), "device": device_name(device), "threads": threads}
    with entry.writing() as draft, Interruption(how.deadline) as interruption:
        method, facts = _method(entry, settings, splits, on, threads)
        side = len(method("test", np.arange(1))[0][0])
        with Shards(
            entry,
            dtype="uint8",
            dimension=3 * side**2,
            every=how.save_seconds,
            interruption=interruption,
            setting=setting,
        ) as shards:
            start, before = time.monotonic(), {name: shards.done(name) for name in splits}
            for name, split in splits.items():
                _stylize(shards, method, name, len(split), side, threads)
            shards.save_rest()
            counts = {name: len(split) for name, split in splits.items()}
            rate = (sum(counts.values()) - sum(before.values())) / (time.monotonic() - start)
            shape = raw_shape([(side, side)])
            streams = {
                name: Stream(len(split), _items(shards.all(name, len(split)), split, side, shape is not None, threads))
                for name, split in splits.items()
            }
            stored = store_splits(draft, splits["test"].classes, shape, streams, name=entry.name)
        write_sheet(draft.file("samples.png"), method("test", _shown(splits["test"])))
        draft.facts = {**dataset.facts(), **{key: stored[key] for key in OWN}, "stylized": facts}
        if shards.resumed:
            draft.facts["resumed"] = shards.resumed
        draft.timing.update(images_per_second=round(rate, 1), device=device, threads=threads)
    log.info("%s: %s images by %s, %.0f images/s", entry.name, f"{sum(counts.values()):,}", settings.method, rate)


Method = Callable[[str, Numbers], Rows]
"""From the name of a split and numbers of its images to what they were and became."""


def _method(
    entry: Entry, settings: StylizingSettings, splits: dict[str, Split], on: torch.device, threads: int
) -> tuple[Method, dict[str, Any]]:
    """What stylizes, and what the card says of it."""
    facts: dict[str, Any] = {"method": settings.method, "seed": settings.seed}
    if settings.method == "texture-swap":
        return _swapped(entry, settings, splits), facts
    assert settings.side is not None
    adain = settings.method == "adain"
    given = open_split(entry.input("styles"), "train") if "styles" in entry.inputs else splits["train"]
    styles = Styles(given, settings.side, least=settings.side if adain else 1)
    facts |= {"styles": given.entry.name, "style_images": len(styles), "style_images_dropped": styles.dropped}
    if styles.dropped:
        log.info("%s: %d of %d style images are too small", given.entry.name, styles.dropped, len(given))
    stylize: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = recombined
    if adain:
        stylize, files = _adain(settings, on)
        facts |= {"alpha": settings.alpha, **files}
    return _by_styles(settings, splits, styles, stylize, own="styles" not in entry.inputs, on=on), facts


def _adain(
    settings: StylizingSettings, on: torch.device
) -> tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], dict[str, Any]]:
    from robust_transfer.stylization.adain import load_style_transfer

    files = {name: running().weights_folder / resolved(getattr(settings, name)) for name in ("encoder", "decoder")}
    transfer = load_style_transfer(files["encoder"], files["decoder"], settings.alpha)
    transfer.encoder.to(on)
    transfer.decoder.to(on)
    return transfer, {name: {"file": path.name, "sha256": sha256(path)} for name, path in files.items()}


def _by_styles(
    settings: StylizingSettings,
    splits: dict[str, Split],
    styles: Styles,
    stylize: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    own: bool,
    on: torch.device,
) -> Method:
    """Centre squares at the network's size, each with the style of another image."""
    side = settings.side or 0

    def method(name: str, numbers: Numbers) -> Rows:
        originals = square_images(splits[name], side, settings.resize_ratio, indices=numbers)
        which = chosen(settings.seed, name, numbers, len(styles), own=own and name == "train")
        given = styles.images(which)
        made = stylize(torch.from_numpy(originals).to(on), torch.from_numpy(given).to(on))
        return originals, made.cpu().numpy(), given

    return method


def _swapped(entry: Entry, settings: StylizingSettings, splits: dict[str, Split]) -> Method:
    """Images of the built-in generator with the grating of a class that is drawn for each, its own among them."""
    prepared = DatasetSettings.model_validate(entry.input("dataset").settings)
    assert isinstance(prepared.origin, ShapesOrigin)
    limits = {"train": prepared.train_limit, "test": prepared.test_limit}
    drawn = {}
    for name, split in splits.items():
        count, classes = getattr(prepared.origin, name), len(split.classes)
        textures = chosen(settings.seed, name, np.arange(count), classes)
        images, labels, _ = generate(prepared.origin, "train" if name == "train" else "test", textures=textures)
        limit = limits[name]
        kept = np.arange(count) if limit is None else balanced_subset(labels, limit, prepared.seed)
        if not np.array_equal(labels[kept], split.labels):
            path = split.entry.path
            raise StoreError(f"{path}: not what the generator draws for its settings; {renewing(path)}")
        drawn[name] = images[kept]

    def method(name: str, numbers: Numbers) -> Rows:
        originals = np.stack([splits[name].image(int(i)) for i in numbers])
        return originals, drawn[name][numbers]

    return method


def _stylize(shards: Shards, method: Method, name: str, count: int, side: int, threads: int) -> None:
    """Append the images of a split that are not done yet, batch by batch, reading ahead where there are threads."""
    size = min(256, max(4, BATCH_PIXELS // side**2))
    first, start, told = shards.done(name), time.monotonic(), time.monotonic()
    batches = [np.arange(at, min(at + size, count)) for at in range(first, count, size)]
    for rows in in_order(lambda numbers: method(name, numbers)[1], batches, threads):
        shards.add(name, rows.reshape(len(rows), -1))
        if (now := time.monotonic()) - told >= PROGRESS_SECONDS:
            told, done = now, shards.done(name)
            rate = (done - first) / (now - start)
            left = duration((count - done) / rate)
            log.info("%s: %d of %d images, %.0f images/s, %s left", name, done, count, rate, left)


def _items(rows: Images, split: Split, side: int, raw: bool, threads: int) -> Iterator[Item]:
    def item(index: int) -> Item:
        image = rows[index].reshape(side, side, 3)
        stored, height, width = to_store(Image.fromarray(image), side=None, exif_rotation=False, raw=raw)
        return Item(stored, int(split.labels[index]), (height, width))

    return in_order(item, range(len(split)), threads)


def _shown(split: Split) -> Numbers:
    """Numbers of the images of the contact sheet: the first of as many classes as it has room for."""
    first = np.unique(split.labels, return_index=True)[1]
    return np.sort(first[np.linspace(0, len(first) - 1, min(SHOWN, len(first))).astype(np.int64)]).astype(np.int64)
