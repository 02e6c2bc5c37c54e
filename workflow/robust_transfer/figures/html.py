"""Tables as a standalone HTML page, for a browser or Snakemake's report, readable on a desktop and on a phone.

Not by pandas' Styler, which writes neither the scope of headers nor headings of blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robust_transfer.figures.tables import Block, Cell, Table

STYLE = """
:root { color-scheme: light; }
body { margin: 1rem; background: #fff; color: #1a1a1a; font: 15px/1.45 system-ui, "Helvetica Neue", Arial, sans-serif; }
.scroll { overflow-x: auto; margin-bottom: 1.5rem; }
table { border-collapse: collapse; border: solid; border-width: 2px 0; font-variant-numeric: tabular-nums; }
caption { padding: 0 0 .5rem; font-weight: 600; text-align: left; }
caption span { position: sticky; left: 0; display: inline-block; max-width: calc(100vw - 2rem); }
th, td { padding: .2rem .7rem; text-align: right; vertical-align: baseline; white-space: nowrap; }
th { font-weight: 400; }
thead th { font-weight: 600; white-space: normal; vertical-align: bottom; }
thead th[scope=colgroup] { text-align: center; box-shadow: inset 0 -1px #999; }
.label { text-align: left; }
tr > :last-child { padding-right: 1.2rem; }
tbody { border-top: 1px solid; }
tbody.plain + tbody.plain { border-top-color: #ccc; }
th.block { padding-top: .4rem; font-style: italic; text-align: left; white-space: normal; }
.detail { color: #555; font-size: .85em; }
.faint { color: #666; font-style: italic; }
.star { position: absolute; }
.notes { max-width: 48rem; color: #444; font-size: .87em; }
.notes p { margin: 0 0 .4rem; }
@media (max-width: 40rem) {
  body { margin: .6rem; font-size: 14px; }
  table { width: max-content; }
  th, td { padding: .2rem .45rem; }
  thead th { max-width: 9rem; }
  .detail { display: block; }
  .faint { max-width: 7rem; white-space: normal; }
  .first { position: sticky; left: 0; max-width: 9rem; background: #fff; white-space: normal; }
}
"""


def document(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """A page with the tables one below another, each in a box that scrolls where it is too narrow, and the notes."""
    title = "; ".join(dict.fromkeys(escape(table.caption) for table in tables)) or "Not measured"
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>",
        f"<style>{STYLE}</style>",
        "</head>",
        "<body>",
        *(line for table in tables for line in _table(table)),
        '<div class="notes">',
        *(f"<p>{escape(note)}</p>" for note in notes),
        "</div>",
        "</body>",
        "</html>",
    ]
    return "\n".join([*lines, ""])


def cell(one: Cell) -> str:
    """A cell; its mark is outside the flow, so that numbers stay aligned."""
    words = f"<b>{escape(one.text)}</b>" if one.bold else escape(one.text)
    words += f' <span class="detail">{escape(one.detail)}</span>' if one.detail else ""
    words += f'<span class="star">{one.mark}</span>' * bool(one.mark)
    return f'<td class="faint">{words}</td>' if one.faint else f"<td>{words}</td>"


def _table(table: Table) -> Iterator[str]:
    caption = escape(table.caption)
    yield f'<div class="scroll" role="region" aria-label="{caption}" tabindex="0">'
    yield "<table>"
    yield f"<caption><span>{caption}</span></caption>"
    groups = [len(table.names), *([width for _, width in table.spans] or [len(table.columns)])]
    yield "".join(f'<colgroup span="{width}"></colgroup>' for width in groups)
    yield "<thead>"
    yield from _head(table)
    yield "</thead>"
    for block in table.blocks():
        yield from _body(block, len(table.names) + len(table.columns))
    yield "</table>"
    yield "</div>"


def _head(table: Table) -> Iterator[str]:
    rows = 2 if table.spans else 1
    labels = "".join(_header("col", name, level, rows=rows) for level, name in enumerate(table.names))
    columns = "".join(_header("col", name) for name in table.columns)
    if table.spans:
        yield f"<tr>{labels}{''.join(_header('colgroup', name, columns=width) for name, width in table.spans)}</tr>"
        yield f"<tr>{columns}</tr>"
    else:
        yield f"<tr>{labels}{columns}</tr>"


def _body(block: Block, columns: int) -> Iterator[str]:
    yield "<tbody>" if block.heading else '<tbody class="plain">'
    if block.heading:
        yield f'<tr><th class="block" scope="rowgroup" colspan="{columns}">{escape(block.heading)}</th></tr>'
    for i, row in enumerate(block.rows):
        *spanning, own = range(len(row.labels))
        headers = ""
        for level in spanning:
            below = [other.labels[level] for other in block.rows[i + 1 :]]
            if row.labels[level]:  # also for the rows below that have none of their own
                rows = 1 + next((n for n, label in enumerate(below) if label), len(below))
                headers += _header("row", row.labels[level], level, rows=rows)
        headers += _header("row", row.labels[own], own)
        yield f"<tr>{headers}{''.join(map(cell, row.cells))}</tr>"
    yield "</tbody>"


def _header(scope: str, text: str, level: int | None = None, *, rows: int = 1, columns: int = 1) -> str:
    """A header; one in a column that the index fills says of which `level`. Without a text it is a cell like others."""
    tag = f'th scope="{scope}"' if text else "td"
    tag += "" if level is None else ' class="label first"' if level == 0 else ' class="label"'
    tag += (f' rowspan="{rows}"' if rows > 1 else "") + (f' colspan="{columns}"' if columns > 1 else "")
    lines = "<br>".join(escape(line) for line in text.split("\n"))
    return f"<{tag}>{lines}</{tag[:2]}>"
