"""What layouts share: lists of files with labels, compared with the files that are there, and readers of such lists."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robust_transfer.datasets.collection import Collection, LabelledImages, listed
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.images import ImageSource

log = logging.getLogger("robust_transfer")

Labelled = list[tuple[str, int]]
"""Files of a split: path below the layout's folder, with slashes, and label."""


def collected(
    base: Path, classes: Iterable[str], splits: dict[str, Labelled], *, incomplete: bool, ignored: int = 0
) -> Collection:
    """The files of each split as a Collection, without reading any.

    Files that are not there are an error that names the first of them, or, where `incomplete`, left out with a
    warning. Raises DatasetError for that, for labels without a class, and for an image that is listed in two splits.
    """
    names = tuple(classes)
    _apart(base, splits)
    present = _Present(base)
    labelled = {split: _of_files(base, split, files, names, present, incomplete) for split, files in splits.items()}
    return Collection(names, labelled, {}, None, ignored)


def _of_files(
    base: Path, split: str, files: Labelled, classes: tuple[str, ...], present: _Present, incomplete: bool
) -> LabelledImages:
    wrong = next(((path, label) for path, label in files if not 0 <= label < len(classes)), None)
    if wrong:
        raise DatasetError(
            f"{base / wrong[0]}: {split} label {wrong[1]}, where there are {len(classes)} classes from 0"
        )
    there = [(path, label) for path, label in files if path in present]
    if len(there) < len(files):
        absent = [path for path, _ in files if path not in present]
        text = f"{base}: {len(absent)} of {len(files)} {split} images are not there: {listed(absent, 3)}"
        if not incomplete:
            raise DatasetError(
                f"{text}; unpack the archives again, or accept an incomplete copy by origin.partial: true"
            )
        log.warning("%s; they are left out", text)
    paths = [path for path, _ in there]

    def read(indices: NDArray[np.int64]) -> Iterator[tuple[str, ImageSource]]:
        for i in indices:
            yield paths[i], base / paths[i]

    return LabelledImages(np.array([label for _, label in there], np.int64), read)


class _Present:
    """Which files are below a folder: one listing per folder, since a call per file takes minutes on network disks."""

    def __init__(self, base: Path):
        self._base = base
        self._folders: dict[str, set[str]] = {}

    def __contains__(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        if folder not in self._folders:
            if ".." in PurePosixPath(path).parts or path.startswith("/"):
                raise DatasetError(
                    f"{self._base}: its lists name {path}, which is outside that folder; fetch them again"
                )
            try:
                with os.scandir(self._base / folder) as entries:
                    self._folders[folder] = {entry.name for entry in entries}
            except (FileNotFoundError, NotADirectoryError):
                self._folders[folder] = set()
        return name in self._folders[folder]


def _apart(base: Path, splits: dict[str, Labelled]) -> None:
    seen: dict[str, str] = {}
    for split, files in splits.items():
        for path, _ in files:
            if path in seen:
                raise DatasetError(
                    f"{base}: {path} is listed in {seen[path]} and again in {split}; fetch the lists again"
                )
            seen[path] = split


def lines(path: Path) -> list[str]:
    """The lines of a text file, stripped, without empty ones; raises DatasetError if it cannot be read."""
    return [line.strip() for line in text(path).splitlines() if line.strip()]


def text(path: Path) -> str:
    """A text file, in UTF-8 or, as some of the older lists are, in Latin-1; raises DatasetError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror or error}); unpack its archive again") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def fields(path: Path, count: int) -> list[list[str]]:
    """The first `count` fields of each line; the last of them includes the rest of the line.

    Raises DatasetError, naming the line, where one has fewer.
    """
    rows = []
    for number, line in enumerate(lines(path), start=1):
        parts = line.split(None, count - 1)
        if len(parts) < count:
            raise DatasetError(f"{path}: line {number} is {line[:80]!r}, where {count} fields are expected")
        rows.append(parts)
    return rows


def matlab(path: Path, *names: str) -> list[Any]:
    """Variables of a MATLAB file, by name, with dimensions of length one squeezed; raises DatasetError."""
    from scipy.io import loadmat

    try:
        variables = loadmat(path, squeeze_me=True)
    except MemoryError:
        raise
    except Exception as error:  # SciPy's reader raises errors of many kinds on broken files
        raise DatasetError(f"{path}: not readable as a MATLAB file ({error}); fetch it again") from error
    absent = [name for name in names if name not in variables]
    if absent:
        raise DatasetError(f"{path}: has no {listed(absent)}; it is not the dataset's own file, fetch it again")
    return [variables[name] for name in names]


def records(path: Path, name: str, *columns: str) -> list[tuple[Any, ...]]:
    """Chosen columns of a MATLAB file's array of structures; raises DatasetError."""
    table = np.atleast_1d(matlab(path, name)[0])
    absent = [column for column in columns if column not in (table.dtype.names or ())]
    if absent:
        raise DatasetError(f"{path}: {name} has no {listed(absent)}; it is not the dataset's own file, fetch it again")
    return [tuple(row[column] for column in columns) for row in table]
