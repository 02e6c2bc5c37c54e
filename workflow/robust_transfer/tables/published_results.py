"""The paper's published numbers as a DataFrame in the columns of the results table, and shape biases of its networks.

One cell may have several published numbers, which `edition` tells apart; of those, at most one is marked as the one to
draw beside ours.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pandas as pd

from robust_transfer.tables.published import FOLDER, IMAGENET, PublishedError, lines_of, parsed
from robust_transfer.tables.results import KEY, RESULTS

FEW_IMAGES = "few_images.csv"
"""Not the paper's: transfer by the number of training images in total. It has a column more, `training_images`."""
FILES = (
    IMAGENET,
    "imagenet_unreleased.csv",
    "transfer.csv",
    "headline.csv",
    "stylized.csv",
    "single_runs.csv",
    "shape_bias.csv",
    FEW_IMAGES,
    "robust_finetuning.csv",
)
"""In the order of the rows that `read_published` gives."""
UNRELEASED = "unreleased"
"""Recipe of networks the authors measured and did not release: the standard ones of the Linf tables, and those \
trained on stylized ImageNet."""
EDITIONS = (
    *("submission", "submission, headline", "submission, figure 8", "release", "release, single run"),
    *("bias study", "cue-conflict study", "training set sizes", "robust fine-tuning"),
)
TRAINING_IMAGES = "training_images"
MARKS = ("edition", "default", "provenance")
"""Columns of the files beside those of the results table."""
_PYTHON = {"string": str, "double": float, "int32": int}


@functools.cache
def _read_published(folder: Path) -> pd.DataFrame:
    kinds = {
        field.name: (_PYTHON[str(field.type)], field.name in RESULTS.nullable)
        for field in RESULTS.schema
        if field.name not in RESULTS.added
    }
    found: list[dict[str, Any]] = []
    seen: dict[tuple[object, ...], str] = {}
    for name in FILES:
        for where, fields in lines_of(folder / name, (*kinds, *MARKS)):
            row = {column: parsed(where, column, fields[column], *kind) for column, kind in kinds.items()}
            if TRAINING_IMAGES in fields:
                row[TRAINING_IMAGES] = parsed(where, TRAINING_IMAGES, fields[TRAINING_IMAGES], int, True)
            _check(where, row, fields)
            first = seen.setdefault((*(row.get(column) for column in KEY), fields["edition"]), where)
            if first != where:
                raise PublishedError(
                    f"{where}: a second number for the cell and edition ({fields['edition']}) of {first}; an edition "
                    "has one number per cell, so give this one another edition, or delete it"
                )
            found.append({**row, **{mark: fields[mark] for mark in MARKS}})
    numbers = pd.DataFrame.from_records(found)
    marks = {"edition": numbers["edition"], "default": numbers["default"] == "yes", "provenance": numbers["provenance"]}
    return RESULTS.frame(numbers).assign(**marks)


def read_published(folder: Path = FOLDER) -> pd.DataFrame:
    """Every published number, file by file, in the columns of the results table and three more.

    edition     one of `EDITIONS`: which publication the number is of
    default     whether it is to be drawn beside ours. At most one number is, of those that figures have the same place
                for: one target, mode, protocol, variant, architecture, norm and eps, whatever the source and the recipe
                (but of shape biases one for each recipe, which their figure tells apart)
    provenance  the publication that the edition is of, and the file in its repository

    Raises PublishedError for a file that is missing, for a field that is not what its column holds, and for two
    numbers with one key and edition.
    """
    return _read_published(folder).copy()


def published_rows(*, edition: str | None = None, folder: Path = FOLDER) -> pd.DataFrame:
    """The numbers of one edition, or (default) those to draw beside ours, as rows of the results table.

    Their keys are unique, their experiment is `published`, their seeds are null and their intervals NaN. Raises
    ValueError for an edition that does not exist, PublishedError as `read_published`.
    """
    if edition is not None and edition not in EDITIONS:
        raise ValueError(f"edition = {edition!r}: editions are {', '.join(map(repr, EDITIONS))}")
    numbers = read_published(folder)
    wanted = numbers["default"] if edition is None else numbers["edition"] == edition
    return numbers.loc[wanted, RESULTS.columns].reset_index(drop=True)


def unreleased_rows(folder: Path = FOLDER) -> pd.DataFrame:
    """The numbers of the standard networks of the L∞ tables, which are not drawn beside ours: a second one at eps 0."""
    numbers = read_published(folder)
    wanted = (numbers["edition"] == EDITIONS[0]) & (numbers["recipe"] == UNRELEASED)
    return numbers.loc[wanted, RESULTS.columns].reset_index(drop=True)


def few_images_rows(folder: Path = FOLDER) -> pd.DataFrame:
    """Published numbers by how many training images there were in total, which are not drawn beside ours elsewhere."""
    return published_rows(edition="training set sizes", folder=folder)


def _check(where: str, row: dict[str, Any], fields: dict[str, str]) -> None:
    """What holds for every published number beside its types."""
    edition, default = fields["edition"], fields["default"]
    if not 0 <= row["value"] <= 100:  # false for NaN too
        raise PublishedError(f"{where}: value = {row['value']:g}: an accuracy is a percentage, 0 to 100")
    if edition not in EDITIONS:
        raise PublishedError(f"{where}: edition = {edition!r}: editions are {', '.join(map(repr, EDITIONS))}")
    if default not in ("yes", "no"):
        raise PublishedError(f"{where}: default = {default!r}: expected is yes or no")
    for column in ("variant", "hyperparameters"):
        text = row[column]
        try:
            if not isinstance(json.loads(text), dict):
                raise ValueError
        except ValueError:
            raise PublishedError(
                f'{where}: {column} = {text!r}: expected is a JSON object, such as {{"eps":"3"}}'
            ) from None
