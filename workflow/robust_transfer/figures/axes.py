"""Axes: accuracies on the y axis, eps or architectures on the x axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from typing import TYPE_CHECKING

from robust_transfer.configuration.eps import eps_value
from robust_transfer.configuration.training import NORM_LABELS
from robust_transfer.figures.estimates import Estimate
from robust_transfer.figures.labels import architecture_label
from robust_transfer.figures.lettering import wrapped
from robust_transfer.figures.style import SMALL, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes


LEAST_SPAN = 5.0
"""Points that an axis of accuracies spans at the least, so that tenths of a point do not look like much."""


OWN_SCALE = 2.0
"""How many times further apart than in any other panel accuracies lie in one that has a scale of its own."""


def ends_of(rows: Sequence[Estimate]) -> tuple[float, float]:
    """The least and the greatest accuracy or end of an interval; published numbers have no interval."""
    ends = [end for row in rows for end in (row.value, row.ci_low, row.ci_high) if not math.isnan(end)]
    return min(ends), max(ends)


def accuracy_limits(ax: Axes, rows: Sequence[Estimate]) -> None:
    """Limits of a y axis of accuracies in percent: what is drawn and a margin, and at least `LEAST_SPAN` points."""
    low, high = ends_of(rows)
    span = max(high - low, LEAST_SPAN)
    foot, top = (low + high - span) / 2 - 0.08 * span, (low + high + span) / 2 + 0.08 * span
    over = max(0.0, top - (100 + 0.08 * span))
    _limits(ax, max(-0.05 * span, foot - over), top - over)


def scales(panels: Sequence[Sequence[Estimate]]) -> list[float]:
    """Points that the y axis of each panel is to span: as many in each, so that a point is as high in all of them.

    A panel whose accuracies lie more than twice as far apart as those of every other has a scale of its own.
    """
    spans = [max(LEAST_SPAN, high - low) for low, high in map(ends_of, panels)]
    largest = sorted(spans)[-2:]
    shared = largest[0] if len(spans) > 2 and largest[1] > OWN_SCALE * largest[0] else largest[-1]
    return [max(shared, span) for span in spans]


def span_limits(ax: Axes, rows: Sequence[Estimate], span: float, *, head: float) -> None:
    """Limits of a y axis that spans so many points and a margin; `head` is the share above that stays free for text."""
    low, high = ends_of(rows)
    height = 1.14 * span
    foot = min((low + high - height) / 2, 102 - height)
    _limits(ax, foot, foot + height)
    ax.set_ylim(foot, foot + height / (1 - head))


def _limits(ax: Axes, foot: float, top: float) -> None:
    """These limits, with ticks at accuracies that there are."""
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(foot, top)
    ax.set_yticks([tick for tick in ticks if max(foot, 0.0) <= tick <= min(100.0, top)])
    ax.set_ylim(foot, top)


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
    ax.set_xlim(-0.6, len(archs) - 0.4)
    names = [wrapped(architecture_label(arch), 0.9, SMALL) for arch in archs]
    crowded = len(archs) > 2
    look: Look = {"rotation": 35 if len(archs) < 7 else 60, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    ax.set_xticks(range(len(archs)), names if labelled else [""] * len(archs), **look)
    ax.tick_params(axis="x", length=0)
