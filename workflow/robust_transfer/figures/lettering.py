"""Labels in figures: broken into lines where they are too long, and in a font that has their letters.

Labels are the experiment's own words. They are drawn as they are written: `$` begins no formula (`text.parse_math` in
`style.RC`), and letters that DejaVu Sans lacks, such as Chinese, Japanese and Korean ones, are taken from another font
where one is installed.
"""

from __future__ import annotations

import functools
import logging
import re
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FONT = "DejaVu Sans"
"""Comes with matplotlib, so that figures are the same on every machine."""
BOXES = ("Last Resort", "Last Resort High-Efficiency")
"""Fonts of boxes that name a letter's script, for want of the letter; matplotlib has one."""
MOST_LINES = 3
"""Lines of a label; the last of a longer one ends in an ellipsis."""
_BREAKS = re.compile(r"(?<=[\s_./-])")  # a line may end after these

log = logging.getLogger("robust_transfer")


def wrapped(label: str, inches: float, points: float, most: int = MOST_LINES) -> str:
    """A label in lines that fit into a width, at that font size.

    It is broken at spaces, after hyphens, dots and the like, and where none is in reach between any two letters. Lines
    that it has already are kept.
    """
    lines = [line for part in label.split("\n") for line in _lines(part, inches, points)]
    if len(lines) <= most:
        return "\n".join(lines)
    last = lines[most - 1]
    while last and width(f"{last}…", points) > inches:
        last = last[:-1]
    return "\n".join([*lines[: most - 1], f"{last}…"])


def _lines(label: str, inches: float, points: float) -> Iterator[str]:
    line = ""
    for piece in _BREAKS.split(label):
        if line and width((line + piece).rstrip(), points) > inches:
            yield line.rstrip()
            line = ""
        line += piece
        while len(line) > 1 and width(line.rstrip(), points) > inches:
            end = next(n for n in range(len(line) - 1, 0, -1) if n == 1 or width(line[:n], points) <= inches)
            yield line[:end]
            line = line[end:]
    yield line.rstrip()


def width(text: str, points: float) -> float:
    """Width in inches of one line at that font size; letters of DejaVu Sans's missing fonts count as one em if wide."""
    return sum(map(_em, text)) * points / 72


@functools.cache
def _em(letter: str) -> float:
    """Width of a letter as a share of the font size."""
    if unicodedata.east_asian_width(letter) in "WF" or ord(letter) not in _letters(_path(FONT)):
        return 1.0
    return float(_font(_path(FONT)).load_char(ord(letter), flags=_unhinted()).linearHoriAdvance) / 65536 / 100


def use_fonts(drawn: Figure) -> list[str]:
    """Give each text of a figure the fonts that have its letters; returns letters that no installed font has."""
    from matplotlib.text import Text

    lacking: set[str] = set()
    for text in drawn.findobj(Text):
        missing = _missing(text.get_text())
        if missing:
            fonts, left = _covering("".join(sorted(missing)))
            text.set_fontfamily([FONT, *fonts])
            lacking |= set(left)
    return sorted(lacking)


@contextmanager
def literal(drawn: Figure) -> Iterator[None]:
    """Within the block the figure is drawn in fonts that have its letters; letters that none has are logged once."""
    import matplotlib

    lacking = use_fonts(drawn)
    if lacking:
        some = " ".join(lacking[:10]) + (f" and {len(lacking) - 10} more" if len(lacking) > 10 else "")
        log.warning(
            "no installed font has the letters %s, and boxes are drawn for them: install one that has, such as Noto "
            "Sans CJK (`apt-get install fonts-noto-cjk`), and remove matplotlib's list of fonts, fontlist-*.json in %s",
            some,
            matplotlib.get_cachedir(),
        )
    with warnings.catch_warnings():
        if lacking:  # matplotlib would say it of every letter, three times
            warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
        yield


def _missing(text: str) -> set[str]:
    """Letters that DejaVu Sans lacks."""
    known = _letters(_path(FONT))
    return {letter for letter in text if ord(letter) not in known and not letter.isspace()}


@functools.cache
def _covering(letters: str) -> tuple[tuple[str, ...], str]:
    """Names of installed fonts that together have these letters, as few as possible, and the letters that none has."""
    from matplotlib.font_manager import fontManager

    installed = sorted(
        (
            one
            for one in fontManager.ttflist
            if one.style == "normal" and 300 <= int(one.weight) <= 500 and one.name not in BOXES
        ),
        key=lambda one: ("Sans" not in one.name, one.name, one.fname),
    )
    found, left = list[str](), set(letters)
    for _ in range(3):
        best = max(installed, key=lambda one: len(left & _characters(one.fname)), default=None)
        if best is None or not left & _characters(best.fname):
            break
        found.append(best.name)
        left -= _characters(best.fname)
    return tuple(found), "".join(sorted(left))


@functools.cache
def _characters(path: str) -> frozenset[str]:
    return frozenset(map(chr, _letters(path)))


@functools.cache
def _letters(path: str) -> frozenset[int]:
    """Code points that a font has; none of a file that is no font that matplotlib reads."""
    try:
        return frozenset(_font(path).get_charmap())
    except (RuntimeError, OSError):
        return frozenset()


@functools.cache
def _font(path: str) -> Any:
    from matplotlib.ft2font import FT2Font

    font = FT2Font(path)
    font.set_size(100, 72)
    return font


def _unhinted() -> Any:
    from matplotlib import ft2font

    return ft2font.LoadFlags.NO_HINTING


@functools.cache
def _path(name: str) -> str:
    from matplotlib.font_manager import findfont

    return str(findfont(name))
