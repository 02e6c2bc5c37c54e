r"""Tables as LaTeX, with the rules of booktabs: `\input{headline.tex}` inside a `table` of the paper's own.

Not by pandas' Styler, which writes neither headings of blocks nor rules under headings that span columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robust_transfer.figures.tables import Cell, Table

USAGE = r"""% In the preamble: \usepackage{booktabs}; with \usepackage{graphicx} what is wider than the text shrinks.
% In the text: \begin{table} \centering \input{<this file>} \caption{...} \label{...} \end{table}
"""
SHRINK = r"\ifdim\wd0>\linewidth\ifdefined\resizebox\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi\else\usebox0\fi"
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: f"\\{character}" for character in "%_&#${}"},
    # Not in the fonts of pdflatex.
    "ε": r"$\varepsilon$",
    "Δ": r"$\Delta$",
    "∞": r"$\infty$",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "²": "$^2$",
    "…": r"\ldots{}",
    "†": r"\dag{}",
    "–": "--",
    "—": "---",
    # Ligatures.
    "--": "-{}-",
    "`": r"\textasciigrave{}",
    "''": "'{}'",
}
"""Characters that LaTeX interprets, or that its fonts lack. All others are written as they are, in UTF-8."""
_SPECIAL = re.compile("|".join(map(re.escape, SPECIAL)))
IN_PDFLATEX = "‘’“”„•≤"
"""Letters beyond Latin ones that pdflatex has, in text or as tables here write them."""
UNICODE = """% It has letters that pdflatex lacks: compile it by lualatex or xelatex, with fontspec.
"""


def document(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """The tables in small letters one below another, and the notes below them, as wide as the text."""
    parts = [r"\setlength{\tabcolsep}{4pt}"]
    for table in tables:
        parts += [r"\sbox0{%", *_tabular(table), "}", SHRINK, r"\par\medskip"]
    if notes:
        parts += [r"\begin{minipage}{\linewidth}\footnotesize", "\n\n".join(map(text, notes)), r"\end{minipage}\par"]
    written = "\n".join(parts)
    usage = USAGE + UNICODE * any(letter > "\u024f" and letter not in IN_PDFLATEX for letter in written)
    return "\n".join([usage + r"{\footnotesize", written, "}", ""])


def text(plain: str) -> str:
    """Plain text as LaTeX in one line."""
    return _SPECIAL.sub(lambda found: SPECIAL[found[0]], " ".join(plain.split()))


def cell(one: Cell) -> str:
    """A cell; its mark has no width, so that numbers stay aligned."""
    words = text(one.text)
    words = rf"\textbf{{{words}}}" if one.bold else words
    words = rf"\textit{{{words}}}" if one.faint else words
    words += rf" {{\scriptsize {text(one.detail)}}}" if one.detail else ""
    return words + rf"\rlap{{{text(one.mark)}}}" * bool(one.mark)


def _tabular(table: Table) -> list[str]:
    names, columns = table.names, table.columns
    every = len(names) + len(columns)
    widths = [width for _, width in table.spans] or [len(columns)]
    form = "l" * len(names) + r"@{\hspace{16pt}}".join("r" * width for width in widths)
    lines = [rf"\begin{{tabular}}{{{form}}}", r"\toprule"]
    if table.spans:
        lines += _spanning(table.spans, len(names))
    lines += [_line(map(_heading, [*names, *columns])), r"\midrule"]
    for i, block in enumerate(table.blocks()):
        if i:
            lines.append(r"\midrule" if block.heading else r"\addlinespace")
        if block.heading:
            lines += [rf"\multicolumn{{{every}}}{{l}}{{\textit{{{text(block.heading)}}}}} \\", r"\addlinespace[2pt]"]
        lines += [_line([*map(text, row.labels), *map(cell, row.cells)]) for row in block.rows]
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _spanning(spans: Sequence[tuple[str, int]], first: int) -> Iterable[str]:
    """The line of headings that span columns, and a rule under each; `first` columns stand before them."""
    yield _line([*[""] * first, *(rf"\multicolumn{{{width}}}{{c}}{{{text(heading)}}}" for heading, width in spans)])
    rules = []
    for _, width in spans:
        rules.append(rf"\cmidrule(lr){{{first + 1}-{first + width}}}")
        first += width
    yield "".join(rules)


def _heading(name: str) -> str:
    """A heading of several lines is a nested table, aligned at its last line."""
    lines = [text(line) for line in name.split("\n")]
    return lines[0] if len(lines) == 1 else r"\begin{tabular}[b]{@{}r@{}}" + r" \\ ".join(lines) + r"\end{tabular}"


def _line(cells: Iterable[str]) -> str:
    line = " & ".join(cells)
    # `\\` reads a `[` or `*` that follows as its argument.
    return ("{}" if line.startswith(("[", "*")) else "") + line + r" \\"
