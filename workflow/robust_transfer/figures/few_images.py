"""Transfer from few training images: accuracy over their number, one line per eps, one panel per target.

Images are counted by class, or in total; where an experiment has both, each has panels of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log10
from typing import TYPE_CHECKING, Any

from robust_transfer.configuration.eps import eps_value
from robust_transfer.figures import legends, style
from robust_transfer.figures.axes import accuracy_limits
from robust_transfer.figures.cells import NOT_MEASURED, Cells, Panel, cells_of_few
from robust_transfer.figures.drawing import Drawing
from robust_transfer.figures.estimates import Estimate
from robust_transfer.figures.kinds import kind_of, of_kind
from robust_transfer.figures.numbers import Number, columns, number
from robust_transfer.figures.pairs import paired
from robust_transfer.figures.protocols import FIXED_FEATURE, FULL_NETWORK, MODE_LABELS, Protocol, shown_protocol
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.published import PUBLISHED
from robust_transfer.tables.published_experiment import published_few_images

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLUMNS = columns("images_per_class", "training_images", "subsets")

KINDS = {"images_per_class": "of each class", "training_images": "in total"}
"""How training images are counted, by the column that says how many there were. Panels show one way."""
ASIDE, SPREAD = 0.012, 0.1
"""Of the axis: how far lines stand beside each other, so that intervals do not hide each other; and all of them."""

Sizes = dict[int | None, Cells]
"""The numbers of each count of training images, growing; None: all of them."""
Lines = dict[tuple[str, str], list[tuple[int | None, Estimate]]]
"""Architecture and eps: (count of images, accuracy), growing."""


@dataclass(frozen=True)
class ImagesAxis:
    """A logarithmic x axis over counts of training images, with `all` set apart on the right."""

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


@dataclass(frozen=True)
class Part:
    """The panels of one way to count training images."""

    kind: str
    """One of `KINDS`."""
    sizes: Sizes
    protocol: Protocol
    lines: dict[Panel, Lines]
    behind: dict[Panel, Lines]
    """Published numbers of the same."""
    left_out: list[str]
    """Targets that were not measured so."""

    @property
    def axis(self) -> ImagesAxis:
        """The x axis of its panels."""
        here = (size for size, cells in self.sizes.items() if self.protocol in cells.protocols(self.protocol.mode))
        return ImagesAxis(tuple(here))


def published_results() -> pd.DataFrame:
    """The published numbers by count of training images, which are not the paper's, as this figure draws them."""
    return published_few_images()


def few_images(results: pd.DataFrame) -> Drawing:
    """Draw every eps that was transferred from few images, in the fixed-feature mode where there is one."""
    parts = [part for kind in KINDS if (part := _part(results, kind))]
    if not parts:
        return Drawing(style.nothing(f"Transfer from few images: {NOT_MEASURED}"), [])
    drawn = [(part, panel) for part in parts for panel in part.lines]
    archs, eps = _networks(parts)
    colours = style.eps_colours(eps)
    titles = [panel.label + f", images {KINDS[part.kind]}" * (len(parts) > 1) for part, panel in drawn]
    figure, axes = style.panels(titles, row_height=1.4, extra_height=0.45)
    for (part, panel), ax in zip(drawn, axes, strict=True):
        _behind_panel(ax, part.axis, part.behind[panel], colours, archs)
        _panel(ax, part.axis, part.lines[panel], colours, archs, part.behind[panel])
        _seeds(ax, part.axis, part.sizes, panel, part.lines[panel], colours)
        part.axis.apply(ax, labels=len(parts) > 1 or style.in_last_row(axes, ax))
    figure.supxlabel(f"Training images {' or '.join(KINDS[part.kind] for part in parts)}", fontsize=7)
    modes = dict.fromkeys(MODE_LABELS[part.protocol.mode] for part in parts)
    figure.supylabel(f"{' / '.join(modes)} accuracy (%)", fontsize=7)
    markers = legends.architectures(archs) if len(archs) > 1 else []
    handles = [*_handles(eps, colours), *[legends.hollow()] * any(any(part.behind.values()) for part in parts)]
    legends.draw(figure, handles, markers, legends.remarks(figure, _remarks(parts)))
    return Drawing(figure, paired([one for part in parts for one in _numbers(part)]))


def _part(results: pd.DataFrame, kind: str) -> Part | None:
    """The panels over images counted in one way; None where that was not measured."""
    sizes = _sizes(results, kind)
    few = [cells for size, cells in sizes.items() if size]
    protocol = _shown_protocol(few)
    if protocol is None:
        return None
    panels = max(few, key=lambda cells: len(cells.norms())).panels(protocol.mode, protocol)
    every = {panel: _lines(sizes, panel) for panel in panels}
    lines = {panel: of_panel for panel, of_panel in every.items() if of_panel}
    behind = {panel: _behind(sizes, panel, of_panel) for panel, of_panel in lines.items()}
    return Part(kind, sizes, protocol, lines, behind, [panel.label for panel in panels if panel not in lines])


