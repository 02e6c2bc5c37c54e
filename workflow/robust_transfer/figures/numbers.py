"""The numbers in a figure or table, that its CSV lists: no colours, no matplotlib."""

from __future__ import annotations

from robust_transfer.figures.cells import Panel
from robust_transfer.figures.estimates import Estimate

Number = dict[str, object]
"""One drawn mark: a line of the CSV; None is an empty field."""
PANEL = ("experiment", "target", "mode", "protocol", "deviations", "norm", "metric")
"""Columns that say which panel, or line of a table, it is in."""
WHICH = (*PANEL, "series", "arch", "eps")
"""Columns that say which mark it is."""
WHAT = ("value", "ci_low", "ci_high", "ci_kind", "n", "flags")


def columns(*more: str) -> tuple[str, ...]:
    """The columns of numbers that `number` makes with `more`. A CSV without numbers has them too."""
    return (*WHICH, *more, *WHAT)


COLUMNS = columns()
"""Those of a figure whose module has no `COLUMNS` of its own."""


def of_panel(panel: Panel) -> Number:
    """The columns `PANEL` of a line."""
    how = panel.protocol
    values = (panel.experiment, panel.target.name, how.mode, how.name, how.deviations, panel.norm, panel.target.metric)
    return dict(zip(PANEL, values, strict=True))


def number(panel: Panel, series: str, arch: str, eps: str, row: Estimate | None, **more: object) -> Number:
    """A line of the CSV: which mark it is, and its value and interval in percent; None where not measured."""
    return {
        **of_panel(panel),
        "series": series,
        "arch": arch,
        "eps": eps,
        **more,
        "value": row.value if row else None,
        "ci_low": row.ci_low if row else None,
        "ci_high": row.ci_high if row else None,
        "ci_kind": row.ci_kind if row else None,
        "n": row.n if row else None,
        "flags": (row.flags or None) if row else None,
    }
