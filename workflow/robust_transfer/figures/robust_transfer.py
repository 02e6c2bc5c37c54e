"""Does robustness itself transfer? Clean and attacked accuracy on targets, over eps of pretraining.

One panel for each target, norm and way of transferring; one line for images as they are, and one for each attack on the
transferred model. All lines are of the same images.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from robust_transfer.configuration.eps import eps_value
from robust_transfer.configuration.training import NORM_LABELS
from robust_transfer.figures import legends, style
from robust_transfer.figures.axes import EpsAxis, accuracy_limits
from robust_transfer.figures.cells import NOT_MEASURED, Cells, Panel
from robust_transfer.figures.drawing import Drawing
from robust_transfer.figures.estimates import Estimate
from robust_transfer.figures.kinds import kind_of, named, of_kind
from robust_transfer.figures.numbers import Number, columns, number
from robust_transfer.figures.protocols import (
    FIXED_FEATURE,
    FULL_NETWORK,
    MODE_LABELS,
    Protocol,
    attacks_on_transfers,
    distinctions,
    shared_details,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLUMNS = columns("attack_eps", "steps", "difference", "difference_low", "difference_high")
SERIES = {"none": "clean", "autoattack": "AutoAttack"}
AUTOATTACK = "autoattack"
COLOURS = ("#0072b2", "#d55e00", "#cc79a7", "#009e73", "#e69f00")
"""Of the attacks' radii, from the smallest; clean images have the colour of ink."""
ASIDE = 0.012
"""Of the axis: how far lines stand beside each other, so that intervals do not hide each other."""


@dataclass(frozen=True)
class Attack:
    """What images went through before a transferred model saw them."""

    text: str
    """As the results table has it."""
    kind: str
    """`none`, `pgd` or `autoattack`."""
    norm: str
    eps: str
    steps: int | None

    @classmethod
    def of(cls, text: str) -> Attack:
        """Read the column `attack`."""
        said = json.loads(text)
        return cls(text, said.get("kind", "pgd"), str(said["norm"]), str(said["eps"]), said.get("steps"))

    @property
    def series(self) -> str:
        """What the figure's CSV calls it."""
        return SERIES.get(self.kind, f"PGD-{self.steps}")

    @property
    def label(self) -> str:
        """What the legend calls it."""
        within = f", {NORM_LABELS.get(self.norm, self.norm)} ε {self.eps}" if self.kind != "none" else ""
        return self.series + within


@dataclass(frozen=True)
class Point:
    """One accuracy, and what it is more or less than that of the standard network."""

    eps: str
    row: Estimate
    difference: Estimate | None
    seeds: Sequence[Estimate]

    @property
    def differs(self) -> bool:
        """It is the standard network, or differs from it beyond the paired interval."""
        return self.eps == "0" or (
            self.difference is not None and (self.difference.ci_low > 0 or self.difference.ci_high < 0)
        )


Lines = dict[tuple[Attack, str], list[Point]]
"""By attack and architecture, growing eps."""


def robust_transfer(results: pd.DataFrame) -> Drawing:
    """Draw every way of transferring whose models were attacked."""
    attacks = [Attack.of(text) for text in attacks_on_transfers(results)]
    cells = {attack: Cells(results, attack=attack.text) for attack in attacks}
    lines = {panel: found for panel in _panels(cells) if (found := _lines(cells, panel))}
    if not lines:
        return Drawing(style.nothing(f"Transferred models under attack: {NOT_MEASURED}"), [])
    archs = list(dict.fromkeys(arch for of_panel in lines.values() for _, arch in of_panel))
    radii = sorted({attack.eps for attack in attacks if attack.kind != "none"}, key=eps_value)
    placed = _placed(list(lines))
    across = max(map(len, placed))
    columns = style.in_a_row(across)
    flat = style.stacked([[*row, *[None] * (across - len(row))] for row in placed], columns)
    figure, axes = style.panels(
        [panel.label if panel else None for panel in flat],
        row_height=1.4, extra_height=0.45, columns=columns,
    )  # fmt: skip
    for panel, ax in zip(filter(None, flat), axes, strict=True):
        axis = EpsAxis(_every_eps(lines[panel]), panel.norm)
        _panel(ax, axis, lines[panel], radii, archs)
        inches = (figure.get_figwidth() - 0.5) / columns - 0.3
        below = next((other for other in flat[flat.index(panel) + columns :: columns] if other), None)
        bare = below is not None and _every_eps(lines[below]) == _every_eps(lines[panel])
        axis.apply(ax, labels=not bare, inches=inches)
        if style.in_first_column(ax):
            ax.set_ylabel(f"{MODE_LABELS[panel.protocol.mode]} (%)")
    names = dict.fromkeys(EpsAxis(_every_eps(of_panel), panel.norm).label() for panel, of_panel in lines.items())
    figure.supxlabel(" / ".join(names), fontsize=7)
    markers = legends.architectures(archs) if len(archs) > 1 else []
    legends.draw(figure, _handles(attacks, radii), markers, legends.remarks(figure, list(_remarks(lines, cells))))
    return Drawing(figure, [one for panel, of_panel in lines.items() for one in _numbers(panel, of_panel)])


