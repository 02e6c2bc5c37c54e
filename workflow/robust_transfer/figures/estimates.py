"""Estimates: accuracies with their intervals, and standard against robust ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from robust_transfer.tables.flags import failures, joined


@dataclass(frozen=True)
class Estimate:
    """A measured accuracy in percent, or a difference in percentage points, with its 95 % interval.

    The fields are columns of the results table.
    """

    value: float
    ci_low: float
    ci_high: float
    ci_kind: str
    n: int
    backbone_seed: int | None
    transfer_seed: int | None
    hyperparameters: str
    flags: str | None = None

    @property
    def failed(self) -> tuple[str, ...]:
        """The flags by which the number counts for neither side; it is marked."""
        return failures(self.flags)

    @property
    def chosen(self) -> dict[str, Any]:
        """The hyperparameters as a dict: where the network was chosen `eps`, `arch` and what else the choice says."""
        found: dict[str, Any] = json.loads(self.hyperparameters)
        return found


@dataclass(frozen=True)
class Comparison:
    """Standard, best robust and robust at the eps fixed beforehand, side by side; None where not measured."""

    standard: Estimate | None
    robust: Estimate | None
    fixed: Estimate | None
    difference: Estimate | None
    """Best robust less standard, paired."""
    unseen: Estimate | None = None
    """The difference on images that a choice on test images did not see; None where it was not made on test images."""

    @property
    def failed(self) -> tuple[str, ...]:
        """The flags by which standard or best robust, and so their difference, count for neither side."""
        rows = (self.standard, self.robust, self.difference)
        return failures(joined(row.flags for row in rows if row))

    @property
    def decided(self) -> bool:
        """The interval of the difference excludes 0, and nothing behind it failed."""
        excluded = self.difference is not None and (self.difference.ci_low > 0 or self.difference.ci_high < 0)
        return excluded and not self.failed

    @property
    def ahead(self) -> str:
        """Which is ahead, as printed to one decimal: `standard`, `robust`, or neither, as where one of both failed."""
        if self.standard is None or self.robust is None or self.failed:
            return ""
        standard, robust = round(self.standard.value, 1), round(self.robust.value, 1)
        return "" if standard == robust else "standard" if standard > robust else "robust"


def estimates_by(rows: pd.DataFrame, columns: Sequence[str]) -> dict[tuple[Any, ...], list[Estimate]]:
    """The numbers of rows as estimates, by the values of columns; means over more seeds first, then table order."""
    single = [rows["transfer_seed"].notna(), rows["backbone_seed"].notna()]
    rows = rows.iloc[np.lexsort(single)]  # by backbone seed first, as the last key is the primary one
    fields = [_plain(rows[name]) for name in Estimate.__dataclass_fields__]
    estimates = [Estimate(*one) for one in zip(*fields, strict=True)]
    found: dict[tuple[Any, ...], list[Estimate]] = {}
    for key, one in zip(zip(*(rows[column].tolist() for column in columns), strict=True), estimates, strict=True):
        found.setdefault(key, []).append(one)
    return found


def _plain(column: pd.Series[Any]) -> list[Any]:
    """Plain Python values; what is null is None, but for floats, whose NaN stays."""
    values = column if column.dtype == "float64" else column.astype("object").where(column.notna(), None)
    return list(values.tolist())
