"""Table 2: at a fixed eps, how much of transfer accuracy does source accuracy explain over networks?"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from robust_transfer.figures.cells import (
    FIXED_FEATURE,
    FULL_NETWORK,
    NOT_MEASURED,
    Cells,
    Panel,
    protocol_label,
)
from robust_transfer.figures.drawing import Number
from robust_transfer.figures.tables import Cell, Table, TableRow, Tables

CAPTION = "Share of the variance of transfer accuracy that source accuracy explains"
ENOUGH = 4
"""Fewest networks for an R²: over three networks, that of unrelated numbers exceeds .5 every other time."""


@dataclass(frozen=True)
class LinearFit:
    """The line from source to transfer accuracy over networks of one eps."""

    networks: int
    architectures: int
    r2: float | None
    """Share of variance explained, 0 to 1; None where there are too few networks or either accuracy is constant."""
    slope: float | None
    """Points of transfer accuracy per point of source accuracy."""


def fixed_robustness(results: pd.DataFrame) -> Tables:
    """Tabulate R² for every target and eps; a network is one backbone, so seeds of an architecture are several."""
    cells = Cells(results)
    rows, numbers = list[TableRow](), list[Number]()
    every_eps = cells.eps()
    for mode in (FIXED_FEATURE, FULL_NETWORK):
        for panel in cells.panels(mode):
            fits = {eps: linear_fit(cells, panel, eps) for eps in cells.eps(panel.norm)}
            of_panel = [_cell(fits[eps]) if eps in fits else Cell() for eps in every_eps]
            rows.append(TableRow((protocol_label(panel.protocol), panel.label), of_panel))
            numbers += [_number(panel, eps, fit) for eps, fit in fits.items()]
    if not rows:
        return Tables([], [f"Transfer: {NOT_MEASURED}"], [])
    table = Table.of(rows, ["mode", "R²"], [f"ε {eps}" for eps in every_eps], CAPTION, headed=True)
    return Tables([table], [_note(cells)], numbers)


def linear_fit(cells: Cells, panel: Panel, eps: str) -> LinearFit:
    """Least squares over the networks of this eps for which both accuracies were measured."""
    networks = pd.DataFrame(
        [
            (arch, source.value, one.value)
            for arch in cells.about.architectures
            for one in cells.seeds(panel, arch, eps)
            if (source := cells.source(arch, panel.norm, eps, one.backbone_seed))
        ],
        columns=["arch", "source", "transfer"],
    )
    counts = len(networks), networks["arch"].nunique()
    if len(networks) < ENOUGH or (networks[["source", "transfer"]].nunique() == 1).any():
        return LinearFit(*counts, None, None)
    from scipy.stats import linregress  # 2 s of CPU, for tables that have networks enough

    line = linregress(networks["source"], networks["transfer"])
    return LinearFit(*counts, float(line.rvalue) ** 2, float(line.slope))


def _cell(fit: LinearFit) -> Cell:
    if fit.networks == 0:
        return Cell(NOT_MEASURED, faint=True)
    if fit.networks < ENOUGH:
        missing = ENOUGH - fit.networks
        return Cell(f"needs {missing} more network{'s' if missing > 1 else ''}", faint=True)
    if fit.r2 is None or fit.slope is None:
        return Cell("no spread", faint=True)
    return Cell(f"{fit.r2:.2f}", "(−)" if fit.slope < 0 else "")


def _number(panel: Panel, eps: str, fit: LinearFit) -> Number:
    return {
        "target": panel.target.name,
        "mode": panel.protocol.mode,
        "protocol": panel.protocol.name,
        "deviations": panel.protocol.deviations,
        "norm": panel.norm,
        "metric": panel.target.metric,
        "eps": eps,
        "networks": fit.networks,
        "architectures": fit.architectures,
        "r2": fit.r2,
        "slope": fit.slope,
    }


def _note(cells: Cells) -> str:
    chosen = " Hyperparameters were chosen on test images." if cells.selection == "test" else ""
    return (
        f"R² of the line from source to transfer accuracy over networks of one ε; below {ENOUGH} networks, how many it "
        f"lacks. (−): the line falls. Seeds of one architecture count as networks of their own.{chosen}"
    )
