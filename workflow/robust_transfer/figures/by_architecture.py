"""Figures 2 and 3: accuracy by architecture, standard against best robust, one panel per target.

All panels of a figure span the same number of points, so that a difference of one point is as high in each. The
difference stands above each pair in numbers, and below it the eps that was chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robust_transfer.configuration.training import NORM_LABELS
from robust_transfer.figures import legends, style
from robust_transfer.figures.axes import architecture_ticks, scales, span_limits
from robust_transfer.figures.beside import NOTHING, TITLE, draw_differences
from robust_transfer.figures.cells import NOT_MEASURED, Cells, Panel, shown_mode
from robust_transfer.figures.drawing import Drawing
from robust_transfer.figures.estimates import Comparison, Estimate
from robust_transfer.figures.kinds import comparison_of_kind, kind_of, named
from robust_transfer.figures.labels import architecture_label, signed
from robust_transfer.figures.numbers import Number, columns, number
from robust_transfer.figures.pairs import differences, paired
from robust_transfer.figures.protocols import FIXED_FEATURE, FULL_NETWORK, MODE_LABELS
from robust_transfer.tables.flags import DAGGER
from robust_transfer.tables.key import BEST_ROBUST

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLUMNS = columns("chosen_eps")

PLACES = {"standard": -0.26, "robust": 0.0, "fixed": 0.26}
"""Where in an architecture's slot, which is 1 wide, each of the three lies."""
LOOKS: dict[str, style.Look] = {
    "standard": {"marker": "o", "color": style.STANDARD},
    "robust": {"marker": "o", "color": style.ROBUST},
    "fixed": {"marker": "D", "color": style.FIXED},
}
SERIES = {"standard": "standard", "best robust": "robust", "fixed eps": "fixed"}
"""The names of the three in the CSV, and ours."""
HEAD = 0.2
"""Share of a panel above the dots, where the differences stand."""

Slots = dict[str, Comparison]
"""The comparison of every architecture of a panel."""


@dataclass(frozen=True)
class Shown:
    """What a figure of this kind shows."""

    mode: str
    archs: tuple[str, ...]
    """Architectures that may have a slot, in order."""
    best: bool
    """The pair is standard and best robust; else standard and the eps fixed beforehand."""

    def pair(self, comparison: Comparison) -> Estimate | None:
        """The robust one of the pair."""
        return comparison.robust if self.best else comparison.fixed

    def rows(self, comparison: Comparison) -> dict[str, Estimate]:
        """The numbers of a slot that were measured."""
        named = {name: getattr(comparison, name) for name in PLACES if self.best or name != "robust"}
        return {name: row for name, row in named.items() if row}


def fixed_feature(results: pd.DataFrame) -> Drawing:
    """Figure 2."""
    cells = Cells(results)
    return _draw(cells, Shown(FIXED_FEATURE, cells.about.ordered, best=True))


def full_network(results: pd.DataFrame) -> Drawing:
    """Figure 3."""
    cells = Cells(results)
    return _draw(cells, Shown(FULL_NETWORK, cells.about.ordered, best=True))


def other_architectures(results: pd.DataFrame) -> Drawing:
    """Standard against the eps fixed beforehand, for architectures beside those of the width figure."""
    cells = Cells(results)
    mode = FULL_NETWORK if cells.protocols(FULL_NETWORK) else shown_mode(cells)
    others = tuple(arch for arch in cells.about.ordered if arch not in cells.about.widths)
    return _draw(cells, Shown(mode, others, best=False))


