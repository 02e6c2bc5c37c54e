"""The origin `folder`: class folders, or `train/` and `test/` (or `val/`) each holding class folders.

Images are the files with an image's suffix, at any depth below a class folder; symbolic links are followed. Hidden
files and files of other kinds are ignored and counted. Classes are in the order of their names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robust_transfer.configuration.datasets import FolderOrigin
from robust_transfer.datasets.arrow import SPLITS
from robust_transfer.datasets.collection import Collection, LabelledImages, licence_of, listed, read_info
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.fetching.disk import in_utf8, printable
from robust_transfer.datasets.images import ImageSource
from robust_transfer.datasets.splits import TEST, validation_mask

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".ppm", ".pgm", ".pbm", ".tif", ".tiff", ".jp2")
EXPECTED = "expected are class folders with images, or train/ and test/ (or val/) that each hold class folders"


def open_folder(origin: FolderOrigin) -> Collection:
    """List the images of a folder. With `test/` and `val/`, the latter is the official validation split.

    Without either, a share of every class is set aside for testing, by seed. Raises DatasetError.
    """
    root = Path(origin.path).expanduser()
    if not root.is_dir():
        raise DatasetError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}; {EXPECTED}")
    folders = _split_folders(root)
    trees = {split: _Tree(folder) for split, folder in folders.items()}
    classes = tuple(trees["train"].classes)
    if not classes:
        raise DatasetError(f"{folders['train']}: no class folders; {EXPECTED}")
    for split, tree in trees.items():
        strange = [name for name in tree.classes if name not in trees["train"].classes]
        if strange:
            raise DatasetError(f"{folders[split]}: classes that {folders['train']} lacks: {listed(strange)}")
        if not tree.files:
            raise DatasetError(f"{folders[split]}: no images in class folders; {EXPECTED}")
    described = {"kind": "folder", "path": origin.path}
    splits: dict[str, LabelledImages] = {
        split: trees[split].labelled(classes, root) for split in SPLITS if split in trees
    }
    if "test" not in splits:
        splits = _carve(splits["train"], origin)
    ignored = sum(tree.ignored for tree in trees.values())
    return Collection(classes, splits, described, licence_of(read_info(root)), ignored)


def _split_folders(root: Path) -> dict[str, Path]:
    """The folder of each split. A `train` that holds images and no folders is a class like any other."""
    named = {name: root / name for name in ("train", "test", "val", "valid", "validation")}
    there = {name: path for name, path in named.items() if path.is_dir() and any(_folders(path))}
    if "train" not in there:
        if there:
            raise DatasetError(f"{root}: {listed(list(there))} with class folders but no train/; {EXPECTED}")
        return {"train": root}
    if named["test"].is_dir() and "test" not in there:
        raise DatasetError(
            f"{named['test']}: no class folders, so its images have no labels; move it elsewhere to use val/, "
            "or to have test images set aside from train/"
        )
    validation = next((there[name] for name in ("val", "valid", "validation") if name in there), None)
    folders = {"train": there["train"]}
    if "test" in there:
        folders["test"] = there["test"]
        if validation:
            folders["validation"] = validation
    elif validation:
        folders["test"] = validation
    return folders


def _carve(images: LabelledImages, origin: FolderOrigin) -> dict[str, LabelledImages]:
    mask = validation_mask(images.labels, origin.test_fraction, origin.seed, purpose=TEST)

    def part(rows: NDArray[np.int64]) -> LabelledImages:
        return LabelledImages(images.labels[rows], lambda indices: images.images(rows[indices]))

    return {"train": part(np.flatnonzero(~mask)), "test": part(np.flatnonzero(mask))}


class _Tree:
    """The class folders below a folder, and the images in them."""

    def __init__(self, folder: Path):
        self.classes: list[str] = []
        self.files: list[tuple[str, str]] = []  # class and path: strings, since ImageNet has 1.3 million
        self.ignored = 0
        for entry in entries(folder):
            if entry.name.startswith(".") or not entry.is_dir():
                self.ignored += entry.name != "info.json"
                continue
            if any("\ud800" <= letter <= "\udfff" for letter in entry.name):  # they stand for bytes that are not UTF-8
                raise DatasetError(
                    f"{folder}: the name of a class folder, '{printable(entry.name)}', is not UTF-8, which the store "
                    "needs; rename it (of Latin-1 names: `convmv -r -f latin1 -t utf8 --notest <folder>`)"
                )
            self.classes.append(entry.name)
            self.files += [(entry.name, path) for path in self._images(entry.path, {os.path.realpath(entry.path)})]

    def _images(self, folder: str, above: set[str]) -> Iterator[str]:
        for entry in entries(folder):
            if entry.name.startswith("."):
                self.ignored += 1
            elif entry.is_dir():
                real = os.path.realpath(entry.path)
                if real not in above:  # a link to a folder above it would never end
                    yield from self._images(entry.path, above | {real})
            elif entry.name.lower().endswith(SUFFIXES):
                yield entry.path
            else:
                self.ignored += 1

    def labelled(self, classes: tuple[str, ...], root: Path) -> LabelledImages:
        number = {name: label for label, name in enumerate(classes)}

        def read(indices: NDArray[np.int64]) -> Iterator[tuple[str, ImageSource]]:
            for i in indices:
                path = Path(self.files[i][1])
                yield in_utf8(str(path.relative_to(root))), path

        return LabelledImages(np.array([number[name] for name, _ in self.files], np.int64), read)


def entries(folder: Path | str) -> list[os.DirEntry[str]]:
    """The entries of a folder, in the order in which Python sorts names."""
    with os.scandir(folder) as unsorted:
        return sorted(unsorted, key=lambda entry: entry.name)


def _folders(path: Path) -> Iterator[os.DirEntry[str]]:
    return (entry for entry in entries(path) if entry.is_dir() and not entry.name.startswith("."))
