"""The panel of a figure that shows what our numbers and the published ones differ by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from robust_transfer.figures import style
from robust_transfer.figures.lettering import wrapped
from robust_transfer.figures.numbers import Number
from robust_transfer.figures.pairs import differences

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Ours less published (points)"
NOTHING = "nothing of this was published"


def draw_differences(
    ax: Axes, numbers: Sequence[Number], labels: dict[str, str], look: Callable[[Number], Any]
) -> None:
    """A panel of its own: a row for each target, a dot for each pair, 0 where ours is what was published.

    `labels`: of targets, by name, in order; `look`: keyword arguments of a dot.
    """
    found = differences(numbers)
    names = [name for name in labels if any(one["target"] == name for one in found)]
    ax.axvline(0, color=style.INK, lw=0.6, zorder=1)
    for one in found:
        own: style.Look = {"marker": "o", "ms": 2.8, "mew": 0, "alpha": 0.85, "ls": "", **look(one)}
        ax.plot([float(str(one["difference"]))], [names.index(str(one["target"]))], **own)
    ax.set_yticks(range(len(names)), [wrapped(labels[name], 0.85, style.SMALL, most=1) for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    furthest = max((abs(float(str(one["difference"]))) for one in found), default=1.0)
    ax.set_xlim(-1.15 * max(furthest, 1.0), 1.15 * max(furthest, 1.0))
