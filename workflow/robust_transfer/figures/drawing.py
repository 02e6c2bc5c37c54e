"""What the module of a picture hands to the stage `figures`: the picture and the numbers in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robust_transfer.figures import style
from robust_transfer.figures.numbers import Number

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawing:
    """A figure and the numbers drawn in it."""

    figure: Figure
    numbers: list[Number]

    def write(self, stem: Path) -> None:
        """Write `stem`.png, .pdf and .svg; the same picture gives the same bytes."""
        style.save(self.figure, stem)
