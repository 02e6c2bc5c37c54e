"""Transfer accuracy over properties of backbones: a row of panels per property, a panel per target and one over all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from robust_transfer.configuration.eps import eps_value
from robust_transfer.configuration.training import NORM_LABELS
from robust_transfer.figures import legends, style
from robust_transfer.figures.cells import NOT_MEASURED, Cells, shown_mode
from robust_transfer.figures.drawing import Drawing
from robust_transfer.figures.labels import signed
from robust_transfer.figures.lettering import wrapped
from robust_transfer.figures.predictor_panels import (
    COLUMNS,
    PredictorPanel,
    numbers_of,
    predictor_panels,
    property_label,
)
from robust_transfer.figures.protocols import MODE_LABELS
from robust_transfer.statistics.correlation import Coefficient

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["COLUMNS", "predictors"]
MOST_PANELS = 24
"""Panels above which those of single targets are left out; `predictors_table` has their correlations."""
STANDARD = "ε 0"
Network = tuple[str, str, str]
"""Recipe, norm (`none` for eps 0) and eps: a colour."""


def predictors(results: pd.DataFrame) -> Drawing:
    """Draw the fixed-feature mode, or full-network where that is all there is.

    Of properties that the experiment does not name, those without any correlation are left to the table.
    """
    cells = Cells(results)
    mode = shown_mode(cells)
    every = predictor_panels(results, cells, mode)
    with_one = {name: of for name, of in every.items() if any(panel.spearman for panel in of)}
    shown = every if cells.about.predictors or not with_one else with_one
    rows = [list(of_property) for of_property in shown.values()]
    panels = [panel for row in rows for panel in row]
    if not any(len(panel.points) for panel in panels):
        return Drawing(style.nothing(f"What predicts transfer: {NOT_MEASURED}"), [])
    if pooled := len(panels) > MOST_PANELS and not all(panel.target for panel in panels):
        panels = [panel for panel in panels if not panel.target]
        across = style.in_a_row(len(panels))
        rows = [panels]
    else:
        across = style.in_a_row(len(rows[0]))
    gaps: list[PredictorPanel | None] = [gap for row in rows for gap in [*row, *[None] * (-len(row) % across)]]
    titles = [panel.label if panel else None for panel in gaps]
    figure, axes = style.panels(titles, row_height=1.75, extra_height=0.1, columns=across)
    names = _names(panels, cells.about.texture_robust)
    colours, archs = _colours(names), _architectures(panels, cells.about.ordered)
    for panel, ax in zip(panels, axes, strict=True):
        shades = [colours[names[network]] for network in _networks(panel)]
        _scatter(ax, panel, shades, archs)
    y_name = f"{MODE_LABELS[mode]} accuracy (%)"
    if not all(panel.target for panel in panels):
        y_name += "; over all targets, points above each target's mean"
    figure.supylabel(wrapped(y_name, figure.get_figheight() - 0.3, 7), fontsize=7)
    remarks = cells.remarks(cells.shown(mode)) + _remarks(panels, pooled=pooled)
    markers = legends.architectures(archs) if len(archs) > 1 else []
    legends.draw(figure, _handles(colours), markers, legends.remarks(figure, remarks))
    return Drawing(figure, numbers_of(panels, cells.about.experiment))


def _scatter(ax: Axes, panel: PredictorPanel, shades: Sequence[Any], archs: Sequence[str]) -> None:
    """A mark per network, and above them both correlations, or why there are none."""
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel(wrapped(property_label(panel.property), 1.5, style.SMALL), fontsize=style.SMALL)
    ax.set_title(panel.label, pad=19)  # above two lines of correlations
    look: style.Look = {"transform": ax.transAxes, "ha": "center", "va": "bottom", "fontsize": style.SMALL}
    ax.text(0.5, 1.03, _said(panel), **look)
    if not len(panel.points):
        style.say(ax, NOT_MEASURED)
        return
    for arch, x, y, shade in zip(*(panel.points[name] for name in ("arch", "x", "y")), shades, strict=True):
        marker: style.Look = {"marker": style.marker(archs, arch) if archs else "o", "mec": style.INK, "mew": 0.3}
        ax.plot([x], [y], ls="", color=shade, ms=3.6, zorder=3, **marker)
    if not panel.target:
        ax.axhline(0, color=style.LINK, lw=0.6, ls=":", zorder=1)
    ax.margins(0.08)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.yaxis.set_major_locator(MaxNLocator(5))


def _said(panel: PredictorPanel) -> str:
    """Two lines: Spearman's and Pearson's correlation, or how many networks are missing."""
    n = f"n = {len(panel.points)}"
    if panel.spearman is None or panel.pearson is None:
        return f"{n}: {panel.missing()}"
    return f"ρ {_text(panel.spearman)}, {n}\nr {_text(panel.pearson)}"


def _text(found: Coefficient) -> str:
    return f"{signed(found.value, 2)} [{signed(found.low, 2)}, {signed(found.high, 2)}]"


def _networks(panel: PredictorPanel) -> list[Network]:
    names = ("recipe", "norm", "eps")
    return list(zip(*(panel.points[name].astype(str) for name in names), strict=True))


def _names(panels: Sequence[PredictorPanel], texture_robust: Mapping[str, str]) -> dict[Network, str]:
    """What the legend calls networks of a recipe, norm and eps; standard ones first, then by norm and growing eps."""
    every = {network for panel in panels for network in _networks(panel)}
    several = len({norm for _, norm, _ in every} - {"none"}) > 1

    def name(network: Network) -> str:
        recipe, norm, eps = network
        of_norm = f"{NORM_LABELS.get(norm, norm)} " * (several and norm != "none")
        return texture_robust.get(recipe, f"{of_norm}ε {eps}")

    def order(network: Network) -> tuple[bool, bool, str, float]:
        recipe, norm, eps = network
        return recipe in texture_robust, norm != "none", norm, eps_value(eps)

    return {network: name(network) for network in sorted(every, key=order)}


def _colours(names: Mapping[Network, str]) -> dict[str, Any]:
    """By what the legend says: standard networks grey, robust ones light to dark, texture-robust ones in colours of
    their own."""
    found = dict.fromkeys(names.values())
    robust = [name for name in found if "ε" in name and name != STANDARD]
    colours = style.eps_colours(["0", *robust])
    others = [name for name in found if "ε" not in name]
    colours |= {name: style.VIEWS[(i + 1) % len(style.VIEWS)] for i, name in enumerate(others)}
    return {name: colours["0" if name == STANDARD else name] for name in found}


def _architectures(panels: Sequence[PredictorPanel], ordered: Sequence[str]) -> list[str]:
    """Those drawn, in order; none where there are more than there are markers."""
    drawn = {arch for panel in panels for arch in panel.points["arch"]}
    return [arch for arch in ordered if arch in drawn] if len(drawn) <= len(style.MARKERS) else []


def _handles(colours: Mapping[str, Any]) -> list[Any]:
    from matplotlib.lines import Line2D

    look: style.Look = {"ls": "", "marker": "o", "mec": style.INK, "mew": 0.3, "ms": 3.6}
    return [Line2D([], [], color=colour, label=name, **look) for name, colour in colours.items()]


def _remarks(panels: Sequence[PredictorPanel], *, pooled: bool) -> list[str]:
    """What the marks and numbers are."""
    said = ["one mark per network; ρ: Spearman, r: Pearson, with 95 % intervals over networks"]
    most = max(panel.left_out for panel in panels)
    some = f"{most} network" if most == 1 else f"up to {most} networks"
    said += [f"{some} left out: a training or transfer failed (flags.csv)"] * bool(most)
    said += ["single targets: table predictors_table, or name a property in figures.predictors"] * pooled
    return said