def _draw(cells: Cells, shown: Shown) -> Drawing:
    every = {panel: _slots(cells, panel, shown) for panel in cells.panels(shown.mode)}
    archs = [arch for arch in shown.archs if any(shown.pair(slots[arch]) for slots in every.values())]
    archs = archs or [arch for arch in shown.archs if any(shown.rows(slots[arch]) for slots in every.values())]
    panels = _panels(every, archs, shown)
    measured = {arch for slots in every.values() for arch, one in slots.items() if shown.rows(one)}
    listed = [arch for arch in shown.archs if arch in archs or arch not in measured]
    numbers = [one for panel in every for arch in listed for one in _numbers(cells, panel, arch, every[panel][arch])]
    if not panels:
        what = "" if shown.best else " of other architectures"
        return Drawing(style.nothing(f"{MODE_LABELS[shown.mode]} transfer{what}: {NOT_MEASURED}"), numbers)
    theirs = {panel: _behind(cells, panel, shown, archs) for panel in panels}
    numbers = paired([*numbers, *(one for panel in panels for one in _numbers_behind(cells, panel, theirs[panel]))])
    compared = bool(differences(numbers))
    titles = [*(panel.label for panel in panels), *[TITLE] * compared]
    most = next(count for count, slots in ((6, 1), (4, 5), (3, 7), (2, 12), (1, math.inf)) if len(archs) <= slots)
    figure, axes = style.panels(
        titles, row_height=1.4, extra_height=0.3, columns=style.in_a_row(len(titles), most), wide_last=compared
    )
    drawn = {panel: _drawn(shown, every[panel], theirs[panel], archs) for panel in panels}
    spans = dict(zip(panels, scales(list(drawn.values())), strict=True))
    for panel, ax in zip(panels, axes, strict=False):
        span_limits(ax, drawn[panel], spans[panel], head=HEAD)
        if spans[panel] > min(spans.values()):
            ax.text(0.02, 0.03, "own scale", transform=ax.transAxes, fontsize=style.SMALL, style="italic")
        for slot, arch in enumerate(archs):
            _slot(ax, slot, cells, panel, arch, every[panel][arch], theirs[panel].get(arch), shown)
        architecture_ticks(ax, archs, labelled=style.in_last_row(axes[: len(panels)], ax))
    if compared:
        labels = {panel.target.name: panel.target.label for panel in panels}
        draw_differences(axes[-1], numbers, labels, lambda one: LOOKS[SERIES[str(one["series"])]])
    own = len(set(spans.values())) > 1
    remarks = legends.remarks(figure, _remarks(cells, every, panels, archs, shown, own_scale=own))
    legends.draw(figure, _handles(cells, panels, shown, theirs), remarks)
    figure.supylabel(f"{MODE_LABELS[shown.mode]} accuracy (%)", fontsize=7)
    return Drawing(figure, numbers)


def _panels(every: dict[Panel, Slots], archs: Sequence[str], shown: Shown) -> list[Panel]:
    """Those with a pair, and of targets without any the first where something was measured."""
    found = [panel for panel, slots in every.items() if any(shown.rows(slots[arch]) for arch in archs)]
    pairs = {panel for panel in found if any(shown.pair(every[panel][arch]) for arch in archs)}
    with_pair = {panel.target.name for panel in pairs}
    first = {panel.target.name: panel for panel in reversed(found)}
    return [
        one for one in found if one in pairs or (one.target.name not in with_pair and one is first[one.target.name])
    ]


def _slots(cells: Cells, panel: Panel, shown: Shown) -> Slots:
    """The comparison of every architecture, with intervals of one kind."""
    found = {arch: cells.comparison(panel, arch) for arch in shown.archs}
    kind = kind_of(row for comparison in found.values() for row in shown.rows(comparison).values())
    return {arch: comparison_of_kind(kind, comparison) for arch, comparison in found.items()}


def _behind(cells: Cells, panel: Panel, shown: Shown, archs: Sequence[str]) -> Slots:
    """The published comparisons behind those of a panel of ours."""
    theirs = cells.behind(panel)
    if theirs is None or cells.published is None:
        return {}
    found = {arch: cells.published.comparison(theirs, arch) for arch in archs}
    return {arch: comparison for arch, comparison in found.items() if shown.rows(comparison)}


def _drawn(shown: Shown, ours: Slots, theirs: Slots, archs: Sequence[str]) -> list[Estimate]:
    """Everything in a panel."""
    return [
        row for slots in (ours, theirs) for arch in archs if arch in slots for row in shown.rows(slots[arch]).values()
    ]


def _slot(
    ax: Axes,
    slot: int,
    cells: Cells,
    panel: Panel,
    arch: str,
    ours: Comparison,
    theirs: Comparison | None,
    shown: Shown,
) -> None:
    """Dots with intervals, published ones hollow behind, single seeds beside them, and above what they differ by."""
    rows = shown.rows(ours)
    eps = {"standard": "0", "robust": _chosen_eps(ours), "fixed": cells.about.fixed_eps.get(panel.norm, "")}
    for name, row in (shown.rows(theirs) if theirs else {}).items():
        look: style.Look = {"mfc": "white", "mec": LOOKS[name]["color"], "mew": 0.8, "ms": 5.5, "zorder": 1.5}
        ax.plot([slot + PLACES[name]], [row.value], LOOKS[name]["marker"], **look)
    for name, row in rows.items():
        x = slot + PLACES[name]
        ax.errorbar(x, row.value, style.whiskers([row]), fmt="none", ecolor=style.INK, elinewidth=0.7, zorder=3)
        ax.plot([x], [row.value], ls="", ms=3.4 if name != "fixed" else 2.8, mew=0.0, zorder=3.5, **LOOKS[name])
        style.daggers(ax, [x], [row])
        style.seed_dots(ax, x + 0.1, cells.seeds(panel, arch, eps[name]))
    words: style.Look = {"transform": ax.get_xaxis_transform(), "ha": "center", "va": "top", "fontsize": 5}
    ax.text(slot, 0.99, _header(ours, shown) if rows else NOT_MEASURED.replace(" ", "\n"), color=style.INK, **words)


