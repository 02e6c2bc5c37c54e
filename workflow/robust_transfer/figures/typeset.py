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
LEADING, BETWEEN = 0.115, 0.1
"""Height of each further line of a heading, and room between tables."""
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
    """Lines of a table under a heading of their own, or where that is empty under a rule alone."""

    heading: str
    lines: Sequence[Sequence[Text]]


@dataclass(frozen=True)
class Table:
    """A table: its first column, or as many as `left` says, is set flush left, the others flush right."""

    columns: Sequence[str]
    """Headings; one may have several lines."""
    blocks: Sequence[Block]
    notes: Sequence[str]
    left: int = 1

    def markdown(self) -> str:
        """The table in markdown, its blocks one after another, each with its heading in bold."""
        width = len(self.columns)
        names = [name.replace("\n", " ") for name in self.columns]
        lines = ["| " + " | ".join(names) + " |", "|" + "---|" * self.left + "--:|" * (width - self.left)]
        for block in self.blocks:
            if block.heading:
                lines.append("| " + " | ".join([f"**{block.heading}**", *[""] * (width - 1)]) + " |")
            for line in block.lines:
                lines.append("| " + " | ".join(_marked(cell) for cell in line) + " |")
        return "\n".join([*lines, "", *self.notes, ""])

    def figure(self) -> Figure:
        """The table as a figure, a page wide, or a column wide if it fits there."""
        return stacked([self])

    @property
    def _gaps(self) -> float:
        """Least room in inches that is between and beside the columns."""
        return GAP * (len(self.columns) - 1) + MARGIN + RIGHT

    @property
    def _head(self) -> int:
        """Lines of the headings."""
        return 1 + max(name.count("\n") for name in self.columns)

    def _height(self, page: float) -> float:
        lines = 1 + sum(bool(block.heading) + len(block.lines) for block in self.blocks)
        notes = sum(len(_wrapped(note, page)) for note in self.notes)
        return LINE * lines + LEADING * (self._head - 1) + 0.09 * len(self.blocks) + 0.12 * notes

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

    def _set(self, drawn: Figure, widths: Sequence[float], y: float, short: bool, size: float) -> float:
        """Set the table below `y`, in inches, columns spread over the page; returns where it ends."""
        page, height = drawn.get_size_inches()
        gap = (page - MARGIN - RIGHT - sum(widths)) / max(1, len(widths) - 1)
        starts = [MARGIN + sum(widths[:i]) + gap * i for i in range(len(widths))]

        def rule(weight: float) -> None:
            drawn.add_artist(_line([0.03 / page, 1 - 0.03 / page], [y / height] * 2, weight))

        def put(line: Sequence[Text], middle: float) -> None:
            for i, cell in enumerate(line):
                flush_left = i < self.left
                x = (starts[i] if flush_left else starts[i] + widths[i]) / page
                look: style.Look = {"color": style.STANDARD if cell.faint else style.INK, "va": "center_baseline"}
                look |= {"fontweight": "bold" if cell.bold else "normal", "fontsize": size}
                align = "left" if flush_left else "right"
                drawn.text(x, middle / height, cell.of_length(short), ha=align, **look)
                drawn.text(x + 0.01 / page, middle / height, cell.mark, ha="left", **look)

        rule(0.9)
        for i in range(self._head):
            # Headings of fewer lines stand at the foot.
            names = [[""] * (self._head - 1 - name.count("\n")) + name.split("\n") for name in self.columns]
            put([Text(name[i], bold=True) for name in names], y - LINE / 2 - LEADING * i)
        y -= LINE + LEADING * (self._head - 1)
        for block in self.blocks:
            y -= 0.03
            rule(0.5 if block.heading else 0.3)
            y -= 0.03
            for line in [[Text(block.heading, faint=True)]] * bool(block.heading) + list(block.lines):
                put(line, y - LINE / 2)
                y -= LINE
            y -= 0.03
        rule(0.9)
        for remark in [line for note in self.notes for line in _wrapped(note, page)]:
            y -= 0.12
            drawn.text(MARGIN / page, (y - 0.01) / height, remark, fontsize=style.SMALL, va="center_baseline")
        return y


def stacked(tables: Sequence[Table]) -> Figure:
    """Tables one below another as a figure, a page wide, or a column wide if all fit there.

    Where the page is too narrow letters shrink a little; where that is not enough, short texts stand for long ones.
    """
    drawn = style.figure(style.PAGE, 1.0)
    drawn.set_layout_engine("none")
    for short in (False, True):
        widths = [table._widths(drawn, short) for table in tables]
        needs = [(sum(width), table._gaps) for width, table in zip(widths, tables, strict=True)]
        if all(needed * LEAST_SCALE + gaps <= style.PAGE for needed, gaps in needs):
            break
    page = style.COLUMN if all(needed + gaps <= style.COLUMN for needed, gaps in needs) else style.PAGE
    scale = min(1.0, *((page - gaps) / needed for needed, gaps in needs))
    height = sum(table._height(page) for table in tables) + BETWEEN * (len(tables) - 1) + 0.2
    drawn.set_size_inches(page, height)
    y = height - 0.06
    for table, width in zip(tables, widths, strict=True):
        y = table._set(drawn, [one * scale for one in width], y, short, 7 * scale) - BETWEEN
    return drawn


def _line(x: list[float], y: list[float], weight: float) -> Line2D:
    from matplotlib.lines import Line2D

    return Line2D(x, y, color=style.INK, lw=weight)


def _marked(cell: Text) -> str:
    return (f"**{cell.text}**" if cell.bold and cell.text else cell.text) + cell.mark.replace("*", "\\*")


def _wrapped(note: str, page: float) -> list[str]:
    from textwrap import wrap

    return wrap(note, int((page - 2 * MARGIN) / (0.53 * style.SMALL / 72)))
