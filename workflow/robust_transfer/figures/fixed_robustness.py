"""Table 2: at a fixed eps, how much of transfer accuracy does source accuracy explain over networks?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robust_transfer.figures import style
from robust_transfer.figures.cells import (
    FIXED_FEATURE,
    FULL_NETWORK,
    NOT_MEASURED,
    Cells,
    Panel,
    way_label,
)
from robust_transfer.figures.drawing import Drawing, Number
from robust_transfer.figures.typeset import Block, Table, Text
from robust_transfer.tables.results import Results

ENOUGH = 4
"""Networks below which an R² says nothing: over three it exceeds .5 for unrelated numbers every other time."""


@dataclass(frozen=True)
class LinearFit:
    """The line from source to transfer accuracy over networks of one eps."""

    networks: int
    architectures: int
    r2: float | None
    """Share of variance explained, 0 to 1; None where there are too few networks or either accuracy is constant."""
    slope: float | None
    """Points of transfer accuracy a point of source accuracy."""


def fixed_robustness(results: Results) -> Drawing:
    """Draw R² for every target and eps; a network is one backbone, so seeds of an architecture are several."""
    cells = Cells(results)
    blocks, numbers = [], list[Number]()
    every_eps = cells.eps()
    for mode in (FIXED_FEATURE, FULL_NETWORK):
        way, lines = cells.shown(mode), []
        for panel in cells.panels(mode):
            fits = {eps: linear_fit(cells, panel, eps) for eps in cells.eps(panel.norm)}
            lines.append([Text(panel.label), *(_text(fits[eps]) if eps in fits else Text("") for eps in every_eps)])
            numbers += [_number(panel, eps, one) for eps, one in fits.items()]
        if way:
            blocks.append(Block(way_label(way), lines))
    if not blocks:
        return Drawing(style.nothing(f"Transfer: {NOT_MEASURED}"), [], f"Transfer: {NOT_MEASURED}\n")
    table = Table(["R²", *(f"ε {eps}" for eps in every_eps)], blocks, [_note(cells)])
    return Drawing(table.figure(), numbers, table.markdown())


def linear_fit(cells: Cells, panel: Panel, eps: str) -> LinearFit:
    """Least squares over the networks of this eps for which both accuracies were measured."""
    x, y, archs = [], [], set()
    for arch in cells.about.architectures:
        for row in cells.seeds(panel, arch, eps):
            source = cells.source(arch, panel.norm, eps, row.backbone_seed)
            if source:
                x.append(source.value)
                y.append(row.value)
                archs.add(arch)
    if len(x) < ENOUGH or np.ptp(x) == 0 or np.ptp(y) == 0:
        return LinearFit(len(x), len(archs), None, None)
    correlation = float(np.corrcoef(x, y)[0, 1])
    return LinearFit(len(x), len(archs), correlation**2, correlation * float(np.std(y) / np.std(x)))


def _text(one: LinearFit) -> Text:
    if one.networks == 0:
        return Text(NOT_MEASURED, faint=True)
    if one.networks < ENOUGH:
        missing = ENOUGH - one.networks
        return Text(f"needs {missing} more network{'s' if missing > 1 else ''}", f"needs {missing}", faint=True)
    if one.r2 is None or one.slope is None:
        return Text("no spread", faint=True)
    return Text(f"{one.r2:.2f}{' (−)' if one.slope < 0 else ''}")


def _number(panel: Panel, eps: str, one: LinearFit) -> Number:
    return {
        "target": panel.target.name,
        "mode": panel.way.mode,
        "protocol": panel.way.protocol,
        "deviations": panel.way.deviations,
        "norm": panel.norm,
        "metric": panel.target.metric,
        "eps": eps,
        "networks": one.networks,
        "architectures": one.architectures,
        "r2": one.r2,
        "slope": one.slope,
    }


def _note(cells: Cells) -> str:
    chosen = " Hyperparameters were chosen on test images." if cells.selection == "test" else ""
    return (
        f"R² of the line from source to transfer accuracy over networks of one ε; below {ENOUGH} networks, how many it "
        f"lacks. (−): the line falls. Seeds of one architecture count as networks of their own.{chosen}"
    )
