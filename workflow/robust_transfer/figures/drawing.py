"""What the module of a picture hands to the stage `figures`: the picture and the numbers in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robust_transfer.figures import style
from robust_transfer.figures.cells import Estimate, Panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Number = dict[str, object]
"""One drawn mark: a line of the CSV; None is an empty field."""


@dataclass(frozen=True)
class Drawing:
    """A figure and the numbers drawn in it."""

    figure: Figure
    numbers: list[Number]

    def write(self, stem: Path) -> None:
        """Write `stem`.png, .pdf and .svg; the same picture gives the same bytes."""
        style.save(self.figure, stem)


def number(panel: Panel, series: str, arch: str, eps: str, row: Estimate | None, **more: object) -> Number:
    """A line of the CSV: which mark it is, and its value and interval in percent; None where not measured."""
    return {
        "target": panel.target.name,
        "mode": panel.protocol.mode,
        "protocol": panel.protocol.name,
        "deviations": panel.protocol.deviations,
        "norm": panel.norm,
        "metric": panel.target.metric,
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
