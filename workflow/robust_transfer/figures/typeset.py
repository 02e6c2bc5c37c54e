"""Tables as figures: columns as wide as their text, three rules, and the same table as markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robust_transfer.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

LINE, GAP, MARGIN, RIGHT = 0.165, 0.13, 0.08, 0.12
"""Height of a line, least room between columns, and room at either side, in inches."""
LEAST_SCALE = 0.86
"""Of the size of letters: 6 points."""


@dataclass(frozen=True)
class Text:
    """What stands in a cell of a table."""

    text: str
    short: str = ""
    """Stands instead where the page is too narrow for the table."""
    mark: str = ""
    """Hangs behind the text, outside the column."""
    bold: bool = False
    faint: bool = False

    def of_length(self, short: bool) -> str:
        """The text, or the short one if that is asked for and there is one."""
        return self.short if short and self.short else self.text


@dataclass(frozen=True)
class Block:
    """Lines of a table under a heading of their own."""

    heading: str
    lines: Sequence[Sequence[Text]]


@dataclass(frozen=True)
class Table:
    """A table: its first column is set flush left, the others flush right."""

    columns: Sequence[str]
    blocks: Sequence[Block]
    notes: Sequence[str]

    def markdown(self) -> str:
        """The table in markdown, its blocks one after another, each with its heading in bold."""
        width = len(self.columns)
        lines = ["| " + " | ".join(self.columns) + " |", "|---|" + "--:|" * (width - 1)]
        for block in self.blocks:
            lines.append("| " + " | ".join([f"**{block.heading}**", *[""] * (width - 1)]) + " |")
            for line in block.lines:
                lines.append("| " + " | ".join(_marked(cell) for cell in line) + " |")
        return "\n".join([*lines, "", *self.notes, ""])

    def figure(self) -> Figure:
        """The table as a figure, a page wide, or a column wide if it fits there.

        Where the page is too narrow letters shrink a little; where that is not enough, short texts stand for long ones.
        """
        drawn = style.figure(style.PAGE, 1.0)
        drawn.set_layout_engine("none")
        for short in (False, True):
            widths = self._widths(drawn, short)
            gaps = GAP * (len(widths) - 1) + MARGIN + RIGHT
            if sum(widths) * LEAST_SCALE + gaps <= style.PAGE:
                break
        page = style.COLUMN if sum(widths) + gaps <= style.COLUMN else style.PAGE
        scale = min(1.0, (page - gaps) / sum(widths))
        widths = [width * scale for width in widths]
        gap = (page - MARGIN - RIGHT - sum(widths)) / max(1, len(widths) - 1)
        rights = [MARGIN + sum(widths[: i + 1]) + gap * i for i in range(len(widths))]
        notes = [line for note in self.notes for line in _wrapped(note, page)]
        lines = 1 + sum(1 + len(block.lines) for block in self.blocks)
        drawn.set_size_inches(page, LINE * lines + 0.09 * len(self.blocks) + 0.12 * len(notes) + 0.2)
        self._set(drawn, rights, notes, short, 7 * scale)
        return drawn

    def _widths(self, drawn: Figure, short: bool) -> list[float]:
        """Width in inches that each column needs; headings of blocks may run over the columns beside."""
        renderer = drawn.canvas.get_renderer()  # type: ignore[attr-defined]
        lines = [[Text(name, bold=True) for name in self.columns]]
        lines += [list(line) for block in self.blocks for line in block.lines]
        widths = []
        for column in zip(*lines, strict=True):
            texts = [
                drawn.text(0, 0, cell.of_length(short), fontweight="bold" if cell.bold else "normal") for cell in column
            ]
            widths.append(max(text.get_window_extent(renderer).width for text in texts) / drawn.dpi)
            for text in texts:
                text.remove()
        return widths

    def _set(self, drawn: Figure, rights: Sequence[float], notes: Sequence[str], short: bool, size: float) -> None:
        page, height = drawn.get_size_inches()
        y = height - 0.06

        def rule(weight: float) -> None:
            drawn.add_artist(_line([0.03 / page, 1 - 0.03 / page], [y / height] * 2, weight))

        def put(line: Sequence[Text]) -> None:
            for i, cell in enumerate(line):
                x = (rights[i] if i else MARGIN) / page
                look: style.Look = {"color": style.STANDARD if cell.faint else style.INK, "va": "center_baseline"}
                look |= {"fontweight": "bold" if cell.bold else "normal", "fontsize": size}
                drawn.text(x, (y - LINE / 2) / height, cell.of_length(short), ha="right" if i else "left", **look)
                drawn.text(x + 0.01 / page, (y - LINE / 2) / height, cell.mark, ha="left", **look)

        rule(0.9)
        put([Text(name, bold=True) for name in self.columns])
        y -= LINE
        for block in self.blocks:
            y -= 0.03
            rule(0.5)
            y -= 0.03
            put([Text(block.heading, faint=True)])
            y -= LINE
            for line in block.lines:
                put(line)
                y -= LINE
            y -= 0.03
        rule(0.9)
        for note in notes:
            y -= 0.12
            drawn.text(MARGIN / page, (y - 0.01) / height, note, fontsize=style.SMALL, va="center_baseline")


def _line(x: list[float], y: list[float], weight: float) -> Line2D:
    from matplotlib.lines import Line2D

    return Line2D(x, y, color=style.INK, lw=weight)


def _marked(cell: Text) -> str:
    return (f"**{cell.text}**" if cell.bold and cell.text else cell.text) + cell.mark.replace("*", "\\*")


def _wrapped(note: str, page: float) -> list[str]:
    from textwrap import wrap

    return wrap(note, int((page - 2 * MARGIN) / (0.53 * style.SMALL / 72)))
