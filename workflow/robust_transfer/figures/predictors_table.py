"""Spearman's correlation of every property of backbones with transfer accuracy, by target: what predicts transfer?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_transfer.figures.cells import NOT_MEASURED, Cells
from robust_transfer.figures.labels import signed
from robust_transfer.figures.predictor_panels import (
    COLUMNS,
    PredictorPanel,
    numbers_of,
    predictor_panels,
    property_label,
)
from robust_transfer.figures.protocols import FIXED_FEATURE, FULL_NETWORK, protocol_label
from robust_transfer.figures.tables import Cell, Table, TableRow, Tables
from robust_transfer.statistics.correlation import FEWEST

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "predictors_table"]
CAPTION = "Correlation of properties of backbones with transfer accuracy"


def predictors_table(results: pd.DataFrame) -> Tables:
    """Tabulate both modes: a row per target and one over all, a column per property."""
    cells = Cells(results)
    by_mode = {mode: predictor_panels(results, cells, mode) for mode in (FIXED_FEATURE, FULL_NETWORK)}
    names = list(dict.fromkeys(name for panels in by_mode.values() for name in panels))
    rows = [
        TableRow((protocol_label(of_target[0].protocol), of_target[0].label), [_cell(panel) for panel in of_target])
        for panels in by_mode.values()
        for of_target in zip(*panels.values(), strict=True)
    ]
    if not rows:
        return Tables([], [f"Properties of backbones, or their transfer: {NOT_MEASURED}"], [])
    table = Table.of(rows, ["mode", "Spearman's ρ"], [property_label(name) for name in names], CAPTION, headed=True)
    every = [panel for panels in by_mode.values() for of_property in panels.values() for panel in of_property]
    return Tables([table], [_note(cells, every)], numbers_of(every, cells.about.experiment))


def _cell(panel: PredictorPanel) -> Cell:
    n = len(panel.points)
    if n == 0:
        return Cell(NOT_MEASURED, faint=True)
    if panel.spearman is None:
        return Cell(panel.missing(), f"n = {n}", faint=True)
    found = panel.spearman
    return Cell(signed(found.value, 2), f"[{signed(found.low, 2)}, {signed(found.high, 2)}], n = {n}")


def _note(cells: Cells, panels: list[PredictorPanel]) -> str:
    chosen = " Hyperparameters were chosen on test images." if cells.selection == "test" else ""
    most = max(panel.left_out for panel in panels)
    some = "one network is" if most == 1 else f"up to {most} networks are"
    flagged = f" In a cell {some} left out, since a training or transfer behind it failed." if most else ""
    return (
        "Spearman's ρ over n networks, with its 95 % interval over networks (Bonett and Wright's); seeds of one "
        "architecture count as networks of their own. All targets: of a network the mean over targets of its accuracy "
        f"less the target's mean over networks. Below {FEWEST} networks, how many it lacks. An interval over few "
        f"networks is of these kinds of networks, and a correlation is no cause.{flagged}{chosen}"
    )
