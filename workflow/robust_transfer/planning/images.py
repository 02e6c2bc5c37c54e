"""How many images a dataset of the grid has, and in how many classes, before it is prepared or after."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from robust_transfer.configuration.datasets import (
    DatasetSettings,
    FolderOrigin,
    ParquetOrigin,
    ShapesOrigin,
    TorchvisionOrigin,
)
from robust_transfer.configuration.paths import resolved
from robust_transfer.dag.grid import PlannedEntry
from robust_transfer.datasets.storing import RAW_SIDE
from robust_transfer.store.entry import CARD

KNOWN = Path(__file__).with_name("torchvision.yaml")
LOSSLESS_BYTES = 1.4
"""Bytes per pixel of a resized photograph, which is stored losslessly: 0.9 to 1.5 in datasets at 64 and 128 px."""
SQUARE = 3 / 4
"""Pixels of a centre square over those of a 4:3 photograph of that short side."""
JPEG_BYTES = 110_000
"""Bytes of an image that is stored unchanged and whose size is unknown: the mean of ImageNet's files."""


@dataclass(frozen=True)
class ImageCounts:
    """Images by split, as they will be prepared."""

    train: int
    test: int
    validation: int | None
    """None where there is no official validation split."""
    classes: int
    image_bytes: float
    """Mean size of a stored image; an estimate unless images are raw or the entry is done."""
    raw: bool
    """Images are stored as raw pixels, which need no decoding."""

    @property
    def total(self) -> int:
        """Images of all splits."""
        return self.train + self.test + (self.validation or 0)

    @property
    def splits(self) -> int:
        """How many splits there are."""
        return 2 + (self.validation is not None)

    def transfer(
        self, purpose: str, fraction: float, per_class: int | None, total: int | None = None
    ) -> tuple[int, int]:
        """Images that a transfer run trains on, and images that it measures on, as `transfer.parts` splits them.

        Exact where classes are equally large, approximate elsewhere: a share of each class is set aside.
        """
        train, official = self.train, self.validation
        if per_class:
            train, official = min(train, self.classes * per_class), None
        elif total:
            train, official = min(train, total), None
        if purpose not in ("search", "fixed"):
            return train + (official or 0), self.test
        held = official or set_aside(train, self.classes, fraction)
        tested = self.test if purpose == "fixed" else 0
        return train - (0 if official else held), held + tested


def set_aside(images: int, classes: int, fraction: float) -> int:
    """Validation images taken from `images` of equally large classes, rounded as by `splits.validation_mask`."""
    small, larger = divmod(images, classes)
    validation = 0
    for size, number in ((small, classes - larger), (small + 1, larger)):
        validation += number * max(0, min(max(int(fraction * size + 0.5), 1), size - 1))
    return validation


def image_counts(entry: PlannedEntry, store: Path) -> ImageCounts | None:
    """Counts of a dataset or of one derived from it: from its card if it is done, else from its settings.

    Folders are listed, and the labels of parquet files are read, but no image is. None where the counts are unknown
    until the dataset is prepared: its files do not exist yet, or the torchvision class is not in `torchvision.yaml`.
    """
    if counts := _from_card(store / entry.id):
        return counts
    if entry.stage == "granularity":
        original = image_counts(entry.inputs["dataset"], store)
        size = int(getattr(entry.settings, "size", 0))
        if original is None:
            return None
        stored = _stored_bytes(size, original.image_bytes)
        return replace(original, image_bytes=stored, raw=original.raw and size <= RAW_SIDE)
    if entry.stage == "stylizing":
        original, side = image_counts(entry.inputs["dataset"], store), getattr(entry.settings, "side", None)
        if original is None or side is None:  # a texture is swapped for another in images of the same size
            return original
        return replace(
            original, image_bytes=_stored_bytes(side, None) * (1 if side <= RAW_SIDE else SQUARE), raw=side <= RAW_SIDE
        )
    settings = entry.settings
    return _of_settings(settings) if isinstance(settings, DatasetSettings) else None


def counting(store: Path) -> Callable[[PlannedEntry], ImageCounts | None]:
    """`image_counts` that looks at each dataset once."""
    known: dict[str, ImageCounts | None] = {}

    def counts(entry: PlannedEntry) -> ImageCounts | None:
        if entry.id not in known:
            known[entry.id] = image_counts(entry, store)
        return known[entry.id]

    return counts


def _from_card(folder: Path) -> ImageCounts | None:
    try:
        card = json.loads((folder / CARD).read_text())
    except (OSError, json.JSONDecodeError):
        return None
    counts: dict[str, int] = card["facts"]["counts"]
    stored = sum(file["bytes"] for name, file in card["files"].items() if name.endswith(".arrow"))
    images = max(1, sum(counts.values()))
    return ImageCounts(
        counts["train"],
        counts["test"],
        counts.get("validation"),
        len(card["facts"]["classes"]),
        stored / images,
        card["facts"].get("encoding") == "raw",
    )


