"""The files of the paper's published numbers, `published/*.csv`, and the accuracies of the released networks in them.

`published/README.md` says what each file holds and where its numbers were read; `published_results.py` has all of them
as a DataFrame. Importing this module takes milliseconds, since a stage needs one number of it: it reads nothing, and
imports neither pandas nor pyarrow.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[3] / "published"
IMAGENET = "imagenet.csv"
PUBLISHED = "published"
"""The experiment that published numbers are of, in the column `experiment` of their rows."""
RELEASED = "released"
"""Recipe of the 67 networks whose weights the authors released."""
MAY_BE_EMPTY = ("ci_low", "ci_high", "ci_kind")
"""Columns that are never null in our table; no interval was published as a number."""


class PublishedError(ValueError):
    """A file of published numbers that is missing or wrong; the message names file, line and the fix."""


def published_accuracy(arch: str, norm: str | None, eps: str) -> float | None:
    """Clean ImageNet top-1 accuracy, in percent, of a released network; None if there is no such network.

    `eps` is in its canonical spelling (`3`, `0.25`, `4/255`). At eps 0 the norm does not matter: one standard network
    of each architecture was released. Raises PublishedError if `imagenet.csv` is missing or wrong.
    """
    return _accuracies().get((arch, "none" if eps == "0" else norm, eps))


@functools.cache
def _accuracies() -> dict[tuple[str, str | None, str], float]:
    return {
        (fields["arch"], fields["norm"], fields["eps"]): float(parsed(where, "value", fields["value"], float, False))
        for where, fields in lines_of(FOLDER / IMAGENET, ("arch", "norm", "eps", "value"))
    }


def digest_of_published() -> str:
    """Twelve hexadecimal digits that change when a file of published numbers does."""
    found = hashlib.sha256()
    for path in sorted(FOLDER.glob("*.csv")):
        found.update(path.read_bytes())
    return found.hexdigest()[:12]


def lines_of(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """A file's lines, each with where it is and its fields, of which these columns are there."""
    try:
        file = path.open(newline="", encoding="utf-8")
    except FileNotFoundError:
        raise PublishedError(f"{path}: no such file; it is part of the repository: `git checkout -- {path}`") from None
    with file:
        reader = csv.reader(file)
        header = next(reader, [])
        missing = [column for column in columns if column not in header]
        if missing:
            raise PublishedError(f"{path}:1: no column {', '.join(missing)}; published/README.md lists the columns")
        for fields in reader:
            where = f"{path}:{reader.line_num}"
            if len(fields) != len(header):
                raise PublishedError(
                    f"{where}: {len(fields)} fields under {len(header)} columns; quote those with commas"
                )
            yield where, dict(zip(header, fields, strict=True))


def parsed(where: str, column: str, text: str, kind: type, optional: bool) -> Any:
    """A field as the results table has it: an empty one is null, or no interval."""
    if not text and optional:
        return None
    if not text and column in MAY_BE_EMPTY:
        return math.nan if kind is float else ""
    try:
        if not text:
            raise ValueError
        return kind(text)
    except ValueError:
        expected = {int: "a whole number", float: "a number", str: "a text"}[kind]
        raise PublishedError(f"{where}: {column} = {text!r}: expected is {expected}") from None
