"""One number for each question: the rows of a results table that figures would show."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection
from typing import Any

import pandas as pd

from robust_transfer.configuration.transfer import PROTOCOLS
from robust_transfer.tables.errors import TableError
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.key import BEST_ARCH, BEST_ROBUST
from robust_transfer.tables.results import from_most_images

CELL = (
    "source",
    "target",
    "arch",
    "recipe",
    "norm",
    "eps",
    "mode",
    "protocol",
    "variant",
    "images_per_class",
    "training_images",
    "attack",
    "test_set",
)
"""Columns of which one number is wanted for each combination."""


def measured(rows: pd.DataFrame, **columns: object) -> pd.DataFrame:
    """Rows of a results table: those where `columns` have these values, and one for each network, target and mode.

    A value is one of the column's, a collection of several, or None for null; `eps` may be a number. What is not stated
    is what figures show: accuracy on clean test images by the target's metric, hyperparameters chosen as the experiment
    says, by the protocol that figures show and with the fewest deviations from it, on images as they are, from all
    training images (or for a mode and target the most that there are); means over seeds where there are several;
    networks that were not chosen among others and are not texture-robust ones.

    `rows` is what `read_results` gave, or some of its rows. Raises TableError for a column or a value that they lack.
    """
    about, found = ExperimentInfo.of(rows), rows
    for name, wanted in columns.items():
        if name not in rows:
            raise TableError(f"{name}: no such column{_near(name, list(rows.columns))}")
        found = found[_equal(rows, name, wanted).loc[found.index]]
    stated = columns.keys()
    found = _as_shown(found, stated, about)
    return found[~found.duplicated(list(CELL))] if not stated & {"backbone_seed", "transfer_seed"} else found


def _as_shown(rows: pd.DataFrame, stated: Collection[str], about: ExperimentInfo) -> pd.DataFrame:
    """The rows that figures would show, as far as columns that are not `stated` decide it."""
    metrics = about.metrics
    selection = rows["selection"].isna() | (rows["selection"] == about.selection)
    usual: dict[str, pd.Series[Any]] = {
        "split": rows["split"] == "test",
        "metric": rows["metric"] == rows["target"].astype("string").map(metrics).fillna("top1"),
        "selection": selection if (rows["selection"] == about.selection).any() else rows["split"].notna(),
        "attack": rows["attack"].isna(),
        "images_per_class": from_most_images(rows),
        "arch": rows["arch"].astype("string") != BEST_ARCH,
        "eps": rows["eps"].astype("string") != BEST_ROBUST,
        "recipe": ~rows["recipe"].isin(list(about.texture_robust)),
    }
    for name, of_name in usual.items():
        if name not in stated:
            rows = rows[of_name.loc[rows.index]]
    for name, order in (("protocol", _protocols(about)), ("variant", _deviations)):
        if name not in stated and len(rows):
            place = rows[name].astype("object").map(order, na_action=None)
            rows = rows[place == place.groupby([rows["mode"].astype("string")]).transform("min")]
    # Means over more seeds first, as figures take them.
    single = rows["backbone_seed"].notna().astype("int64") + rows["transfer_seed"].notna()
    return rows.loc[single.sort_values(kind="stable").index]


def _protocols(about: ExperimentInfo) -> Any:
    order = [about.protocol, *PROTOCOLS]
    return lambda name: order.index(name) if isinstance(name, str) and name in order else -1


def _deviations(text: str) -> int:
    """How far a variant is from the protocol: adversarial training farther than other deviations, and images with
    detail or texture taken away farthest."""
    deviations = json.loads(text)
    other_images = "downscaled" in deviations or "stylized" in deviations
    return len(deviations) + 20 * ("attack" in deviations) + 100 * other_images


def _equal(rows: pd.DataFrame, name: str, wanted: object) -> pd.Series[bool]:
    """Where a column has a value, or one of several."""
    values = list(wanted) if isinstance(wanted, list | tuple | set | frozenset) else [wanted]
    equal = pd.Series(False, rows.index)
    for value in values:
        if value is None:
            equal |= rows[name].isna()
            continue
        number = name == "eps" and isinstance(value, int | float)
        column = rows["eps_value"] if number else rows[name].astype("object")
        here = (column == value).fillna(False).astype(bool)
        if not here.any():
            there = [str(one) for one in column.dropna().unique()]
            raise TableError(f"{name} = {value}: no such row{_near(str(value), there)}")
        equal |= here
    return equal


def _near(wrong: str, known: list[str]) -> str:
    near = difflib.get_close_matches(wrong, known, n=1)
    listed = f"there are {', '.join(known[:20])}{', …' if len(known) > 20 else ''}"
    return f"; did you mean {near[0]}? {listed}" if near else f"; {listed}"
