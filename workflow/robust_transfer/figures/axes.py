"""Axes: accuracies on the y axis, eps or architectures on the x axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from typing import TYPE_CHECKING

from robust_transfer.configuration.eps import eps_value
from robust_transfer.figures.cells import NORM_LABELS, Estimate
from robust_transfer.figures.labels import architecture_label
from robust_transfer.figures.lettering import wrapped
from robust_transfer.figures.style import INK, SMALL, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def accuracy_limits(ax: Axes, rows: Sequence[Estimate], *, bars: bool = False) -> None:
    """Limits of a y axis of accuracies in percent: what is drawn and a margin, within 0 to 100.

    Bars start at 0 unless they would all look the same height; an axis that does not start at 0 bears a break.
    """
    # Published numbers have no interval; their value then is both ends.
    ends = [end for row in rows for end in (row.value, row.ci_low, row.ci_high) if not math.isnan(end)]
    low, high = min(ends), max(ends)
    if bars:
        values = [row.value for row in rows]
        if low < 0.7 * high or max(values) - min(values) < 0.05:
            ax.set_ylim(0, min(104.0, high * 1.06))
            return
        margin = max(0.15 * (high - low), 0.5)
        foot, top = max(0.0, low - 3 * margin), high + margin
        ax.set_yticks([tick for tick in ax.yaxis.get_major_locator().tick_values(foot, top) if _in(tick, foot, top)])
        ax.set_ylim(foot, top)
        kwargs: Look = {"transform": ax.transAxes, "color": INK, "lw": 0.6, "clip_on": False, "zorder": 5}
        ax.plot([-0.02, 0.02], [0.035, 0.065], **kwargs)
        ax.plot([-0.02, 0.02], [0.065, 0.095], **kwargs)
        return
    margin = max(0.08 * (high - low), 0.5)
    ax.set_ylim(max(-2.0, low - margin), min(103.0, high + margin))


def _in(tick: float, foot: float, top: float) -> bool:
    """Whether a tick lies on the axis and clear of the break at its foot."""
    return foot + 0.12 * (top - foot) < tick <= top


@dataclass(frozen=True)
class EpsAxis:
    """An x axis over eps: logarithmic, with 0 set apart on the left."""

    eps: tuple[str, ...]
    norm: str

    @property
    def positions(self) -> dict[str, float]:
        """Where each eps lies on the axis: decades for robust ones, 0 somewhat left of the least of them."""
        robust = {one: log10(eps_value(one)) for one in self.eps if one != "0"}
        if "0" not in self.eps:
            return robust
        places = sorted(robust.values())
        span = places[-1] - places[0] if len(places) > 1 else 1.0
        return {"0": (places[0] if places else 0.0) - max(0.22 * span, 0.15), **robust}

    def label(self) -> str:
        """Name of the axis, with what the numbers under it count."""
        norm = NORM_LABELS.get(self.norm, self.norm)
        return f"ε of pretraining ({norm}{', in 1/255' if self._of_255() else ''})"

    def apply(self, ax: Axes, *, labels: bool, inches: float) -> None:
        """Ticks at every eps; as many labels as fit beside each other on an axis of that many inches."""
        positions = self.positions
        low, high = min(positions.values()), max(positions.values())
        margin = 0.06 * (high - low) if high > low else 0.5
        ax.set_xlim(low - margin, high + margin)
        texts = {one: one.removesuffix("/255") if self._of_255() else one for one in self.eps}
        shown = self._fitting(texts, inches / (high - low + 2 * margin)) if labels else set()
        ax.set_xticks(list(positions.values()), [texts[one] if one in shown else "" for one in positions])
        robust = [place for one, place in positions.items() if one != "0"]
        if "0" in positions and robust:
            between = (positions["0"] + min(robust)) / 2
            gap = 0.012 * (high - low + 2 * margin)
            ax.plot(
                [between - gap, between + gap],
                [0, 0],
                transform=ax.get_xaxis_transform(),
                c="white",
                lw=2,
                clip_on=False,
                zorder=9,
            )

    def _of_255(self) -> bool:
        return all(one == "0" or one.endswith("/255") for one in self.eps) and self.eps != ("0",)

    def _fitting(self, texts: dict[str, str], inches_per_decade: float) -> set[str]:
        """Labels that do not touch: 0 and both ends first, then powers of ten, then whatever still fits."""
        positions, shown = self.positions, set[str]()
        order = sorted(self.eps, key=lambda one: (one not in (self.eps[0], self.eps[-1]), not _power_of_ten(one)))
        for one in order:
            half = 0.62 * SMALL / 72 * len(texts[one]) / 2  # DejaVu's digits are .64 em wide, its point .32
            free = all(
                abs(positions[one] - positions[other]) * inches_per_decade
                > half + 0.62 * SMALL / 72 * len(texts[other]) / 2 + 0.04
                for other in shown
            )
            if free:
                shown.add(one)
        return shown


def _power_of_ten(eps: str) -> bool:
    return eps.replace(".", "").strip("0") == "1"


def architecture_ticks(ax: Axes, archs: Sequence[str], *, labelled: bool) -> None:
    """An x axis of architectures at 0, 1, 2, …; names are slanted where there are more than two."""
    ax.set_xlim(-0.6, max(len(archs) - 0.4, 1.0))
    names = [wrapped(architecture_label(arch), 0.9, SMALL) for arch in archs]
    crowded = len(archs) > 2
    look: Look = {"rotation": 35 if len(archs) < 7 else 60, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    ax.set_xticks(range(len(archs)), names if labelled else [""] * len(archs), **look)
    ax.tick_params(axis="x", length=0)
