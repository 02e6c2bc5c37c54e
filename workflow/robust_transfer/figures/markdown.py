"""Tables as Markdown: pipe tables, as GitHub and pandoc read them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robust_transfer.figures.tables import Cell, Table

SPECIAL = re.compile(r"[\\|<`$~^]|(?<=\S)\*|\*(?=\S)|(?<!\w)_|_(?!\w)|&(?=#?\w+;)|\[(?=[^]]*\][(\[{:])|\[(?=[@^])")
"""Characters that Markdown interprets. It takes a `*` between spaces, a `_` inside a word and brackets that begin no
link literally."""


def document(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """The tables one below another, headings of blocks in bold, and the notes below."""
    parts = ["\n".join(_lines(table)) + "\n\n" for table in tables]
    return "\n".join([*parts, ""])[:-1] + "".join(f"{text(note)}\n" for note in notes)


def text(plain: str) -> str:
    """Plain text as Markdown in one line."""
    return SPECIAL.sub(r"\\\g<0>", " ".join(plain.split()))


def cell(one: Cell) -> str:
    """A cell; faint text is not marked."""
    words = text(f"{one.text} {one.detail}")
    return (f"**{words}**" if one.bold and words else words) + one.mark.replace("*", r"\*")


def _lines(table: Table) -> list[str]:
    names, columns = table.names, table.columns
    first = 0
    for heading, width in table.spans:
        columns[first] = f"{heading} {columns[first]}"
        first += width
    lines = [_line(text(name) for name in [*names, *columns]), "|" + "---|" * len(names) + "--:|" * len(columns)]
    for block in table.blocks():
        if block.heading:
            lines.append(_line([f"**{text(block.heading)}**", *[""] * (len(names) + len(columns) - 1)]))
        lines += [_line([*map(text, row.labels), *map(cell, row.cells)]) for row in block.rows]
    return lines


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
