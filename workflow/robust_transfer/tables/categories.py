"""The order of an experiment's datasets, networks, modes and protocols, as categoricals of its tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from robust_transfer.configuration.eps import eps_value
from robust_transfer.configuration.transfer import PROTOCOLS
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.key import BEST_ARCH, BEST_ROBUST

NORMS = ("none", "l2", "linf")
MODES = ("source", "cue-conflict", "gallery", "fixed-feature", "full-network")


def in_order(table: pd.DataFrame, info: ExperimentInfo) -> pd.DataFrame:
    """The table with target, arch, norm, eps, mode and protocol as categoricals, as far as it has these columns.

    Categories are the values that occur, in the experiment's order; eps grows, and is the one that can be compared with
    `<`. What was chosen, `best` and `best-robust`, comes last.
    """
    orders: dict[str, Iterable[str]] = {
        "target": (info.source, *(target.name for target in info.targets)),
        "arch": info.ordered,
        "norm": NORMS,
        "eps": sorted(set(table["eps"]) - {BEST_ROBUST}, key=eps_value),
        "mode": MODES,
        "protocol": PROTOCOLS,
    }
    columns = {name: _categorical(table[name], order, name == "eps") for name, order in orders.items() if name in table}
    return table.assign(**columns)


def _categorical(values: pd.Series[str], order: Iterable[str], ordered: bool) -> pd.Series[Any]:
    there = [value for value in values.dropna().unique() if value not in (BEST_ARCH, BEST_ROBUST)]
    known = [value for value in order if value in there]
    chosen = [value for value in (BEST_ARCH, BEST_ROBUST) if (values == value).any()]
    return values.astype(pd.CategoricalDtype(list(dict.fromkeys([*known, *there, *chosen])), ordered=ordered))
