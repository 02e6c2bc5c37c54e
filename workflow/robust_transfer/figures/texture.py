"""Figure 8: stylized images and texture-robust networks.

8a, one panel for each: accuracy over eps on the source's stylized test images, of networks as they are (top in the
paper) and after full-network transfer to the stylized source (bottom). 8b, one row for each mode and architecture:
standard, best robust and texture-robust networks on every target.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from robust_transfer.figures import style
from robust_transfer.figures.axes import EpsAxis, accuracy_limits
from robust_transfer.figures.cells import (
    FIXED_FEATURE,
    FULL_NETWORK,
    MODE_LABELS,
    NORM_LABELS,
    NOT_MEASURED,
    Cells,
    Estimate,
    Panel,
    Protocol,
)
from robust_transfer.figures.drawing import Drawing
from robust_transfer.figures.kinds import kind_of, named, of_kind
from robust_transfer.figures.labels import architecture_label
from robust_transfer.figures.lettering import wrapped
from robust_transfer.figures.numbers import Number, columns, number
from robust_transfer.tables.experiment_info import Target
from robust_transfer.tables.key import BEST_ROBUST

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = columns("recipe", "chosen_eps")
TEXTURE_ROBUST = ("#d55e00", "#cc79a7", "#009e73")
"""Colours of texture-robust networks, in the experiment's order."""
AS_THEY_ARE = Protocol("source", None, "{}")
ROW_HEIGHT = 1.3

Dots = dict[str, Estimate]
"""By series: standard, best robust, and recipes of texture-robust networks."""


@dataclass(frozen=True)
class _Curves:
    """A panel of 8a: accuracy on the stylized source over eps, by architecture, and of texture-robust networks."""

    panel: Panel
    series: str
    curves: dict[str, list[tuple[str, Estimate]]]
    levels: dict[tuple[str, str], Estimate]
    """By recipe and architecture."""

    @property
    def rows(self) -> list[Estimate]:
        return [row for curve in self.curves.values() for _, row in curve] + list(self.levels.values())


@dataclass(frozen=True)
class _Groups:
    """A row of 8b: the networks of one architecture on every target, in one mode."""

    label: str
    arch: str
    groups: list[tuple[Panel, Dots]]

    @property
    def rows(self) -> list[Estimate]:
        return [row for _, dots in self.groups for row in dots.values()]


class _Texture:
    """What the figure asks of a results table."""

    def __init__(self, results: pd.DataFrame) -> None:
        self.native, self.on_stylized = Cells(results), Cells(results, stylized=True)
        self.about = self.native.about
        self.recipes = tuple(self.about.texture_robust)
        radii = results[["norm", "eps", "eps_value"]].dropna().drop_duplicates().sort_values("eps_value", kind="stable")
        self._radii = [(str(norm), str(eps)) for norm, eps, _ in radii.itertuples(index=False, name=None)]
        self._native = {recipe: Cells(results, recipe=recipe) for recipe in self.recipes}
        self._on_stylized = {recipe: Cells(results, recipe=recipe, stylized=True) for recipe in self.recipes}

    @property
    def norms(self) -> list[str]:
        """The norms of robust networks; one where there are none."""
        return list(dict.fromkeys(norm for norm, _ in self._radii if norm != "none")) or ["l2"]

    def eps(self, norm: str) -> tuple[str, ...]:
        """Every eps of networks under a norm, transferred or not, growing."""
        return tuple(dict.fromkeys(eps for of, eps in self._radii if of in ("none", norm)))

    def _mark(self, norm: str) -> str:
        return f", {NORM_LABELS.get(norm, norm)}" if len(self.norms) > 1 else ""

    def curves(self) -> list[_Curves]:
        """The panels of 8a that were measured, for each norm."""
        found = []
        for norm in self.norms:
            for protocol, label in (
                (AS_THEY_ARE, "tested, no training"),
                (self.on_stylized.shown(FULL_NETWORK), "full-network transfer"),
            ):
                if protocol is None:
                    continue
                source = Target(self.about.source, self.about.source_label, self.about.source_metric)
                panel = Panel(source, protocol, norm, f"Stylized {source.label}: {label}{self._mark(norm)}")
                found.append(self._curves(panel, label))
        return [one for one in found if one.rows]

    def _curves(self, panel: Panel, series: str) -> _Curves:
        every = self.eps(panel.norm)
        curves = {
            arch: [(eps, row) for eps in every if (row := _on_source(self.on_stylized, panel, arch, eps))]
            for arch in self.about.ordered
        }
        levels = {
            (recipe, arch): row
            for recipe, cells in self._on_stylized.items()
            for arch in self.about.ordered
            if (row := _on_source(cells, panel, arch, "0"))
        }
        kind = kind_of([*(row for curve in curves.values() for _, row in curve), *levels.values()])
        return _Curves(
            panel,
            series,
            {arch: [(eps, of_kind(kind, row)) for eps, row in curve] for arch, curve in curves.items() if curve},
            {key: of_kind(kind, row) for key, row in levels.items()},
        )

    def groups(self) -> list[_Groups]:
        """The rows of 8b: those with a texture-robust network."""
        found = []
        for mode in (FIXED_FEATURE, FULL_NETWORK):
            for norm in self.norms:
                panels = [panel for panel in self.native.panels(mode) if panel.norm == norm]
                archs = [arch for arch in self.about.ordered if any(self._robust(panel, arch) for panel in panels)]
                for arch in archs:
                    label = f"{MODE_LABELS[mode]}, {architecture_label(arch)}{self._mark(norm)}"
                    found.append(_Groups(label, arch, [(panel, self._dots(panel, arch)) for panel in panels]))
        return found

    def _dots(self, panel: Panel, arch: str) -> Dots:
        rows = {
            "standard": self.native.cell(panel, arch, "0"),
            "best robust": self.native.cell(panel, arch, BEST_ROBUST),
            **self._robust(panel, arch),
        }
        there = {series: row for series, row in rows.items() if row}
        kind = kind_of(there.values())
        return {series: of_kind(kind, row) for series, row in there.items()}

    def _robust(self, panel: Panel, arch: str) -> Dots:
        """Texture-robust networks, which have an eps of 0, by recipe."""
        rows = {recipe: cells.cell(panel, arch, "0") for recipe, cells in self._native.items()}
        return {recipe: row for recipe, row in rows.items() if row}


