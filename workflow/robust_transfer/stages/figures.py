"""Stage figures: draw one figure or table from the results table, `training` from the training table.

    python -m robust_transfer figures headline results/<name>/results.parquet --out results/<name>/figures/headline

Writes a figure as .png, .pdf and .svg, a table as .tex, .html and .md, and the numbers in either as .csv. Whose numbers
they are, the experiment says (`figures.source`): its own, the published ones, or both. The same table of results gives
the same bytes. A figure takes 2 to 3 s on one core of an AMD EPYC, 5 s for twelve targets, four networks and ten eps; a
table 1 s.
"""

from __future__ import annotations

import csv
import importlib
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pandas as pd

from robust_transfer.figures.numbers import COLUMNS, Number
from robust_transfer.registry import FIGURES, PACKAGE, Figure
from robust_transfer.tables.errors import TableError
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.published_experiment import beside_published, published_results
from robust_transfer.tables.results import read_results
from robust_transfer.tables.training import read_training

log = logging.getLogger("robust_transfer")


def draw(name: str, table: Path, stem: Path) -> None:
    """Draw the figure `name` from its table to `stem` with each of the suffixes that the registry names.

    Raises TableError for an unknown name, or a file that is not the table that the registry names.
    """
    if name not in FIGURES:
        raise TableError(f"figure {name}: no such figure; there are {', '.join(FIGURES)}")
    figure = FIGURES[name]
    # By name and not by an import above: an edit of one figure's module is to redraw that figure alone.
    module = importlib.import_module(f"{PACKAGE}.figures.{figure.module}")
    if figure.table == "training":
        content = read_training(table)
    else:
        # A figure whose published numbers have a form of their own has a function of this name too.
        published = getattr(module, "published_results", published_results)
        content = _numbers_of(figure, read_results(table), published)
    stem.parent.mkdir(parents=True, exist_ok=True)
    with nullcontext() if figure.is_table else _style():
        shown = getattr(module, name)(content)
        shown.write(stem)
    _write_numbers(shown.numbers, getattr(module, "COLUMNS", COLUMNS), stem.parent / f"{stem.name}.csv")
    log.info("%s: %d numbers", stem, len(shown.numbers))


def _numbers_of(figure: Figure, results: pd.DataFrame, published: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """What the experiment has its figures drawn from: its own numbers, the published ones, or both."""
    source = ExperimentInfo.of(results).drawn_from
    if source == "published":
        return published()
    return beside_published(results, published()) if source == "both" and figure.published else results


def _style() -> AbstractContextManager[None]:
    """The settings of matplotlib, which tables do without."""
    import matplotlib

    # By name, too: an edit of colours is to draw no table again. Modules of pictures import it themselves.
    return matplotlib.rc_context(importlib.import_module(f"{PACKAGE}.figures.style").RC)


def _write_numbers(numbers: list[Number], columns: Sequence[str], path: Path) -> None:
    """Write the numbers drawn, one mark per line; numbers to four decimals, nothing where nothing was measured.

    A file without numbers has the columns that it would have with some.
    """
    names = list(dict.fromkeys([*columns, *(name for one in numbers for name in one)]))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for one in numbers:
            writer.writerow([_text(one.get(name)) for name in names])


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
