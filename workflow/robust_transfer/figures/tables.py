"""Tables: what a table shows, as a pandas DataFrame of cells, and its files in every format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from robust_transfer.figures import html, latex, markdown
from robust_transfer.figures.numbers import Number
from robust_transfer.tables.flags import DAGGER

FAILED = f"{DAGGER} A training or transfer behind the number failed, as flags.csv says; it counts for neither side."
"""The note of a table in which numbers are marked."""

if TYPE_CHECKING:  # importing it takes as long as writing the summary, which needs the text of numbers alone
    import pandas as pd


@dataclass(frozen=True)
class Cell:
    """The text of a cell and how it is marked; empty by default."""

    text: str = ""
    detail: str = ""
    """Follows the text in smaller letters: an interval, a count."""
    bold: bool = False
    faint: bool = False
    """It stands for a number that is missing."""
    starred: bool = False
    failed: bool = False
    """Something behind the number failed."""

    @property
    def mark(self) -> str:
        """What follows the number: a dagger where something failed, which then is no other news, or a star."""
        return DAGGER if self.failed else "*" * self.starred

    def __str__(self) -> str:
        return f"{self.text} {self.detail}".strip() + self.mark


@dataclass(frozen=True)
class TableRow:
    """One row of a table: its labels, one for each level of the index, and its cells."""

    labels: tuple[str, ...]
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Block:
    """Rows that share the first level of the index."""

    heading: str
    """Stands above the rows; empty where the rows themselves say it."""
    rows: list[TableRow]
    """A label that the row above has too is empty."""


@dataclass(frozen=True)
class Table:
    """A table of cells; the names of the index's levels are the headings of its first columns."""

    frame: pd.DataFrame
    """Every value is a `Cell`. Columns of two levels have headings that span several of them."""
    caption: str
    headed: bool = False
    """The first level of the index is no column: its labels are headings above the rows of each."""

    @classmethod
    def of(
        cls,
        rows: Sequence[TableRow],
        names: list[str],
        columns: Sequence[str] | Sequence[tuple[str, str]],
        caption: str,
        *,
        headed: bool = False,
    ) -> Table:
        """The table of these rows; `names` are those of the levels of the index, pairs in `columns` make two levels."""
        import pandas as pd

        index = pd.MultiIndex.from_tuples([row.labels for row in rows], names=names)
        frame = pd.DataFrame(
            [list(row.cells) for row in rows],
            index=index,
            columns=pd.Index(list[object](columns)),
            dtype=object,
        )
        return cls(frame, caption, headed)

    @property
    def names(self) -> list[str]:
        """Headings of the columns that the index fills."""
        return [str(name) for name in self.frame.index.names][self.headed :]

    @property
    def columns(self) -> list[str]:
        """Headings of the columns of cells, of the last level."""
        return [str(name) for name in self.frame.columns.get_level_values(-1)]

    @property
    def spans(self) -> list[tuple[str, int]]:
        """Headings above those of the columns, and how many columns each spans; none where columns have one level."""
        if self.frame.columns.nlevels == 1:
            return []
        above = self.frame.columns.get_level_values(0)
        return [(str(heading), len(list(under))) for heading, under in groupby(above)]

    def blocks(self) -> Iterator[Block]:
        """The rows, by the first level of the index where that has several; a single block otherwise."""
        labels = [tuple(str(label) for label in labels) for labels in self.frame.index]
        rows = [TableRow(*row) for row in zip(labels, self.frame.to_numpy().tolist(), strict=True)]
        if self.frame.index.nlevels == 1:
            yield Block("", rows)
            return
        for first, block in groupby(rows, key=lambda row: row.labels[0]):
            above = tuple[str, ...]()
            shown = []
            for row in block:
                repeated = len(_common(above, row.labels[:-1]))
                above = row.labels
                new = tuple("" if i < repeated else label for i, label in enumerate(row.labels))
                shown.append(TableRow(new[self.headed :], row.cells))
            yield Block(first if self.headed else "", shown)


@dataclass(frozen=True)
class Tables:
    """What a figure that is a table hands to the stage `figures`."""

    tables: Sequence[Table]
    """None where nothing was measured; the notes say so."""
    notes: Sequence[str]
    numbers: list[Number]
    """The numbers in the tables, for the CSV."""

    def write(self, stem: Path) -> None:
        """Write `stem`.tex, .html and .md; the same tables give the same bytes."""
        for suffix, text in (("tex", self.latex()), ("html", self.html()), ("md", self.markdown())):
            (stem.parent / f"{stem.name}.{suffix}").write_text(text, encoding="utf-8")

    def latex(self) -> str:
        """The tables for a paper."""
        return latex.document(self.tables, self.notes)

    def html(self) -> str:
        """The tables as a page of their own."""
        return html.document(self.tables, self.notes)

    def markdown(self) -> str:
        """The tables for a README or a terminal."""
        return markdown.document(self.tables, self.notes)


def _common(labels: tuple[str, ...], others: tuple[str, ...]) -> list[str]:
    """The labels with which both begin."""
    common = []
    for label, other in zip(labels, others, strict=False):
        if label != other:
            break
        common.append(label)
    return common
