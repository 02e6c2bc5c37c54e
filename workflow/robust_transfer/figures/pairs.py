"""Numbers of ours and published ones that are of the same thing."""

from __future__ import annotations

from collections.abc import Sequence

from robust_transfer.figures.numbers import Number
from robust_transfer.tables.published import PUBLISHED

SAME = (
    "target",
    "mode",
    "norm",
    "metric",
    "series",
    "arch",
    "eps",
    "downscaled",
    "recipe",
    "images_per_class",
    "training_images",
)
"""Columns in which a number of ours and a published one agree that are of the same thing."""


def paired(numbers: Sequence[Number]) -> list[Number]:
    """The numbers of a figure; where it has published ones among ours, ours have two more fields, None without a pair.

    `published`: the published number of the same; `difference`: ours less published, in percentage points.
    """
    theirs = {_key(one): one["value"] for one in numbers if one["experiment"] == PUBLISHED}
    if not theirs or len(theirs) == len(numbers):
        return list(numbers)
    return [one if one["experiment"] == PUBLISHED else {**one, **_pair(one, theirs.get(_key(one)))} for one in numbers]


def differences(numbers: Sequence[Number]) -> list[Number]:
    """Those of our numbers that have a published one beside them."""
    return [one for one in numbers if one.get("difference") is not None]


def _key(number: Number) -> tuple[object, ...]:
    return tuple(number.get(column) for column in SAME)


def _pair(number: Number, published: object) -> Number:
    value = number["value"]
    there = isinstance(value, float) and isinstance(published, float)
    return {"published": published, "difference": value - published if there else None}  # type: ignore[operator]
