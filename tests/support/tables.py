"""Rows of tables as tests look at them one by one."""

import json
from types import SimpleNamespace
from typing import Any

import pandas as pd


class Row(SimpleNamespace):
    """A row by attributes; None where it is null, but for floats that are never null in the results table."""

    @property
    def chosen(self) -> dict[str, Any]:
        """The hyperparameters."""
        found: dict[str, Any] = json.loads(self.hyperparameters)
        return found


def rows(table: pd.DataFrame, **where: Any) -> list[Row]:
    """Rows in the table's order whose columns have these values."""
    plain = table.astype("object").where(table.notna() | table.columns.isin(["value", "ci_low", "ci_high"]), None)
    names = [str(name) for name in plain]
    found = [Row(**dict(zip(names, values, strict=True))) for values in plain.itertuples(index=False, name=None)]
    return [row for row in found if all(getattr(row, name) == value for name, value in where.items())]
