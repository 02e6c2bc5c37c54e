"""Features entries with a known answer, for the stages that read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from robust_transfer.store.entry import Entry, open_entry, write_json
from robust_transfer.store.features import write_features


def problem(
    n: int, dimension: int, classes: int, *, separation: float, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features like a network's: correlated, non-negative, of unequal variance; labels in equal numbers."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    mixing = random.normal(size=(dimension, dimension)) * np.exp(-np.arange(dimension) / (dimension / 5))[:, None]
    centres = random.normal(size=(classes, dimension)) * separation / np.sqrt(8)
    features = np.maximum((centres[labels] + random.normal(size=(n, dimension))) @ mixing + 0.5, 0)
    return features.astype(np.float32), labels


def stored_features(
    root: Path,
    counts: dict[str, int],
    *,
    dimension: int = 16,
    classes: int = 4,
    separation: float = 40.0,
    shuffled: bool = False,
    name: str = "stored",
) -> Entry:
    """A features entry with splits of so many images, float16."""
    path = root / "store" / "features" / f"{name}-abcdef"
    path.mkdir(parents=True)
    write_json(path / "entry.json", {"stage": "features", "settings": {}, "inputs": {}})
    features, labels = problem(sum(counts.values()), dimension, classes, separation=separation)
    if shuffled:
        labels = np.random.default_rng(1).permutation(labels)
    entry, start = open_entry(path), 0
    with entry.writing() as draft:
        for split, n in counts.items():
            rows = slice(start, start + n)
            write_features(draft.file(f"{split}.arrow"), features[rows].astype(np.float16), labels[rows])
            start += n
        draft.facts = {"classes": [str(c) for c in range(classes)], "counts": counts, "origin": {}}
    return entry