def _networks(parts: Sequence[Part]) -> tuple[list[str], list[str]]:
    """Architectures and eps that are drawn, in their order."""
    drawn = {line for part in parts for of_panel in part.lines.values() for line in of_panel}
    ordered = next(iter(parts[0].sizes.values())).about.ordered
    return [arch for arch in ordered if any(arch == of for of, _ in drawn)], sorted(
        {eps for _, eps in drawn}, key=eps_value
    )


def _remarks(parts: Sequence[Part]) -> list[str]:
    """What the figure has to say beside its lines."""
    said = dict.fromkeys(
        remark for part in parts for cells in part.sizes.values() for remark in cells.remarks(part.protocol)
    )
    for part in parts:
        said |= dict.fromkeys(_intervals(part))
        words = f" from images {KINDS[part.kind]}" if len(parts) > 1 else ""
        said |= {f"{NOT_MEASURED}{words}: {', '.join(part.left_out)}": None} if part.left_out else {}
    return list(said)


def _sizes(results: pd.DataFrame, kind: str) -> Sizes:
    """The counts of training images in the table, counted in one way, growing, and their numbers; all images last."""
    ours = results["experiment"] != PUBLISHED if ExperimentInfo.of(results).experiment != PUBLISHED else True
    counts = results.loc[(results["mode"] != "source") & ours, list(KINDS)]
    few = [int(size) for size in sorted(counts[kind].dropna().unique())]
    found: Sizes = {size: cells_of_few(results, kind, size) for size in few}
    return found | ({None: Cells(results)} if few and counts.isna().all(axis=1).any() else {})


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


def _behind(sizes: Sizes, panel: Panel, lines: Lines) -> Lines:
    """The published numbers of these networks from as many images."""
    found: Lines = {}
    for size, cells in sizes.items():
        if cells.published is None or (twin := cells.behind(panel)) is None:
            continue
        for arch, eps in lines:
            if row := cells.published.cell(twin, arch, eps):
                found.setdefault((arch, eps), []).append((size, row))
    return found


def _behind_panel(ax: Axes, axis: ImagesAxis, lines: Lines, colours: dict[str, Any], archs: Sequence[str]) -> None:
    for (arch, eps), curve in lines.items():
        places, rows = [axis.positions[size] for size, _ in curve], [row for _, row in curve]
        style.curve_behind(ax, places, rows, colours[eps], marker=style.marker(archs, arch))


def _panel(
    ax: Axes, axis: ImagesAxis, lines: Lines, colours: dict[str, Any], archs: Sequence[str], behind: Lines
) -> None:
    accuracy_limits(ax, [row for of in (lines, behind) for curve in of.values() for _, row in curve])
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


def _intervals(part: Part) -> list[str]:
    """Over how many subsets of the training images the numbers are means, and what their intervals are over."""
    said = dict[str, None]()
    for panel, (arch, eps), size, row in _points(part.lines):
        if size is None or panel.experiment == PUBLISHED:
            continue
        subsets = _subsets(part.sizes[size], panel, arch, eps)
        means = f"means over {subsets} subsets" if subsets > 1 else "one subset"
        over = "subsets" if row.chosen.get("mean_over") == "transfer_seed" else "seeds of pretraining"
        if row.ci_kind != "seeds":
            over = "test images, which hide how much subsets differ"
        said[f"few images: {means} of the training images, intervals over {over}"] = None
    return list(said)


def _subsets(cells: Cells, panel: Panel, arch: str, eps: str) -> int:
    """How many draws of the training images, one for each transfer seed, a cell was measured on."""
    return len({seed for _, seed in cells.runs(panel, arch, eps)})


def _numbers(part: Part) -> Iterator[Number]:
    for lines in (part.lines, part.behind):
        for panel, (arch, eps), size, row in _points(lines):
            cells, shown = part.sizes[size], panel
            if lines is part.behind:
                shown = cells.behind(panel) or panel
            counts: dict[str, object] = {kind: (size or "all") if kind == part.kind else None for kind in KINDS}
            subsets = _subsets(cells, panel, arch, eps) if size and shown.experiment != PUBLISHED else None
            yield number(shown, "transfer", arch, eps, row, **counts, subsets=subsets)


def _points(lines: dict[Panel, Lines]) -> Iterator[tuple[Panel, tuple[str, str], int | None, Estimate]]:
    """Every number, with its panel, its line and how many images it is from (None: all)."""
    for panel, curves in lines.items():
        for line, curve in curves.items():
            for size, row in curve:
                yield panel, line, size, row


def _handles(eps: Sequence[str], colours: dict[str, Any]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], color=colours[one], ls=style.DASHES if one == "0" else "-", label=f"ε {one}") for one in eps]