def texture(results: pd.DataFrame) -> Drawing:
    """Draw what there is of Figure 8."""
    asked = _Texture(results)
    curves, groups = asked.curves(), asked.groups()
    if not curves and not groups:
        return Drawing(style.nothing(f"Stylized images and texture-robust networks: {NOT_MEASURED}"), [])
    above = -(-len(curves) // 2)
    figure = style.figure(style.PAGE, (above + len(groups)) * ROW_HEIGHT + 0.35)
    grid = figure.add_gridspec(above + len(groups), 2)
    archs = [arch for arch in asked.about.ordered if any(arch in one.curves for one in curves)]
    for i, one in enumerate(curves):
        ax = figure.add_subplot(grid[i // 2, i % 2])
        _draw_curves(ax, one, archs, asked, inches=style.PAGE / 2 - 0.6)
    for i, row in enumerate(groups):
        _draw_groups(figure.add_subplot(grid[above + i, :]), row, asked.recipes, last=i + 1 == len(groups))
    figure.supylabel("Accuracy (%)", fontsize=7)
    _legends(figure, asked, curves, groups, archs)
    return Drawing(figure, [*_curve_numbers(curves), *_group_numbers(groups)])


def _on_source(cells: Cells, panel: Panel, arch: str, eps: str) -> Estimate | None:
    if panel.protocol.mode == "source":
        return cells.source(arch, panel.norm, eps)
    return cells.cell(panel, arch, eps)


def _draw_curves(ax: Axes, one: _Curves, archs: Sequence[str], asked: _Texture, inches: float) -> None:
    ax.set_title(one.panel.label, pad=3)
    accuracy_limits(ax, one.rows)
    axis = EpsAxis(asked.eps(one.panel.norm), one.panel.norm)
    places = axis.positions
    for arch, curve in one.curves.items():
        marker = style.marker(archs, arch)
        robust = [(places[eps], row) for eps, row in curve if eps != "0"]
        standard = [(places[eps], row) for eps, row in curve if eps == "0"]
        for line, colour in ((robust, style.ROBUST), (standard, style.STANDARD)):
            style.curve(ax, [x for x, _ in line], [row for _, row in line], colour, dashed=False, marker=marker)
        tie = [*standard, *robust[:1]]
        ax.plot([x for x, _ in tie], [row.value for _, row in tie], ls=":", lw=0.8, color=style.LINK)
    for (recipe, _), row in one.levels.items():
        ax.axhline(row.value, color=_colour(asked.recipes, recipe), lw=0.9, ls=style.DASHES, zorder=1)
    axis.apply(ax, labels=True, inches=inches)
    ax.set_xlabel(axis.label())


def _draw_groups(ax: Axes, row: _Groups, recipes: Sequence[str], *, last: bool) -> None:
    """Dots with intervals side by side for every target; what was not measured leaves a gap with words."""
    ax.set_title(row.label, pad=3)
    accuracy_limits(ax, row.rows)
    series = _series(row, recipes)
    width = 0.84 / len(series)
    for place, (_, dots) in enumerate(row.groups):
        for i, name in enumerate(series):
            x = place + (i - (len(series) - 1) / 2) * width
            if one := dots.get(name):
                ax.errorbar(x, one.value, style.whiskers([one]), fmt="none", ecolor=style.INK, elinewidth=0.7, zorder=3)
                ax.plot([x], [one.value], "o", ms=3.4, mew=0.0, color=_colour(recipes, name), zorder=3.5)
                style.daggers(ax, [x], [one])
            else:
                look: style.Look = {"transform": ax.get_xaxis_transform(), "rotation": 90, "ha": "center"}
                ax.text(x, 0.03, NOT_MEASURED, fontsize=5, color=style.STANDARD, va="bottom", **look)
    inches = style.PAGE / len(row.groups) - 0.1
    names = [wrapped(panel.target.label, inches, style.SMALL) for panel, _ in row.groups]
    ax.set_xticks(range(len(names)), names if last else [""] * len(names))
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.tick_params(axis="x", length=0)


def _series(row: _Groups, recipes: Sequence[str]) -> list[str]:
    there = {name for _, dots in row.groups for name in dots}
    return [name for name in ("standard", "best robust", *recipes) if name in there]


def _colour(recipes: Sequence[str], series: str) -> str:
    known = {"standard": style.STANDARD, "best robust": style.ROBUST}
    return known.get(series) or TEXTURE_ROBUST[list(recipes).index(series) % len(TEXTURE_ROBUST)]


def _legends(
    figure: Figure, asked: _Texture, curves: Sequence[_Curves], groups: Sequence[_Groups], archs: Sequence[str]
) -> None:
    from matplotlib.patches import Patch

    dashed = {recipe for one in curves for recipe, _ in one.levels}
    shown = dashed | {name for row in groups for _, dots in row.groups for name in dots}
    best = f"robust (8b: best, chosen on {asked.native.selection})" if groups else "robust"
    handles: list[Any] = [Patch(color=style.STANDARD, label="standard (ε 0)"), Patch(color=style.ROBUST, label=best)]
    handles += [
        Patch(color=_colour(asked.recipes, recipe), label=label + (" (above: dashed)" if recipe in dashed else ""))
        for recipe, label in asked.about.texture_robust.items()
        if recipe in shown
    ]
    markers = style.architecture_handles(archs) if len(archs) > 1 else []
    kinds = named([*(one.rows for one in curves), *_by_target(groups)])
    missing = [] if groups else [f"texture-robust networks on targets: {NOT_MEASURED}"]
    missing += [] if curves else [f"stylized images of the source: {NOT_MEASURED}"]
    protocols = asked.native.remarks(asked.native.shown(FIXED_FEATURE)) if groups else []
    style.legends(figure, handles, markers, style.remarks(figure, [*protocols, *kinds, *missing]))


def _by_target(groups: Iterable[_Groups]) -> list[list[Estimate]]:
    return [list(dots.values()) for row in groups for _, dots in row.groups]


def _curve_numbers(curves: Iterable[_Curves]) -> list[Number]:
    numbers = []
    for one in curves:
        for arch, curve in one.curves.items():
            for eps, row in curve:
                numbers.append(number(one.panel, one.series, arch, eps, row, recipe=None, chosen_eps=None))
        for (recipe, arch), row in one.levels.items():
            numbers.append(number(one.panel, one.series, arch, "0", row, recipe=recipe, chosen_eps=None))
    return numbers


def _group_numbers(groups: Iterable[_Groups]) -> list[Number]:
    numbers = []
    for row in groups:
        for panel, dots in row.groups:
            for series, one in dots.items():
                is_robust = series == "best robust"
                more = {
                    "recipe": None if series in ("standard", "best robust") else series,
                    "chosen_eps": one.chosen.get("eps") if is_robust else None,
                }
                name = series if more["recipe"] is None else "texture-robust"
                numbers.append(number(panel, name, row.arch, BEST_ROBUST if is_robust else "0", one, **more))
    return numbers