def _panels(cells: dict[Attack, Cells]) -> list[Panel]:
    """Every way of transferring, then targets, then norms."""
    found: dict[Panel, None] = {}
    for mode in (FIXED_FEATURE, FULL_NETWORK):
        protocols = dict.fromkeys(one for of_attack in cells.values() for one in of_attack.protocols(mode))
        for protocol in protocols:
            for of_attack in cells.values():
                norms = of_attack.every_norm() or None
                found |= dict.fromkeys(
                    replace(panel, label=panel.target.label) for panel in of_attack.panels(mode, protocol, norms)
                )
    several, ways = len({panel.norm for panel in found}) > 1, list(dict.fromkeys(panel.protocol for panel in found))
    told = distinctions(ways)
    norms = [*NORM_LABELS]
    order = {target.name: place for one in cells.values() for place, target in enumerate(one.about.targets)}
    marked = {panel: f", {NORM_LABELS.get(panel.norm, panel.norm)}" if several else "" for panel in found}
    marked = {panel: mark + f": {told[panel.protocol]}" * bool(told[panel.protocol]) for panel, mark in marked.items()}
    panels = [replace(panel, label=panel.label + mark) for panel, mark in marked.items()]
    return sorted(panels, key=lambda one: (ways.index(one.protocol), order[one.target.name], norms.index(one.norm)))


def _placed(panels: Sequence[Panel]) -> list[list[Panel]]:
    """A row for each way of transferring."""
    rows: dict[Protocol, list[Panel]] = {}
    for panel in panels:
        rows.setdefault(panel.protocol, []).append(panel)
    return list(rows.values())


def _lines(cells: dict[Attack, Cells], panel: Panel) -> Lines:
    """What was measured in a panel, with intervals of one kind."""
    found: Lines = {}
    for attack, of_attack in cells.items():
        if attack.norm != panel.norm and panel.norm in {one.norm for one in cells}:
            continue  # a standard network, attacked in the norm of others too
        for arch in of_attack.about.ordered:
            points = [
                Point(eps, row, of_attack.difference(panel, arch, eps), of_attack.seeds(panel, arch, eps))
                for eps in of_attack.eps(panel.norm)
                if (row := of_attack.cell(panel, arch, eps))
            ]
            if points:
                found[attack, arch] = points
    kind = kind_of(point.row for points in found.values() for point in points)
    return {key: [replace(point, row=of_kind(kind, point.row)) for point in points] for key, points in found.items()}


def _every_eps(lines: Lines) -> tuple[str, ...]:
    return tuple(sorted({point.eps for points in lines.values() for point in points}, key=eps_value))


def _panel(ax: Axes, axis: EpsAxis, lines: Lines, radii: Sequence[str], archs: Sequence[str]) -> None:
    accuracy_limits(ax, [point.row for points in lines.values() for point in points])
    positions = axis.positions
    span = (max(positions.values()) - min(positions.values())) or 1.0
    for place, ((attack, arch), points) in enumerate(lines.items()):
        aside = ASIDE * span * (place - (len(lines) - 1) / 2)
        colour, marker = _colour(attack, radii), style.marker(archs, arch)
        places = {point.eps: positions[point.eps] + aside for point in points}
        robust, standard = ([one for one in points if (one.eps == "0") == is_standard] for is_standard in (False, True))
        for part in (robust, standard):
            x, rows = [places[one.eps] for one in part], [one.row for one in part]
            style.curve(ax, x, rows, colour, dashed=attack.kind == AUTOATTACK, marker=marker)
        tie = [*standard, *robust[:1]]
        ax.plot([places[one.eps] for one in tie], [one.row.value for one in tie], ls=":", lw=0.8, color=colour)
        for one in points:
            style.seed_dots(ax, places[one.eps] + 0.02 * span, one.seeds, colour)
            if not one.differs:
                look: style.Look = {"ms": 3.2, "mfc": "white", "mec": colour, "mew": 0.7, "zorder": 5}
                ax.plot(places[one.eps], one.row.value, marker, **look)


def _colour(attack: Attack, radii: Sequence[str]) -> str:
    return style.INK if attack.kind == "none" else COLOURS[radii.index(attack.eps) % len(COLOURS)]


def _handles(attacks: Iterable[Attack], radii: Sequence[str]) -> list[Any]:
    from matplotlib.lines import Line2D

    labels: dict[str, style.Look] = {
        attack.label: {"color": _colour(attack, radii), "ls": style.DASHES if attack.kind == AUTOATTACK else "-"}
        for attack in attacks
    }
    handles = [Line2D([], [], label=label, **look) for label, look in labels.items()]
    look: style.Look = {"color": style.INK, "ls": "", "marker": "o", "mfc": "white", "mec": style.INK, "mew": 0.7}
    return [*handles, Line2D([], [], label="undecided against the standard network", **look)]


def _remarks(lines: dict[Panel, Lines], cells: dict[Attack, Cells]) -> Iterable[str]:
    points = [point for of_panel in lines.values() for points in of_panel.values() for point in points]
    single = [row for point in points for row in (point.row, *point.seeds) if row.backbone_seed is not None]
    if images := sorted({row.n for row in single}):
        yield f"on {' or '.join(map(str, images))} test images of each target, the same for every network"
    yield from named([point.row for points in of_panel.values() for point in points] for of_panel in lines.values())
    first = next(iter(cells.values()))
    yield from shared_details(list(dict.fromkeys(panel.protocol for panel in lines)))
    if first.selection == "test":
        yield "hyperparameters chosen on test images"


def _numbers(panel: Panel, lines: Lines) -> Iterable[Number]:
    for (attack, arch), points in lines.items():
        for point in points:
            difference = point.difference
            yield number(
                panel, attack.series, arch, point.eps, point.row,
                attack_eps=attack.eps, steps=attack.steps,
                difference=difference.value if difference else None,
                difference_low=difference.ci_low if difference else None,
                difference_high=difference.ci_high if difference else None,
            )  # fmt: skip
