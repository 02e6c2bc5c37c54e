"""Datasets whose splits and labels are in files beside the images: text lists, JSON or MATLAB files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from robust_transfer.datasets.collection import Collection, listed
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.origins.layouts.lists import Labelled, collected, fields, lines, matlab, records, text


def aircraft(base: Path, *, incomplete: bool) -> Collection:
    """FGVC-Aircraft 2013b at variant level: `data/variants.txt` in label order, `data/images_variant_<split>.txt`."""
    classes = lines(base / "data/variants.txt")
    number = {name: label for label, name in enumerate(classes)}
    splits: dict[str, Labelled] = {}
    for split, official in (("train", "train"), ("validation", "val"), ("test", "test")):
        path = base / f"data/images_variant_{official}.txt"
        rows = fields(path, 2)
        _known(path, [name for _, name in rows], number)
        splits[split] = [(f"data/images/{image}.jpg", number[name]) for image, name in rows]
    return collected(base, classes, splits, incomplete=incomplete)


def birdsnap(base: Path, *, incomplete: bool) -> Collection:
    """Birdsnap 1.1: tables with a header and tabs between columns, images in `images/` or `download/images/`."""
    species = [(_number(base / "species.txt", i), name) for i, name in _table(base / "species.txt", "id", "common")]
    species.sort()
    number = {str(identity): label for label, (identity, _) in enumerate(species)}
    test = {path for (path,) in _table(base / "test_images.txt", "path")}
    rows = _table(base / "images.txt", "path", "species_id")
    _known(base / "images.txt", [identity for _, identity in rows], number)
    unlisted = sorted(test - {path for path, _ in rows})
    if unlisted:
        raise DatasetError(f"{base / 'test_images.txt'}: names what images.txt does not: {listed(unlisted, 3)}")
    below = "images" if (base / "images").is_dir() else "download/images"
    splits: dict[str, Labelled] = {"train": [], "test": []}
    for path, identity in rows:
        splits["test" if path in test else "train"].append((f"{below}/{path}", number[identity]))
    return collected(base, [name for _, name in species], splits, incomplete=incomplete)


def cars(base: Path, *, incomplete: bool) -> Collection:
    """Stanford Cars: `cars_train/`, `cars_test/` and their annotations; labels in the files start at 1."""
    labelled = base / "cars_test_annos_withlabels.mat"
    test = labelled if labelled.exists() else base / "devkit" / labelled.name
    names = np.atleast_1d(matlab(base / "devkit/cars_meta.mat", "class_names")[0])
    splits: dict[str, Labelled] = {}
    for split, path in (("train", base / "devkit/cars_train_annos.mat"), ("test", test)):
        rows = records(path, "annotations", "fname", "class")
        splits[split] = [(f"cars_{split}/{name}", int(label) - 1) for name, label in rows]
    return collected(base, map(str, names), splits, incomplete=incomplete)


def dtd(base: Path, *, partition: int, incomplete: bool) -> Collection:
    """Describable Textures: `labels/<split><partition>.txt` with lines `class/file`, images in `images/`."""
    official = {"train": "train", "validation": "val", "test": "test"}
    paths = {split: lines(base / f"labels/{name}{partition}.txt") for split, name in official.items()}
    classes = sorted({path.split("/")[0] for rows in paths.values() for path in rows})
    splits = {
        split: [(f"images/{path}", classes.index(path.split("/")[0])) for path in rows] for split, rows in paths.items()
    }
    return collected(base, classes, splits, incomplete=incomplete)


def flowers(base: Path, *, names: list[str], incomplete: bool) -> Collection:
    """Oxford 102 Flowers: `jpg/image_<5 digits>.jpg`, labels from 1 in `imagelabels.mat`, splits in `setid.mat`."""
    labels = np.atleast_1d(matlab(base / "imagelabels.mat", "labels")[0])
    identities = matlab(base / "setid.mat", "trnid", "valid", "tstid")
    splits: dict[str, Labelled] = {}
    for split, chosen in zip(("train", "validation", "test"), identities, strict=True):
        images = np.atleast_1d(chosen).astype(int).tolist()
        beyond = [image for image in images if not 1 <= image <= len(labels)]
        if beyond:
            raise DatasetError(
                f"{base / 'setid.mat'}: image {beyond[0]}, where imagelabels.mat has {len(labels)} labels"
            )
        splits[split] = [(f"jpg/image_{image:05}.jpg", int(labels[image - 1]) - 1) for image in images]
    return collected(base, names, splits, incomplete=incomplete)


def food(base: Path, *, incomplete: bool) -> Collection:
    """Food-101: `meta/<split>.txt` with lines `class/id`, or the same as `meta/<split>.json`; images in `images/`."""
    paths = {split: _food_list(base / "meta", split) for split in ("train", "test")}
    classes = sorted({path.split("/")[0] for path in paths["train"]})
    number = {name: label for label, name in enumerate(classes)}
    _known(base / "meta/test.txt", [path.split("/")[0] for path in paths["test"]], number)
    splits = {
        split: [(f"images/{path}.jpg", number[path.split("/")[0]]) for path in rows] for split, rows in paths.items()
    }
    return collected(base, classes, splits, incomplete=incomplete)


def pets(base: Path, *, incomplete: bool) -> Collection:
    """Oxford-IIIT Pets: `annotations/<split>.txt` with lines `Breed_name_<number> label …`, labels from 1."""
    names: dict[int, str] = {}
    splits: dict[str, Labelled] = {}
    for split, official in (("train", "trainval"), ("test", "test")):
        path = base / f"annotations/{official}.txt"
        splits[split] = []
        for image, number, *_ in fields(path, 3):
            if image.startswith("#"):
                continue
            label, breed = _number(path, number) - 1, image.rsplit("_", 1)[0].replace("_", " ")
            if names.setdefault(label, breed).lower() != breed.lower():
                raise DatasetError(f"{path}: label {number} is {names[label]}, and {breed} in {image}; fetch it again")
            splits[split].append((f"images/{image}.jpg", label))
    classes = [names.get(label, f"breed {label + 1}") for label in range(max(names, default=-1) + 1)]
    return collected(base, classes, splits, incomplete=incomplete)


def sun397(base: Path, *, partition: str, incomplete: bool) -> Collection:
    """SUN397: `Training_<partition>.txt` and `Testing_<partition>.txt` with lines `/a/abbey/sun_….jpg`.

    Classes are in the order of `ClassName.txt`, or of their paths where there is none.
    """
    around = [base, base / "SUN397", base / "Partitions"]
    official = {"train": f"Training_{partition}.txt", "test": f"Testing_{partition}.txt"}
    paths = {split: lines(_first(around, name)) for split, name in official.items()}
    folders = {split: [path.rpartition("/")[0] for path in rows] for split, rows in paths.items()}
    try:
        named = lines(_first(around, "ClassName.txt"))
    except DatasetError:
        named = sorted({folder for rows in folders.values() for folder in rows})
    number = {folder: label for label, folder in enumerate(named)}
    below = "SUN397" if (base / "SUN397").is_dir() else ""
    splits: dict[str, Labelled] = {}
    for split, rows in paths.items():
        _known(_first(around, official[split]), folders[split], number)
        labels = [number[folder] for folder in folders[split]]
        splits[split] = [((below + path).lstrip("/"), label) for path, label in zip(rows, labels, strict=True)]
    return collected(base, [name.strip("/").partition("/")[2] for name in named], splits, incomplete=incomplete)


def _food_list(meta: Path, split: str) -> list[str]:
    plain, structured = meta / f"{split}.txt", meta / f"{split}.json"
    if plain.exists() or not structured.exists():
        return lines(plain)
    try:
        by_class: Any = json.loads(text(structured))
        return [str(path) for paths in by_class.values() for path in paths]
    except (ValueError, AttributeError, TypeError) as error:
        raise DatasetError(f"{structured}: not lists of images by class ({error}); unpack its archive again") from None


def _table(path: Path, *columns: str) -> list[tuple[str, ...]]:
    """Columns of a table with a header and tabs between fields."""
    given = [line for line in text(path).splitlines() if line.strip()]
    rows = list(csv.reader(given, delimiter="\t", quoting=csv.QUOTE_NONE))
    header = rows[0] if rows else []
    absent = [column for column in columns if column not in header]
    if absent:
        raise DatasetError(f"{path}: its first line names no column {listed(absent)}; unpack its archive again")
    where = [header.index(column) for column in columns]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) <= max(where):
            raise DatasetError(f"{path}: row {number} has {len(row)} fields, and its header {len(header)}")
    return [tuple(row[i] for i in where) for row in rows[1:]]


def _number(path: Path, value: str) -> int:
    if not value.isdecimal():
        raise DatasetError(f"{path}: label {value!r} is not a number; unpack its archive again")
    return int(value)


def _first(folders: list[Path], name: str) -> Path:
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise DatasetError(f"{folders[0]}: no {name}, there or in {' or '.join(str(path) for path in folders[1:])}")


def _known(path: Path, names: list[str], number: dict[str, int]) -> None:
    unknown = sorted({name for name in names if name not in number})
    if unknown:
        raise DatasetError(f"{path}: classes that are not among the {len(number)} known ones: {listed(unknown, 3)}")
