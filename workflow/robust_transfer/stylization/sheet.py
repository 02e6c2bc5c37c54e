"""A contact sheet: originals, what became of them, and the images that gave the styles, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from robust_transfer.datasets.arrow import Images

SHOWN = 10
"""Images in a row."""
LEAST = 96
"""Pixels that an image takes at least; smaller ones are enlarged by a whole number, so that their pixels show."""
GAP = 4


def write_sheet(path: Path, rows: Sequence[Images]) -> None:
    """Write a PNG with a row for each of `rows`, uint8 [n, S, S, 3] with one n and S; white between them."""
    side = rows[0].shape[1]
    scale = max(1, math.ceil(LEAST / side))
    step = side * scale + GAP
    sheet = np.full((len(rows) * step + GAP, len(rows[0]) * step + GAP, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            large = image.repeat(scale, axis=0).repeat(scale, axis=1)
            top, left = GAP + y * step, GAP + x * step
            sheet[top : top + side * scale, left : left + side * scale] = large
    Image.fromarray(sheet).save(path, "PNG")
