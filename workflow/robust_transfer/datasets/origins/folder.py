"""The origin `folder`: class folders, or `train/` and `test/` (or `val/`) each holding class folders.

Names of splits are taken in any case and in the usual spellings (`Training`, `valid`, `test-images`; `datasets.names`).
Images are the files with an image's suffix, at any depth below a class folder; symbolic links are followed. Hidden
files and files of other kinds are ignored and counted. Classes are in the order of their names.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robust_transfer.configuration.datasets import FolderOrigin
from robust_transfer.configuration.paths import resolved
from robust_transfer.datasets.arrow import SPLITS
from robust_transfer.datasets.collection import Collection, LabelledImages, licence_of, listed, read_info
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.fetching.disk import in_utf8, printable
from robust_transfer.datasets.images import ImageSource
from robust_transfer.datasets.names import SUFFIXES, split_of
from robust_transfer.datasets.splits import TEST, validation_mask

ONE_CLASS = "image"
"""What images without classes have for one."""
EXPECTED = "expected are class folders with images, or train/ and test/ (or val/) that each hold class folders"

log = logging.getLogger("robust_transfer")


def open_folder(origin: FolderOrigin) -> Collection:
    """List the images of a folder. With `test/` and `val/`, the latter is the official validation split.

    Without either, a share of every class is set aside for testing, by seed. Raises DatasetError, also where folders
    are plainly no classes: one alone, or all of them splits.
    """
    root = resolved(origin.path)
    if not root.is_dir():
        raise DatasetError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}; {EXPECTED}")
    if not origin.labelled:
        return _without_classes(root, origin)
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
            raise DatasetError(f"{folders[split]}: no images in class folders{tree.others()}; {EXPECTED}")
    licence = licence_of(read_info(root))
    _check_classes(folders["train"], classes)
    described = {"kind": "folder", "path": origin.path}
    splits: dict[str, LabelledImages] = {
        split: trees[split].labelled(classes, root) for split in SPLITS if split in trees
    }
    if "test" not in splits:
        splits = _carve(splits["train"], origin)
    ignored = sum(tree.ignored for tree in trees.values())
    return Collection(classes, splits, described, licence, ignored)


def _without_classes(root: Path, origin: FolderOrigin) -> Collection:
    """All images at any depth, of one class; none of them is to test on."""
    tree = _Tree(root, one_class=True)
    if not tree.files:
        raise DatasetError(f"{root}: no images{tree.others()}; expected are images, at any depth")
    images = tree.labelled((ONE_CLASS,), root)
    none = LabelledImages(np.empty(0, np.int64), lambda indices: iter(()))
    described, licence = {"kind": "folder", "path": origin.path}, licence_of(read_info(root))
    splits = {"train": images, "test": none}
    return Collection((ONE_CLASS,), splits, described, licence, tree.ignored, labelled=False)


def class_folders(origin: FolderOrigin) -> tuple[str, ...]:
    """The names of the classes of a folder, without a look at the images. Raises DatasetError."""
    folders = _split_folders(Path(origin.path).expanduser())
    return tuple(entry.name for entry in _folders(folders["train"]))


def _split_folders(root: Path) -> dict[str, Path]:
    """The folder of each split. A `train` that holds images and no folders is a class like any other."""
    named: dict[str, list[Path]] = {}
    for entry in _folders(root):
        if split := split_of(entry.name):
            named.setdefault(split, []).append(Path(entry.path))
    there = {split: [path for path in paths if any(_folders(path))] for split, paths in named.items()}
    there = {split: paths for split, paths in there.items() if paths}
    for split, paths in there.items():
        if len(paths) > 1:
            raise DatasetError(
                f"{root}: {listed([path.name for path in paths])} are all names of the {split} split, each with class "
                "folders; move all but one of them elsewhere"
            )
    folders = {split: path for split, (path,) in there.items()}
    if "train" not in folders:
        if folders:
            raise DatasetError(
                f"{root}: {listed([path.name for path in folders.values()])} with class folders but no train/; "
                f"{EXPECTED}"
            )
        return {"train": root}
    if "test" in named and "test" not in folders:
        raise DatasetError(
            f"{named['test'][0]}: no class folders, so its images have no labels; move it elsewhere to use val/, "
            "or to have test images set aside from train/"
        )
    _tell_of_others(root, folders)
    if "test" not in folders and "validation" in folders:
        folders["test"] = folders.pop("validation")
    return folders


def _tell_of_others(root: Path, folders: dict[str, Path]) -> None:
    """Say which folders beside those of the splits are left out."""
    used = {path.name for path in folders.values()}
    if others := [entry.name for entry in _folders(root) if entry.name not in used]:
        log.warning("%s: left out, since %s hold the classes: %s", root, listed(sorted(used)), listed(others))


def _check_classes(folder: Path, classes: tuple[str, ...]) -> None:
    """Raise DatasetError for class folders that are none: the folder was named a level too high, or holds splits."""
    splits = {name: split for name in classes if (split := split_of(name))}
    if len(set(splits.values())) > 1 or (len(classes) > 1 and len(splits) == len(classes)):
        raise DatasetError(
            f"{folder}: {listed(list(splits))} would be classes, and they are names of splits; put into each a folder "
            "for every class, with its images"
        )
    inside = {name: [entry.name for entry in _folders(folder / name)] for name in classes}
    if len(classes) == 1:
        [(name, below)] = inside.items()
        says = f"{folder}: a single class, {name}: there is nothing to tell it from"
        if below:
            raise DatasetError(
                f"{says}. It holds the folders {listed(below, 5)}: if those are the classes or splits, write "
                f"path: {folder / name}, or move them up"
            )
        raise DatasetError(f"{says}; {EXPECTED}")
    if all(below and all(split_of(name) for name in below) for below in inside.values()):
        raise DatasetError(
            f"{folder}: its class folders hold {listed(inside[classes[0]])}, which are names of splits; {EXPECTED}, "
            "so splits outside and classes inside"
        )


def _carve(images: LabelledImages, origin: FolderOrigin) -> dict[str, LabelledImages]:
    mask = validation_mask(images.labels, origin.test_fraction, origin.seed, purpose=TEST)

    def part(rows: NDArray[np.int64]) -> LabelledImages:
        return LabelledImages(images.labels[rows], lambda indices: images.images(rows[indices]))

    return {"train": part(np.flatnonzero(~mask)), "test": part(np.flatnonzero(mask))}


class _Tree:
    """The class folders below a folder, and the images in them."""

    def __init__(self, folder: Path, *, one_class: bool = False):
        self.classes: list[str] = []
        self.files: list[tuple[str, str]] = []  # class and path: strings, since ImageNet has 1.3 million
        self.ignored = 0
        self._suffixes: Counter[str] = Counter()  # of the files ignored below class folders
        if one_class:
            self.classes = [ONE_CLASS]
            self.files = [(ONE_CLASS, path) for path in self._images(str(folder), {os.path.realpath(folder)})]
            return
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
                self._suffixes[Path(entry.name).suffix.lower() or "without a suffix"] += 1

    def others(self) -> str:
        """What lies there instead of images, for a message."""
        found = [f"{count} {suffix}" for suffix, count in self._suffixes.most_common(5)]
        return f" (but files of other kinds: {', '.join(found)}; read are {', '.join(SUFFIXES)})" if found else ""

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