def _of_settings(settings: DatasetSettings) -> ImageCounts | None:
    origin: Any = settings.origin
    if isinstance(origin, ShapesOrigin):
        from robust_transfer.datasets.origins.shapes import CLASSES

        side = settings.stored_side or origin.side
        counts = {"train": origin.train, "test": origin.test}
        original: _OriginCounts | None = _OriginCounts(
            counts, len(CLASSES[origin.task]), _stored_bytes(side, None), side <= RAW_SIDE
        )
    elif isinstance(origin, FolderOrigin | ParquetOrigin):
        original = _listed(origin)
    elif isinstance(origin, TorchvisionOrigin):
        original = _of_torchvision(origin)
    else:
        original = _of_catalogue(origin)
    if original is None:
        return None
    limited = dict(original.counts)
    for split, limit in (("train", settings.train_limit), ("test", settings.test_limit)):
        limited[split] = min(limited[split], limit or limited[split])
    size = original.image_bytes or JPEG_BYTES
    if settings.stored_side:
        size = min(_stored_bytes(settings.stored_side, None), size)
    return ImageCounts(
        limited["train"], limited["test"], limited.get("validation"), original.classes, size, original.raw
    )


@dataclass(frozen=True)
class _OriginCounts:
    """Images of a dataset at its origin, before limits and resizing."""

    counts: dict[str, int]
    classes: int
    image_bytes: float | None
    """None if unknown."""
    raw: bool = False
    """They are small and of one size, and so will be stored as raw pixels."""


def _listed(origin: FolderOrigin | ParquetOrigin) -> _OriginCounts | None:
    from robust_transfer.datasets.errors import DatasetError
    from robust_transfer.datasets.origins.opening import open_origin

    root = resolved(origin.path)
    if not root.is_dir():
        return None
    try:
        collection = open_origin(origin)
    except DatasetError:  # its own stage says what is wrong with it, and how to fix it
        return None
    counts = {split: len(images.labels) for split, images in collection.splits.items()}
    if isinstance(origin, ParquetOrigin):
        files = [path.stat().st_size for path in root.glob("*.parquet")]
        return _OriginCounts(counts, len(collection.classes), sum(files) / max(1, sum(counts.values())))
    return _OriginCounts(counts, len(collection.classes), _sampled_bytes(root))


def _sampled_bytes(root: Path, sample: int = 200) -> float | None:
    """Mean size of some of the files below a folder."""
    sizes = []
    for path in root.rglob("*.*"):
        if path.is_file() and not path.name.endswith((".json", ".txt")):
            sizes.append(path.stat().st_size)
        if len(sizes) == sample:
            break
    return sum(sizes) / len(sizes) if sizes else None


@cache
def _known() -> dict[str, dict[str, Any]]:
    known: dict[str, dict[str, Any]] = yaml.safe_load(KNOWN.read_text())
    return known


def _of_torchvision(origin: TorchvisionOrigin) -> _OriginCounts | None:
    known = _known().get(origin.dataset)
    if known is None:
        return None
    keyword = next(name for name in known if name not in ("classes", "side"))
    counts: dict[str, int] = {}
    for split, selected in (("train", origin.train), ("test", origin.test), ("validation", origin.validation)):
        if selected is None:
            continue
        value = selected.get(keyword)
        if value not in known[keyword]:
            return None
        counts[split] = known[keyword][value]
    side = int(known.get("side", RAW_SIDE + 1))
    raw = side <= RAW_SIDE
    return _OriginCounts(counts, int(known["classes"]), _stored_bytes(side, None) if raw else None, raw)


def _of_catalogue(origin: Any) -> _OriginCounts | None:
    """Counts of a dataset of the catalogue, as stated there for a complete copy."""
    if getattr(origin, "kind", None) != "catalogue":
        return None
    from robust_transfer.configuration.catalogue.datasets import catalogued

    described = catalogued(origin.dataset)
    counts = {name: n for name, n in described.splits[origin.split].counts.model_dump().items() if n is not None}
    return _OriginCounts(counts, described.classes, described.megabytes * 1e6 / sum(counts.values()))


def _stored_bytes(side: int, before: float | None) -> float:
    """Bytes of an image stored at this short side: raw if small, else a losslessly stored 4:3 photograph."""
    if side <= RAW_SIDE:
        return 3 * side * side
    size = LOSSLESS_BYTES * side * side * 4 / 3
    return min(size, before) if before else size
