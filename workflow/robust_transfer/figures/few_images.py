"""Transfer from few training images: accuracy over images of each class, one line per eps, one panel per target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log10
from typing import TYPE_CHECKING, Any

from robust_transfer.configuration.eps import eps_value
from robust_transfer.figures import legends, style
from robust_transfer.figures.axes import accuracy_limits
from robust_transfer.figures.cells import NOT_MEASURED, Cells, Panel
from robust_transfer.figures.drawing import Drawing
from robust_transfer.figures.estimates import Estimate
from robust_transfer.figures.kinds import kind_of, of_kind
from robust_transfer.figures.numbers import Number, columns, number
from robust_transfer.figures.protocols import FIXED_FEATURE, FULL_NETWORK, MODE_LABELS, Protocol, shown_protocol

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLUMNS = columns("images_per_class", "subsets")

ASIDE, SPREAD = 0.012, 0.1
"""Of the axis: how far lines stand beside each other, so that intervals do not hide each other; and all of them."""

Sizes = dict[int | None, Cells]
"""The numbers of each count of training images of a class, growing; None: all of them."""
Lines = dict[tuple[str, str], list[tuple[int | None, Estimate]]]
"""Architecture and eps: (images of each class, accuracy), growing."""


@dataclass(frozen=True)
class ImagesAxis:
    """A logarithmic x axis over training images of each class, with `all` set apart on the right."""

    sizes: tuple[int | None, ...]

    @property
    def positions(self) -> dict[int | None, float]:
        """Where each count lies on the axis, in decades; all images, however many, somewhat right of the most."""
        found: dict[int | None, float] = {size: log10(size) for size in self.sizes if size}
        places = list(found.values())
        return {**found, None: places[-1] + max(0.3 * (places[-1] - places[0]), 0.2)} if None in self.sizes else found

    @property
    def span(self) -> float:
        """Length of the axis in decades, without margins."""
        places = self.positions.values()
        return (max(places) - min(places)) or 1.0

    def apply(self, ax: Axes, *, labels: bool) -> None:
        """Ticks at every count, and a gap in the axis before `all`."""
        positions = self.positions
        low, high, margin = min(positions.values()), max(positions.values()), 0.1 * self.span
        ax.set_xlim(low - margin, high + margin)
        names = [str(size or "all") if labels else "" for size in positions]
        ax.set_xticks(list(positions.values()), names)
        few = [place for size, place in positions.items() if size]
        if None in positions:
            between, gap = (few[-1] + high) / 2, 0.014 * self.span
            look: style.Look = {"transform": ax.get_xaxis_transform(), "c": "white", "lw": 2, "clip_on": False}
            ax.plot([between - gap, between + gap], [0, 0], zorder=9, **look)


def few_images(results: pd.DataFrame) -> Drawing:
    """Draw every eps that was transferred from few images, in the fixed-feature mode where there is one."""
    sizes = _sizes(results)
    few = [cells for size, cells in sizes.items() if size]
    protocol = _shown_protocol(few)
    if protocol is None:
        return Drawing(style.nothing(f"Transfer from few images: {NOT_MEASURED}"), [])
    panels = max(few, key=lambda cells: len(cells.norms())).panels(protocol.mode, protocol)
    every = {panel: _lines(sizes, panel) for panel in panels}
    lines = {panel: of_panel for panel, of_panel in every.items() if of_panel}
    archs = [arch for arch in few[0].about.ordered if any(key[0] == arch for line in lines.values() for key in line)]
    eps = sorted({key[1] for line in lines.values() for key in line}, key=eps_value)
    colours = style.eps_colours(eps)
    axis = ImagesAxis(tuple(size for size, cells in sizes.items() if protocol in cells.protocols(protocol.mode)))
    figure, axes = style.panels([panel.label for panel in lines], row_height=1.4, extra_height=0.45)
    for panel, ax in zip(lines, axes, strict=True):
        _panel(ax, axis, lines[panel], colours, archs)
        _seeds(ax, axis, sizes, panel, lines[panel], colours)
        axis.apply(ax, labels=style.in_last_row(axes, ax))
    figure.supxlabel("Training images of each class", fontsize=7)
    figure.supylabel(f"{MODE_LABELS[protocol.mode]} accuracy (%)", fontsize=7)
    remarks = dict.fromkeys(remark for cells in sizes.values() for remark in cells.remarks(protocol))
    remarks |= dict.fromkeys(_intervals(sizes, lines))
    if left_out := [panel.label for panel in panels if panel not in lines]:
        remarks[f"{NOT_MEASURED}: {', '.join(left_out)}"] = None
    markers = legends.architectures(archs) if len(archs) > 1 else []
    legends.draw(figure, _handles(eps, colours), markers, legends.remarks(figure, list(remarks)))
    return Drawing(figure, _numbers(sizes, lines))


def _sizes(results: pd.DataFrame) -> Sizes:
    """The counts of training images of each class in the table, growing, and their numbers; all images last."""
    sizes = results.loc[results["mode"] != "source", "images_per_class"]
    few = [int(size) for size in sorted(sizes.dropna().unique())]
    growing: list[int | None] = [*few, None] if sizes.isna().any() else [*few]
    return {size: Cells(results, images_per_class=size) for size in growing}


def _shown_protocol(few: Sequence[Cells]) -> Protocol | None:
    """The protocol to show of those by which few images were measured; None if they never were."""
    for mode in (FIXED_FEATURE, FULL_NETWORK):
        protocols = dict.fromkeys(protocol for cells in few for protocol in cells.protocols(mode))
        if protocols:
            return shown_protocol(list(protocols), few[0].about)
    return None


def _lines(sizes: Sizes, panel: Panel) -> Lines:
    """The curve of every architecture and eps that was transferred to this target from few images."""
    found: Lines = {}
    every_eps = sorted({eps for cells in sizes.values() for eps in cells.eps(panel.norm)}, key=eps_value)
    for arch in next(iter(sizes.values())).about.ordered:
        for eps in every_eps:
            cell = [(size, cells.cell(panel, arch, eps)) for size, cells in sizes.items()]
            curve = [(size, row) for size, row in cell if row]
            if any(size for size, _ in curve):
                found[arch, eps] = curve
    kind = kind_of(row for curve in found.values() for _, row in curve)
    return {line: [(size, of_kind(kind, row)) for size, row in curve] for line, curve in found.items()}


def _panel(ax: Axes, axis: ImagesAxis, lines: Lines, colours: dict[str, Any], archs: Sequence[str]) -> None:
    accuracy_limits(ax, [row for curve in lines.values() for _, row in curve])
    for i, ((arch, eps), curve) in enumerate(lines.items()):
        aside = min(ASIDE, SPREAD / len(lines)) * axis.span * (i - (len(lines) - 1) / 2)
        places = [(axis.positions[size] + aside, row) for size, row in curve]
        few = places[: sum(size is not None for size, _ in curve)]
        for part in (few, places[len(few) :]):
            look: style.Look = {"dashed": eps == "0", "marker": style.marker(archs, arch)}
            style.curve(ax, [x for x, _ in part], [row for _, row in part], colours[eps], **look)
        tie = places[len(few) - 1 :]
        ax.plot([x for x, _ in tie], [row.value for _, row in tie], ls=":", lw=0.8, color=colours[eps])


def _seeds(ax: Axes, axis: ImagesAxis, sizes: Sizes, panel: Panel, lines: Lines, colours: dict[str, Any]) -> None:
    """Small dots for single seeds of pretraining, means over their subsets, to the right of the mean over seeds."""
    for i, ((arch, eps), curve) in enumerate(lines.items()):
        aside = min(ASIDE, SPREAD / len(lines)) * axis.span * (i - (len(lines) - 1) / 2)
        for size, _ in curve:
            seeds = sizes[size].seeds(panel, arch, eps)
            style.seed_dots(ax, axis.positions[size] + aside + 0.02 * axis.span, seeds, colours[eps])


def _intervals(sizes: Sizes, lines: dict[Panel, Lines]) -> list[str]:
    """Over how many subsets of the training images the numbers are means, and what their intervals are over."""
    said = dict[str, None]()
    for panel, (arch, eps), size, row in _points(lines):
        if size is None:
            continue
        subsets = _subsets(sizes[size], panel, arch, eps)
        means = f"means over {subsets} subsets" if subsets > 1 else "one subset"
        over = "subsets" if row.chosen.get("mean_over") == "transfer_seed" else "seeds of pretraining"
        if row.ci_kind != "seeds":
            over = "test images, which hide how much subsets differ"
        said[f"few images: {means} of the training images, intervals over {over}"] = None
    return list(said)


def _subsets(cells: Cells, panel: Panel, arch: str, eps: str) -> int:
    """How many draws of the training images, one for each transfer seed, a cell was measured on."""
    return len({seed for _, seed in cells.runs(panel, arch, eps)})


def _numbers(sizes: Sizes, lines: dict[Panel, Lines]) -> list[Number]:
    return [
        number(
            panel, "transfer", arch, eps, row,
            images_per_class=size or "all", subsets=_subsets(sizes[size], panel, arch, eps) if size else None,
        )
        for panel, (arch, eps), size, row in _points(lines)
    ]  # fmt: skip


def _points(lines: dict[Panel, Lines]) -> Iterator[tuple[Panel, tuple[str, str], int | None, Estimate]]:
    """Every number, with its panel, its line and how many images it is from."""
    for panel, curves in lines.items():
        for line, curve in curves.items():
            for size, row in curve:
                yield panel, line, size, row


def _handles(eps: Sequence[str], colours: dict[str, Any]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], color=colours[one], ls=style.DASHES if one == "0" else "-", label=f"ε {one}") for one in eps]