def _header(comparison: Comparison, shown: Shown) -> str:
    """What a pair differs by in points, with a star where the interval excludes 0, and the eps that was chosen."""
    standard, robust = comparison.standard, shown.pair(comparison)
    if standard is None or robust is None:
        return f"no\n{'standard' if standard is None else 'robust'}"
    if not shown.best:
        return signed(robust.value - standard.value)
    difference = comparison.difference.value if comparison.difference else robust.value - standard.value
    mark = DAGGER if comparison.failed else "*" * comparison.decided
    return f"{signed(difference)}{mark}\nε {_chosen_eps(comparison)}"


def _numbers(cells: Cells, panel: Panel, arch: str, comparison: Comparison) -> list[Number]:
    fixed_eps = cells.about.fixed_eps.get(panel.norm, "")
    return [
        number(panel, "standard", arch, "0", comparison.standard, chosen_eps=None),
        number(panel, "best robust", arch, BEST_ROBUST, comparison.robust, chosen_eps=_chosen_eps(comparison)),
        number(panel, "fixed eps", arch, fixed_eps, comparison.fixed, chosen_eps=None),
    ]


def _numbers_behind(cells: Cells, panel: Panel, theirs: Slots) -> list[Number]:
    behind = cells.behind(panel)
    if behind is None or cells.published is None:
        return []
    return [one for arch, of in theirs.items() for one in _numbers(cells.published, behind, arch, of) if one["value"]]


def _chosen_eps(comparison: Comparison) -> str:
    return str(comparison.robust.chosen["eps"]) if comparison.robust else ""


def _remarks(
    cells: Cells,
    every: dict[Panel, Slots],
    panels: Sequence[Panel],
    archs: Sequence[str],
    shown: Shown,
    *,
    own_scale: bool,
) -> list[str]:
    """What the numbers above the dots are, what the intervals are over, and what is left out."""
    robust = "best robust" if shown.best else "robust"
    starred = any(slots[arch].decided for slots in every.values() for arch in archs) and shown.best
    said = [
        f"numbers: {robust} less standard, in points{', * its interval excludes 0' if starred else ''}"
        f"{'; below, the ε chosen' if shown.best else ''}"
    ]
    but = ", but for those with a scale of their own" if own_scale else ""
    said.append(f"all panels span the same number of points{but}")
    said += cells.remarks(cells.shown(shown.mode))
    said += named([row for one in every[panel].values() for row in shown.rows(one).values()] for panel in panels)
    without = [panel for panel in every if panel not in panels]
    nowhere = [panel for panel in without if not any(shown.rows(one) for one in every[panel].values())]
    unmeasured = [arch for arch in shown.archs if not any(shown.rows(slots[arch]) for slots in every.values())]
    names = [panel.label for panel in nowhere] + [architecture_label(arch) for arch in unmeasured]
    said += [f"{NOT_MEASURED}: {', '.join(names)}"] * bool(names)
    names = [panel.label for panel in without if panel not in nowhere]
    names += [architecture_label(arch) for arch in shown.archs if arch not in (*archs, *unmeasured)]
    said += [f"no {robust} network: {', '.join(names)}"] * bool(names)
    return said + [NOTHING] * (cells.published is not None and not any(map(cells.behind, panels)))


def _handles(cells: Cells, panels: Sequence[Panel], shown: Shown, theirs: dict[Panel, Slots]) -> list[Any]:
    from matplotlib.lines import Line2D

    norms = dict.fromkeys(panel.norm for panel in panels)
    fixed = ", ".join(
        cells.about.fixed_eps[norm] + (f" ({NORM_LABELS.get(norm, norm)})" if len(norms) > 1 else "")
        for norm in norms
        if norm in cells.about.fixed_eps
    )
    names = {"standard": "standard (ε 0)", "robust": f"best robust, ε chosen on {cells.selection}"}
    names = {name: label for name, label in names.items() if shown.best or name != "robust"}
    names |= {"fixed": f"robust, ε {fixed}"} if fixed else {}
    handles: list[Any] = [Line2D([], [], ls="", label=label, **LOOKS[name]) for name, label in names.items()]
    look: style.Look = {"ls": "", "marker": "o", "mfc": "white", "mec": style.INK, "mew": 0.8, "ms": 5.5}
    return [*handles, *[Line2D([], [], label="published", **look)] * any(theirs.values())]
