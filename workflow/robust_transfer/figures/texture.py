"""Figure 8: stylized images and texture-robust networks.

8a, one panel for each: accuracy over eps on the source's stylized test images, of networks as they are (top in the
paper) and after full-network transfer to the stylized source (bottom). 8b, one row for each mode and architecture:
standard, best robust and texture-robust networks on every target.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from robust_transfer.figures import legends, style
from robust_transfer.figures.axes import EpsAxis, accuracy_limits
from robust_transfer.figures.beside import NOTHING, TITLE, draw_differences
from robust_transfer.figures.cells import NOT_MEASURED
from robust_transfer.figures.drawing import Drawing
from robust_transfer.figures.estimates import Estimate
from robust_transfer.figures.kinds import named
from robust_transfer.figures.lettering import wrapped
from robust_transfer.figures.numbers import Number, columns, number
from robust_transfer.figures.pairs import differences, paired
from robust_transfer.figures.protocols import FIXED_FEATURE
from robust_transfer.figures.texture_panels import Curves, Groups, Texture
from robust_transfer.tables.key import BEST_ROBUST
from robust_transfer.tables.published_texture import LABELS, RECIPE
from robust_transfer.tables.published_texture import published_texture as published_results

__all__ = ["published_results", "texture"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = columns("recipe", "chosen_eps")
TEXTURE_ROBUST = ("#d55e00", "#cc79a7", "#009e73", "#56b4e9")
"""Colours of texture-robust networks, in the experiment's order."""
OTHERWISE_STYLIZED = "published numbers on stylized images, not drawn: theirs were stylized by AdaIN"
PAIR = ("standard", "best robust")
ROW_HEIGHT, DIFFERENCE_HEIGHT = 1.3, 0.11
"""Inches of a row of panels, and of a target in the panel of differences."""

Item = TypeVar("Item")


