"""Stage figures: draw one figure or table from the results table, `training` from the training table.

    python -m robust_transfer figures headline results/<name>/results.parquet --out results/<name>/figures/headline

Writes the figure as .svg, .pdf and .png and its numbers as .csv; for a table also .md. The same table gives the same
bytes. Takes 2 to 3 s on one core of an AMD EPYC; 5 s for twelve targets, four networks and ten eps.
"""

from __future__ import annotations

import csv
import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robust_transfer.figures import style
from robust_transfer.figures.drawing import Drawing, Number
from robust_transfer.registry import FIGURES, PACKAGE
from robust_transfer.tables.results import TableError, read
from robust_transfer.tables.training import read_training

log = logging.getLogger("robust_transfer")


def draw(name: str, table: Path, stem: Path) -> None:
    """Draw the figure `name` from its table to `stem`.svg, .pdf, .png and .csv, and .md for one that is a table itself.

    Raises TableError for an unknown name, or a file that is not the table that the registry names.
    """
    if name not in FIGURES:
        raise TableError(f"figure {name}: no such figure; there are {', '.join(FIGURES)}")
    import matplotlib

    # By name and not by an import above: an edit of one figure's module is to redraw that figure alone.
    figure: Callable[[Any], Drawing] = getattr(
        importlib.import_module(f"{PACKAGE}.figures.{FIGURES[name].module}"), name
    )
    content = read_training(table) if FIGURES[name].table == "training" else read(table)

    with matplotlib.rc_context(style.RC):
        drawing = figure(content)
        stem.parent.mkdir(parents=True, exist_ok=True)
        style.save(drawing.figure, stem)
    _write_numbers(drawing.numbers, stem.parent / f"{stem.name}.csv")
    if FIGURES[name].is_table:
        (stem.parent / f"{stem.name}.md").write_text(drawing.markdown or "")
    log.info("%s: %d numbers", stem, len(drawing.numbers))


def _write_numbers(numbers: list[Number], path: Path) -> None:
    """Write the numbers drawn, one mark per line; numbers to four decimals, nothing where nothing was measured."""
    names = list(dict.fromkeys(name for one in numbers for name in one))
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for one in numbers:
            writer.writerow([_text(one.get(name)) for name in names])


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
