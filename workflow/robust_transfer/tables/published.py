"""The paper's published numbers, from `published/*.csv`, as rows of the results table.

`published/README.md` says what each file holds and where its numbers were read. One cell may have several published
numbers, which `edition` tells apart; of those, at most one is marked as the one to draw beside ours. Importing this
takes milliseconds: it reads nothing, and `table.py`, which imports pyarrow, waits until rows are asked for.
"""

from __future__ import annotations

import csv
import functools
import json
import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robust_transfer.tables.results import Row

FOLDER = Path(__file__).parents[3] / "published"
IMAGENET = "imagenet.csv"
FILES = (IMAGENET, "imagenet_unreleased.csv", "transfer.csv", "headline.csv", "stylized.csv", "single_runs.csv")
"""In the order of the rows that `published_rows` gives."""
RELEASED = "released"
"""Recipe of the 67 networks whose weights the authors released."""
UNRELEASED = "unreleased"
"""Recipe of networks the authors measured and did not release: the standard ones of the Linf tables, and those \
trained on stylized ImageNet."""
EDITIONS = ("submission", "submission, headline", "submission, figure 8", "release", "release, single run")
MARKS = ("edition", "default", "provenance")
"""Columns of the files beside those of the results table."""
MAY_BE_EMPTY = ("ci_low", "ci_high", "ci_kind")
"""Columns that are never null in our table; no interval was published as a number."""


class PublishedError(ValueError):
    """A file of published numbers that is missing or wrong; the message names file, line and mend."""


@dataclass(frozen=True)
class PublishedNumber:
    """One published number."""

    row: Row
    edition: str
    """One of `EDITIONS`."""
    default: bool
    """To be drawn beside ours. At most one number is, of those that figures have the same place for: one target,
    mode, protocol, variant, architecture, norm and eps, whatever the source and the recipe."""
    provenance: str
    """`submission` or `release`, and the file in that repository."""


@functools.cache
def read_published(folder: Path = FOLDER) -> tuple[PublishedNumber, ...]:
    """Every published number, file by file.

    Raises PublishedError for a file that is missing, for a field that is not what its column holds, and for two
    numbers with one key and edition.
    """
    from robust_transfer.tables.results import Row

    kinds = {name: _kind(hint) for name, hint in typing.get_type_hints(Row).items()}
    found: list[PublishedNumber] = []
    seen: dict[tuple[object, ...], str] = {}
    for name in FILES:
        for where, fields in _lines(folder / name, (*kinds, *MARKS)):
            row = Row(**{column: _value(where, column, fields[column], *kind) for column, kind in kinds.items()})
            number = PublishedNumber(row, fields["edition"], fields["default"] == "yes", fields["provenance"])
            _check(where, number, fields["default"])
            first = seen.setdefault((*row.key, number.edition), where)
            if first != where:
                raise PublishedError(
                    f"{where}: a second number for the cell and edition ({number.edition}) of {first}; an edition has "
                    "one number per cell, so give this one another edition, or delete it"
                )
            found.append(number)
    return tuple(found)


def published_rows(*, edition: str | None = None, folder: Path = FOLDER) -> list[Row]:
    """The numbers of one edition, or (default) those to draw beside ours; their keys are unique.

    Their experiment is `published`, their seeds are null and their intervals NaN. Raises ValueError for an edition
    that does not exist, PublishedError as `read_published`.
    """
    if edition is not None and edition not in EDITIONS:
        raise ValueError(f"edition = {edition!r}: editions are {', '.join(map(repr, EDITIONS))}")
    numbers = read_published(folder)
    return [number.row for number in numbers if (number.default if edition is None else number.edition == edition)]


def published_accuracy(arch: str, norm: str | None, eps: str) -> float | None:
    """Clean ImageNet top-1 accuracy, in percent, of a released network; None if there is no such network.

    `eps` is in its canonical spelling (`3`, `0.25`, `4/255`). At eps 0 the norm does not matter: one standard network
    of each architecture was released. Raises PublishedError as `read_published`.
    """
    return _accuracies().get((arch, "none" if eps == "0" else norm, eps))


@functools.cache
def _accuracies() -> dict[tuple[str, str | None, str], float]:
    return {
        (fields["arch"], fields["norm"], fields["eps"]): float(_value(where, "value", fields["value"], float, False))
        for where, fields in _lines(FOLDER / IMAGENET, ("arch", "norm", "eps", "value"))
    }


def _lines(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
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


def _kind(hint: Any) -> tuple[type, bool]:
    """The type of a column's values, and whether one may be null: `float | None` is (float, True)."""
    options = typing.get_args(hint) or (hint,)
    return next(option for option in options if option is not NoneType), NoneType in options


def _value(where: str, column: str, text: str, kind: type, optional: bool) -> Any:
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


def _check(where: str, number: PublishedNumber, default: str) -> None:
    """What holds for every published number beside its types."""
    row = number.row
    if not 0 <= row.value <= 100:  # false for NaN too
        raise PublishedError(f"{where}: value = {row.value:g}: an accuracy is a percentage, 0 to 100")
    if number.edition not in EDITIONS:
        raise PublishedError(f"{where}: edition = {number.edition!r}: editions are {', '.join(map(repr, EDITIONS))}")
    if default not in ("yes", "no"):
        raise PublishedError(f"{where}: default = {default!r}: expected is yes or no")
    for column in ("variant", "hyperparameters"):
        text = getattr(row, column)
        try:
            if not isinstance(json.loads(text), dict):
                raise ValueError
        except ValueError:
            raise PublishedError(
                f'{where}: {column} = {text!r}: expected is a JSON object, such as {{"eps":"3"}}'
            ) from None
