"""How every figure looks: sizes, colours, axes, and how it is saved.

One colour a role in all figures: standard grey, best robust blue, robust at the eps fixed beforehand orange (Okabe and
Ito's colours, told apart by colour-blind readers), and light to dark green-blue for growing eps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from robust_transfer.figures.lettering import FONT, literal, wrapped
from robust_transfer.tables.flags import DAGGER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from robust_transfer.figures.estimates import Estimate

COLUMN, PAGE = 3.3, 6.9
"""Widths in inches of one column and of both, of a two-column paper."""
STANDARD, ROBUST, FIXED = "#7f7f7f", "#0072b2", "#e69f00"
VIEWS = ("#009e73", "#cc79a7", "#d55e00")
"""Downscaled views, from the largest size to the smallest."""
INK, LINK, FAINT = "#262626", "#8c8c8c", "#e0e0e0"
DASHES = (0, (4, 2))
"""The line style of standard networks."""
ARCHITECTURES = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#7b4ea3",
    "#8c6d31",
    "#262626",
    "#b0b0b0",
)
"""Where lines of several architectures stand in one panel; of a single one the first."""
MARKERS = "osD^vPX<>*"
"""One for each architecture, in the experiment's order."""
FAILED = f"{DAGGER} a training or transfer behind it failed (flags.csv)"
"""What a dagger means, and the label by which `legends` finds them."""
TITLE_LINE = 0.125
"""Height in inches of each further line of a panel's title."""
SMALL = 6.0
"""Font size in points of ticks and notes; the smallest there is but for notes inside bars."""

Item = TypeVar("Item")
Look = dict[str, Any]
"""Keyword arguments that say how an artist looks."""

# Typed loosely: matplotlib's types name every key.
RC: Any = {
    "font.family": FONT,
    "text.parse_math": False,
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.4,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.0,
    "figure.dpi": 100,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "robust-transfer",
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
}


def eps_colours(eps: Sequence[str]) -> dict[str, Any]:
    """A colour for each eps: the standard one for 0, then light to dark for growing eps."""
    from matplotlib import colormaps

    robust = [one for one in eps if one != "0"]
    shades = colormaps["viridis_r"]
    step = 1 / max(1, len(robust) - 1)
    colours: dict[str, Any] = {one: shades(0.15 + 0.85 * i * step) for i, one in enumerate(robust)}
    return {"0": STANDARD, **colours}


def figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, laid out so that nothing is clipped."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def in_a_row(count: int, most: int = 4) -> int:
    """How many of so many panels stand in a row, so that rows are as even as can be."""
    return -(-count // -(-count // most))


def stacked(rows: Sequence[Sequence[Item | None]], columns: int) -> list[Item | None]:
    """Panels of several kinds of one thing each below the other, as `panels` takes them: so many columns at a time.

    `rows`: of each kind equally many, None where there is none; a kind without any takes no room.
    """
    found: list[Item | None] = []
    for start in range(0, max(map(len, rows), default=0), columns):
        for row in rows:
            part = row[start : start + columns]
            if any(one is not None for one in part):
                found += [*part, *[None] * (columns - len(part))]
    return found


def panels(
    titles: Sequence[str | None],
    row_height: float,
    extra_height: float,
    *,
    columns: int | None = None,
    wide_last: bool = False,
) -> tuple[Figure, list[Axes]]:
    """A figure with an axes for each title, and the axes; None in place of a title leaves a gap.

    `columns`: how many stand in a row; default: at most four. One panel is a column wide, more are a page wide.
    `extra_height` in inches is for labels that panels share. `wide_last`: the last panel fills what its row has left.
    """
    columns = columns or in_a_row(len(titles))
    rows = -(-len(titles) // columns)
    across = COLUMN if len(titles) == 1 else PAGE
    # An axes is narrower than its share of the page, by the labels of its ticks.
    titles = [title and wrapped(title, across / columns - 0.45, RC["axes.titlesize"]) for title in titles]
    lines = [
        max((title or "").count("\n") for title in titles[start : start + columns])
        for start in range(0, len(titles), columns)
    ]
    made = figure(across, rows * row_height + extra_height + TITLE_LINE * sum(lines))
    grid = made.subplots(rows, columns, squeeze=False)
    axes = []
    for ax, title in zip(grid.flat, [*titles, *[None] * (rows * columns - len(titles))], strict=True):
        if title is None:
            ax.remove()
            continue
        ax.set_title(title, pad=3)
        axes.append(ax)
    if wide_last:
        first = (len(titles) - 1) % columns
        axes[-1].set_subplotspec(grid[0, 0].get_subplotspec().get_gridspec()[rows - 1, first:])
    return made, axes


def in_last_row(axes: Sequence[Axes], ax: Axes) -> bool:
    """Whether nothing lies below this panel, so that it bears the labels of the x axis."""
    spec, others = ax.get_subplotspec(), [other.get_subplotspec() for other in axes]
    assert spec is not None
    column, row = spec.colspan.start, spec.rowspan.start
    return not any(o and column in o.colspan and o.rowspan.start > row for o in others)


def label_x(drawn: Figure, axes: Sequence[Axes], text: str, *, shared: bool) -> None:
    """Name the x axis once below all panels, or where another axis is below them at each of the last row."""
    if shared:
        drawn.supxlabel(text, fontsize=RC["axes.labelsize"])
        return
    for ax in axes:
        if in_last_row(axes, ax):
            ax.set_xlabel(wrapped(text, 1.4, SMALL), fontsize=SMALL)


def in_first_column(ax: Axes) -> bool:
    """Whether this panel is the first of its row."""
    spec = ax.get_subplotspec()
    return bool(spec and spec.is_first_col())


def say(ax: Axes, text: str) -> None:
    """An empty panel that says why it is empty."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=STANDARD, style="italic")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)


def nothing(text: str) -> Figure:
    """A column-wide figure that only says why there is nothing to draw."""
    made = figure(COLUMN, 1.0)
    ax = made.subplots()
    ax.spines[:].set_visible(False)
    say(ax, text)
    return made


def seed_dots(ax: Axes, x: float, seeds: Sequence[Estimate], colour: Any = INK) -> None:
    """Small dots for single seeds, where there are several."""
    if len(seeds) > 1:
        look: Look = {"color": colour, "ms": 2.4, "mew": 0, "zorder": 4}
        ax.plot([x] * len(seeds), [row.value for row in seeds], ".", **look)


def curve_behind(ax: Axes, x: Sequence[float], rows: Sequence[Estimate], colour: Any, *, marker: str = "o") -> None:
    """A line through published accuracies, behind ours: pale, with hollow markers."""
    look: Look = {"color": colour, "lw": 0.7, "alpha": 0.55, "mfc": "white", "mec": colour, "mew": 0.6, "ms": 4.0}
    ax.plot(x, [row.value for row in rows], marker=marker, ls="-", zorder=1.5, **look)


def curve(
    ax: Axes, x: Sequence[float], rows: Sequence[Estimate], colour: Any, *, dashed: bool, marker: str = "o"
) -> None:
    """A line through accuracies in percent, with their intervals as thin bars."""
    y = [row.value for row in rows]
    ax.plot(x, y, marker=marker, ls=DASHES if dashed else "-", color=colour, ms=2.8, mew=0)
    ax.errorbar(x, y, whiskers(rows), fmt="none", ecolor=colour, elinewidth=0.5, alpha=0.7)
    daggers(ax, x, rows)


def daggers(ax: Axes, x: Sequence[float], rows: Sequence[Estimate]) -> None:
    """A dagger beside each accuracy behind which something failed; `legends` then says what it means."""
    look: Look = {"textcoords": "offset points", "fontsize": SMALL, "color": INK, "zorder": 6, "label": FAILED}
    for place, row in zip(x, rows, strict=True):
        if row.failed:
            ax.annotate(DAGGER, (place, row.value), (2, 1), **look)


def whiskers(rows: Sequence[Estimate]) -> list[list[float]]:
    """Lengths of the intervals below and above the values, as matplotlib takes them: [2, rows]."""
    return [[max(0.0, row.value - row.ci_low) for row in rows], [max(0.0, row.ci_high - row.value) for row in rows]]


def marker(archs: Sequence[str], arch: str) -> str:
    """The marker of an architecture among those drawn."""
    return MARKERS[list(archs).index(arch) % len(MARKERS)]


def view_colour(views: Sequence[int | None], view: int | None) -> str:
    """The colour of native images (None), or of a size downscaled to."""
    sizes = sorted((one for one in views if one is not None), reverse=True)
    return INK if view is None else VIEWS[sizes.index(view) % len(VIEWS)]


def save(drawn: Figure, stem: Path) -> None:
    """Write `stem`.svg, .pdf and .png; the same figure gives the same bytes."""
    nothing_that_changes = {
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        "png": {"Software": None},
    }
    with literal(drawn):
        # Once laid out it stays: laying out takes longer than drawing, and there are three files to draw.
        drawn.draw_without_rendering()
        drawn.set_layout_engine("none")
        _centre_y_label(drawn)
        for kind, metadata in nothing_that_changes.items():
            drawn.savefig(stem.parent / f"{stem.name}.{kind}", metadata=metadata)


def _centre_y_label(drawn: Figure) -> None:
    """Move the y label that panels share beside their middle, which a legend on top has pushed down."""
    shared = drawn.get_supylabel()
    for text in drawn.texts:
        if shared and text.get_text() == shared:
            places = [ax.get_position() for ax in drawn.axes]
            text.set_y((min(place.y0 for place in places) + max(place.y1 for place in places)) / 2)
