"""Caltech-101 and Caltech-256: class folders, of which the first files by name are for training, the others for test.

The paper's released code sorts file names as Python sorts strings. Only files directly in a class folder with an
image's suffix count: Caltech-256 holds a folder `056.dog/greg` and a file `198.spider/RENAME2` besides.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from robust_transfer.datasets.collection import Collection
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.names import SUFFIXES
from robust_transfer.datasets.origins.folder import entries
from robust_transfer.datasets.origins.layouts.lists import Labelled, collected


def caltech(base: Path, *, categories: str, images: int, without: Sequence[str] = (), incomplete: bool) -> Collection:
    """The folder `categories` below `base`: `images` files of each class to train on, the others to test on.

    `without` names class folders that are left out. Raises DatasetError if there are none.
    """
    classes: list[str] = []
    splits: dict[str, Labelled] = {"train": [], "test": []}
    ignored = 0
    for folder in entries(base / categories):
        if folder.name in without or folder.name.startswith(".") or not folder.is_dir():
            continue
        there = entries(folder.path)
        files = [entry.name for entry in there if _is_image(entry)]
        ignored += len(there) - len(files)
        if not files:
            continue
        label = len(classes)
        classes.append(folder.name)
        paths = [(f"{categories}/{folder.name}/{name}", label) for name in files]
        splits["train"] += paths[:images]
        splits["test"] += paths[images:]
    if not classes:
        raise DatasetError(f"{base / categories}: no class folders with images; unpack the archive again")
    return collected(base, classes, splits, incomplete=incomplete, ignored=ignored)


def _is_image(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(".") and entry.is_file()
