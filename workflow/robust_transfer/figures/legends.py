"""Legends: handles, remarks in words, and how they stand above the panels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robust_transfer.figures.labels import architecture_label
from robust_transfer.figures.lettering import width, wrapped
from robust_transfer.figures.style import FAILED, INK, LINK, RC, Look, marker

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(drawn: Figure, *groups: Sequence[Any]) -> None:
    """Legends above the panels, each group on lines of its own; the figure grows by the height they need."""
    line, page = 0.145, drawn.get_figwidth()
    if any(text.get_label() == FAILED for ax in drawn.axes for text in ax.texts):
        groups = (*groups, remarks(drawn, [FAILED]))
    blocks = [(handles, _legend_columns(handles, page)) for handles in groups if handles]
    labels = [
        [wrapped(handle.get_label(), page - 0.5, RC["legend.fontsize"]) for handle in handles] for handles, _ in blocks
    ]
    heights = [
        sum(max(one.count("\n") + 1 for one in own[start : start + columns]) for start in range(0, len(own), columns))
        for own, (_, columns) in zip(labels, blocks, strict=True)
    ]
    band = 0.06 + line * sum(heights)
    height = drawn.get_figheight() + band
    drawn.set_figheight(height)
    engine = drawn.get_layout_engine()
    assert engine is not None
    engine.set(rect=(0, 0, 1, 1 - band / height))  # type: ignore[call-arg]
    top = height - 0.03
    for (handles, columns), own, of_block in zip(blocks, labels, heights, strict=True):
        # matplotlib fills columns first; readers read lines.
        order = [i for column in range(columns) for i in range(column, len(handles), columns)]
        place: Look = {"loc": "upper center", "bbox_to_anchor": (0.5, top / height), "borderaxespad": 0, "borderpad": 0}
        # matplotlib leaves out what has a label that begins with `_`, so that labels are set afterwards.
        look: Look = {"labels": ["."] * len(order), "ncols": columns, "labelspacing": 0.35, **place}
        made = drawn.legend(handles=[handles[i] for i in order], **look)
        made.set_in_layout(False)
        for text, i in zip(made.get_texts(), order, strict=True):
            text.set_text(own[i])
        top -= line * of_block


def _legend_columns(handles: Sequence[Any], page: float) -> int:
    """Columns, as many as fit into a page's width in inches."""
    points = RC["legend.fontsize"]
    lengths = [max(0.052 * len(one), width(one, points)) for one in (handle.get_label() for handle in handles)]
    for columns in range(len(handles), 1, -1):
        widest = [max(lengths[column::columns]) for column in range(columns)]
        if sum(0.36 + length for length in widest) <= page:
            return columns
    return 1


def words(text: str) -> Any:
    """A legend handle that is words alone."""
    from matplotlib.lines import Line2D

    return Line2D([], [], ls="", label=text)


def remarks(drawn: Figure, texts: Sequence[str]) -> list[Any]:
    """Legend handles that are words alone, each text in as many lines as the figure's width asks for."""
    from textwrap import wrap

    inches = drawn.get_figwidth() - 0.36
    lines = [line for text in texts for line in wrap(text, int(inches / 0.052))]
    points = RC["legend.fontsize"]
    return [words(fit) for line in lines for fit in wrapped(line, inches + 0.3, points, most=99).split("\n")]


def architectures(archs: Sequence[str]) -> list[Any]:
    """Legend handles for markers of architectures."""
    from matplotlib.lines import Line2D

    look: Look = {"ls": "", "color": "white", "mec": INK, "mew": 0.6}
    return [Line2D([], [], marker=marker(archs, arch), label=architecture_label(arch), **look) for arch in archs]


def hollow() -> Any:
    """A legend handle for published numbers behind ours."""
    from matplotlib.lines import Line2D

    look: Look = {"color": LINK, "lw": 0.7, "marker": "o", "mfc": "white", "mec": LINK, "mew": 0.6, "ms": 4.0}
    return Line2D([], [], label="published", **look)
