"""Contact sheets with words: rows of images of one size, each row named, and a line of text below each image."""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from robust_transfer.datasets.arrow import Images

SHOWN = 8
"""Images in a row."""
LEAST = 120
"""Pixels that an image takes at least; smaller ones are enlarged by a whole number, so that their pixels show."""
GAP, MARGIN, LINE, SMALL, LARGE = 8, 205, 25, 17, 22
"""Pixels between images, of the names at the left, of a line of text, and of letters, beside images of `LEAST`; beside
larger ones as much larger."""
INK, SOFT, GROUND = (28, 28, 28), (85, 85, 85), (255, 255, 255)


@dataclass(frozen=True)
class Row:
    """A row of a sheet."""

    name: str
    """What its images are, in a few words."""
    images: Images
    """uint8 [n, S, S, 3]."""
    captions: Sequence[str] = ()
    """What stands below each image; empty: nothing does."""


def write_sheet(path: Path, title: str, rows: Sequence[Row]) -> None:
    """Write a PNG with a title and a row for each of `rows`, whose images have one n and one S."""
    side = rows[0].images.shape[1]
    scale = max(1, math.ceil(LEAST / side))
    cell = side * scale
    gap, margin, line, small, large = (round(pixels * cell / LEAST) for pixels in (GAP, MARGIN, LINE, SMALL, LARGE))
    heights = [cell + gap + line * bool(row.captions) for row in rows]
    top = large + 2 * gap
    sheet = Image.new("RGB", (margin + len(rows[0].images) * (cell + gap), top + sum(heights)), GROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, gap // 2), title, INK, _font(large))
    for row, height in zip(rows, heights, strict=True):
        for i, words in enumerate(_lines(row.name, margin - 2 * gap, _font(small))):
            draw.text((gap, top + i * line), words, INK, _font(small))
        for x, image in enumerate(row.images):
            left = margin + x * (cell + gap)
            sheet.paste(Image.fromarray(image.repeat(scale, axis=0).repeat(scale, axis=1)), (left, top))
            if row.captions:
                draw.text((left, top + cell), _cut(row.captions[x], cell, _font(small)), SOFT, _font(small))
        top += height
    sheet.save(path, "PNG", optimize=True)


def _lines(text: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    """The text in lines of at most so many pixels, broken at spaces."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _cut(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """The text, cut off where it is longer than so many pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, in which figures are lettered; matplotlib brings it, and is not imported for it."""
    found = importlib.util.find_spec("matplotlib")
    assert found is not None
    assert found.origin is not None
    return ImageFont.truetype(Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf", size)