def texture(results: pd.DataFrame) -> Drawing:
    """Draw what there is of Figure 8."""
    asked = Texture(results)
    curves = [(one, asked.curves_behind(one)) for one in asked.curves()]
    groups = [(one, asked.groups_behind(one)) for one in asked.groups()]
    if not curves and not groups:
        return Drawing(style.nothing(f"Stylized images and texture-robust networks: {NOT_MEASURED}"), [])
    every = _every(curves), _every(groups)
    numbers = paired([*_curve_numbers(every[0]), *_group_numbers(every[1])])
    labels = _labels(every, numbers)
    above = -(-len(curves) // 2)
    heights = [1.0] * (above + len(groups)) + [max(1.0, DIFFERENCE_HEIGHT * len(labels) / ROW_HEIGHT)] * bool(labels)
    figure = style.figure(style.PAGE, sum(heights) * ROW_HEIGHT + 0.35)
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    archs = [arch for arch in asked.about.ordered if any(arch in one.curves for one, _ in curves)]
    for i, (one, behind) in enumerate(curves):
        ax = figure.add_subplot(grid[i // 2, i % 2])
        _draw_curves(ax, one, behind, archs, asked, inches=style.PAGE / 2 - 0.6)
    recipes = _recipes(asked, every[1])
    for i, (row, behind_row) in enumerate(groups):
        ax = figure.add_subplot(grid[above + i, :])
        _draw_groups(ax, row, behind_row, recipes, last=i + 1 == len(groups))
    if labels:
        ax = figure.add_subplot(grid[-1, :])
        ax.set_title(TITLE, pad=3)
        draw_differences(ax, numbers, labels, lambda one: {"color": _colour(recipes, _series_of(one))})
    figure.supylabel("Accuracy (%)", fontsize=7)
    _legends(figure, asked, curves, groups, archs)
    return Drawing(figure, numbers)


def _every(pairs: Sequence[tuple[Item, Item | None]]) -> list[Item]:
    """Panels of ours, and then the published ones that stand behind them."""
    return [*(ours for ours, _ in pairs), *(theirs for _, theirs in pairs if theirs)]


def _labels(every: tuple[Sequence[Curves], Sequence[Groups]], numbers: Sequence[Number]) -> dict[str, str]:
    """Names of targets in the panel of differences; empty where there are none."""
    compared = {one["target"] for one in differences(numbers)}
    labels = {one.panel.target.name: f"Stylized {one.panel.target.label}" for one in every[0]}
    labels |= {panel.target.name: panel.target.label for row in every[1] for panel, _ in row.groups}
    return {name: label for name, label in labels.items() if name in compared}


def _recipes(asked: Texture, every: Sequence[Groups]) -> tuple[str, ...]:
    """Recipes of texture-robust networks: the experiment's, and the published one that stands beside none of them."""
    alone = RECIPE not in asked.recipes and any(RECIPE in dots for row in every for _, dots in row.groups)
    return (*asked.recipes, *[RECIPE] * alone)


def _draw_curves(
    ax: Axes, one: Curves, behind: Curves | None, archs: Sequence[str], asked: Texture, inches: float
) -> None:
    ax.set_title(one.panel.label, pad=3)
    accuracy_limits(ax, [*one.rows, *(behind.rows if behind else ())])
    axis = EpsAxis(asked.eps(one.panel.norm), one.panel.norm)
    places = axis.positions
    for arch, curve in (behind.curves if behind else {}).items():
        for part, colour in _parts(curve):
            x, rows = [places[eps] for eps, _ in part], [row for _, row in part]
            style.curve_behind(ax, x, rows, colour, marker=style.marker(archs, arch))
    for arch, curve in one.curves.items():
        for part, colour in _parts(curve):
            x, rows = [places[eps] for eps, _ in part], [row for _, row in part]
            style.curve(ax, x, rows, colour, dashed=False, marker=style.marker(archs, arch))
        (robust, _), (standard, _) = _parts(curve)
        tie = [*standard, *robust[:1]]
        ax.plot([places[eps] for eps, _ in tie], [row.value for _, row in tie], ls=":", lw=0.8, color=style.LINK)
    for (recipe, _), row in one.levels.items():
        ax.axhline(row.value, color=_colour(asked.recipes, recipe), lw=0.9, ls=style.DASHES, zorder=1)
    axis.apply(ax, labels=True, inches=inches)
    ax.set_xlabel(axis.label())


def _parts(curve: Sequence[tuple[str, Estimate]]) -> list[tuple[list[tuple[str, Estimate]], str]]:
    """The robust networks, which a line joins, and the standard one, each with its colour."""
    robust, standard = [one for one in curve if one[0] != "0"], [one for one in curve if one[0] == "0"]
    return [(robust, style.ROBUST), (standard, style.STANDARD)]


def _draw_groups(ax: Axes, row: Groups, behind: Groups | None, recipes: Sequence[str], *, last: bool) -> None:
    """Dots with intervals side by side for every target, published ones hollow behind; a gap with words where neither
    was measured."""
    ax.set_title(row.label, pad=3)
    accuracy_limits(ax, [*row.rows, *(behind.rows if behind else ())])
    published = {panel.target.name: dots for panel, dots in behind.groups} if behind else {}
    series = _series([row, behind] if behind else [row], recipes)
    width = 0.84 / len(series)
    for place, (panel, dots) in enumerate(row.groups):
        theirs = published.get(panel.target.name, {})
        for i, name in enumerate(series):
            x = place + (i - (len(series) - 1) / 2) * width
            if other := theirs.get(name):
                hollow: style.Look = {"mfc": "white", "mec": _colour(recipes, name), "mew": 0.8, "ms": 5.5}
                ax.plot([x], [other.value], "o", zorder=1.5, **hollow)
            if one := dots.get(name):
                ax.errorbar(x, one.value, style.whiskers([one]), fmt="none", ecolor=style.INK, elinewidth=0.7, zorder=3)
                ax.plot([x], [one.value], "o", ms=3.4, mew=0.0, color=_colour(recipes, name), zorder=3.5)
                style.daggers(ax, [x], [one])
            elif not other:
                look: style.Look = {"transform": ax.get_xaxis_transform(), "rotation": 90, "ha": "center"}
                ax.text(x, 0.03, NOT_MEASURED, fontsize=5, color=style.STANDARD, va="bottom", **look)
    inches = style.PAGE / len(row.groups) - 0.1
    names = [wrapped(panel.target.label, inches, style.SMALL) for panel, _ in row.groups]
    ax.set_xticks(range(len(names)), names if last else [""] * len(names))
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.tick_params(axis="x", length=0)


def _series(rows: Iterable[Groups], recipes: Sequence[str]) -> list[str]:
    there = {name for row in rows for _, dots in row.groups for name in dots}
    return [name for name in (*PAIR, *recipes) if name in there]


def _colour(recipes: Sequence[str], series: str) -> str:
    known = dict(zip(PAIR, (style.STANDARD, style.ROBUST), strict=True))
    return known.get(series) or TEXTURE_ROBUST[list(recipes).index(series) % len(TEXTURE_ROBUST)]


def _series_of(one: Number) -> str:
    """The series of 8b whose colour a number has."""
    return str(one["recipe"] or PAIR[one["eps"] != "0"])


def _legends(
    figure: Figure,
    asked: Texture,
    curves: Sequence[tuple[Curves, Curves | None]],
    groups: Sequence[tuple[Groups, Groups | None]],
    archs: Sequence[str],
) -> None:
    from matplotlib.patches import Patch

    dashed = {recipe for one, _ in curves for recipe, _ in one.levels}
    drawn = _every(groups)
    shown = dashed | {name for row in drawn for _, dots in row.groups for name in dots}
    best = f"robust (8b: best, chosen on {asked.native.selection})" if groups else "robust"
    handles: list[Any] = [Patch(color=style.STANDARD, label="standard (ε 0)"), Patch(color=style.ROBUST, label=best)]
    recipes = _recipes(asked, drawn)
    handles += [
        Patch(color=_colour(recipes, recipe), label=label + (" (above: dashed)" if recipe in dashed else ""))
        for recipe, label in {RECIPE: f"{LABELS[RECIPE]} (published)", **asked.about.texture_robust}.items()
        if recipe in shown
    ]
    markers = legends.architectures(archs) if len(archs) > 1 else []
    behind = [theirs for _, theirs in [*curves, *groups] if theirs]
    markers += [legends.hollow()] * bool(behind)
    kinds = named([*(one.rows for one, _ in curves), *_by_target(row for row, _ in groups)])
    missing = [] if groups else [f"texture-robust networks on targets: {NOT_MEASURED}"]
    missing += [] if curves else [f"stylized images of the source: {NOT_MEASURED}"]
    missing += [OTHERWISE_STYLIZED] * (bool(curves) and asked.otherwise_stylized)
    missing += [NOTHING] * (asked.published is not None and not behind)
    protocols = asked.native.remarks(asked.native.shown(FIXED_FEATURE)) if groups else []
    legends.draw(figure, handles, markers, legends.remarks(figure, [*protocols, *kinds, *missing]))


def _by_target(groups: Iterable[Groups]) -> list[list[Estimate]]:
    return [list(dots.values()) for row in groups for _, dots in row.groups]


def _curve_numbers(curves: Iterable[Curves]) -> list[Number]:
    numbers = []
    for one in curves:
        for arch, curve in one.curves.items():
            for eps, row in curve:
                numbers.append(number(one.panel, one.series, arch, eps, row, recipe=None, chosen_eps=None))
        for (recipe, arch), row in one.levels.items():
            numbers.append(number(one.panel, one.series, arch, "0", row, recipe=recipe, chosen_eps=None))
    return numbers


def _group_numbers(groups: Iterable[Groups]) -> list[Number]:
    numbers = []
    for row in groups:
        for panel, dots in row.groups:
            for series, one in dots.items():
                is_robust = series == "best robust"
                more = {
                    "recipe": None if series in PAIR else series,
                    "chosen_eps": one.chosen.get("eps") if is_robust else None,
                }
                name = series if more["recipe"] is None else "texture-robust"
                numbers.append(number(panel, name, row.arch, BEST_ROBUST if is_robust else "0", one, **more))
    return numbers
