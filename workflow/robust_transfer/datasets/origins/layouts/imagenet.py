"""ILSVRC 2012 from its official archives, unpacked once into `train/<wnid>/` and `val/<wnid>/` beside them.

An interrupted run is continued by the next one: class folders of train and the folder `val` appear by rename when they
are complete.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from robust_transfer.configuration.datasets import FolderOrigin
from robust_transfer.datasets.collection import Collection
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.fetching.archives import unpack, unpack_class_archives
from robust_transfer.datasets.fetching.disk import exclusively
from robust_transfer.datasets.origins.folder import open_folder
from robust_transfer.datasets.origins.layouts.lists import lines, records

TRAIN, VALIDATION, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"

log = logging.getLogger("robust_transfer")


def imagenet(base: Path, *, incomplete: bool) -> Collection:
    """Unpack what is not unpacked yet, and list the class folders; raises DatasetError.

    It takes as much space again as the archives, which can be deleted afterwards.
    """
    del incomplete  # counts are checked by whoever asked
    unpack_class_archives(base / TRAIN, base / "train")
    if not (base / "val").is_dir():
        with exclusively(base / ".val.lock", f"sorting {base / VALIDATION}"):
            if not (base / "val").is_dir():
                _sort_validation(base)
    return open_folder(FolderOrigin(kind="folder", path=str(base)))


def _sort_validation(base: Path) -> None:
    """The validation archive is flat: image i belongs to the class in line i of a list in the development kit."""
    devkit, flat, left, done = (base / f".val.{part}" for part in ("devkit", "flat", "left", "done"))
    unpack(base / DEVKIT, devkit)
    wnids = validation_wnids(devkit / "ILSVRC2012_devkit_t12" / "data")
    if not left.is_dir():
        unpack(base / VALIDATION, flat)
        flat.rename(left)  # from here on its images go away one by one
    log.info("%s: sorting the validation images into class folders", base)
    for path in sorted(left.glob("*.JPEG")):
        number = re.fullmatch(r"ILSVRC2012_val_(\d{8})\.JPEG", path.name)
        if number is None or not 1 <= int(number[1]) <= len(wnids):
            raise DatasetError(f"{base / VALIDATION}: {path.name} is none of its {len(wnids)} images; fetch it again")
        target = done / wnids[int(number[1]) - 1]
        target.mkdir(parents=True, exist_ok=True)
        path.replace(target / path.name)
    if not done.is_dir():
        raise DatasetError(f"{base / VALIDATION}: holds no validation images; fetch it again")
    done.rename(base / "val")
    shutil.rmtree(left)
    shutil.rmtree(devkit)


def validation_wnids(data: Path) -> list[str]:
    """The WordNet id of each validation image, from the folder `data` of the development kit; raises DatasetError.

    `meta.mat` numbers all synsets; the classes are those without children.
    """
    synsets = records(data / "meta.mat", "synsets", "ILSVRC2012_ID", "WNID", "num_children")
    known: Mapping[str, str] = {str(int(i)): str(wnid) for i, wnid, children in synsets if int(children) == 0}
    truth = data / "ILSVRC2012_validation_ground_truth.txt"
    numbers = lines(truth)
    unknown = [number for number in numbers if number not in known]
    if unknown:
        raise DatasetError(f"{truth}: class {unknown[0]}, which meta.mat does not have; unpack {DEVKIT} again")
    return [known[number] for number in numbers]
