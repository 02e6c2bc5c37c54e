"""Paths as a configuration states them: what they stand for, and which cannot be meant.

`~`, `~user`, `$NAME` and `${NAME}` stand for what they do in a shell; everything else in a path is taken as it is
written, spaces, quotes and `$(…)` too. Paths of originals are kept as they are stated, since they are part of what
defines a dataset, and resolved where they are opened.
"""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

UNREADABLE = {"Cc": "a control character", "Cs": "half a character", "Zl": "a line break", "Zp": "a line break"}
"""Unicode categories of characters that no path is meant to have."""
UNWRITABLE = {"{": "a brace", "}": "a brace", ":": "a colon"}
"""What a folder that is written to cannot have: Snakemake reads braces as wildcards, and a colon separates paths."""
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")


def resolved(text: str) -> Path:
    """The path that a stated one stands for: `~` and environment variables resolved, relative to nothing.

    Raises ValueError, with the fix, for a variable that is not set or a user who does not exist.
    """
    for match in _VARIABLE.finditer(text):
        name = match[1] or match[2]
        if not os.environ.get(name):
            raise ValueError(f"${name} is not set; export it, or write the path out")
    try:
        return Path(os.path.expandvars(text)).expanduser()
    except RuntimeError:
        raise ValueError(f"{text.partition('/')[0]} is no user's home; write the path out") from None


def _readable(text: str) -> str:
    """The text itself; raises ValueError for a path that cannot be meant."""
    if not text.strip():
        raise ValueError("no path; write that of a file or folder")
    for character in text:
        if what := UNREADABLE.get(unicodedata.category(character)):
            raise ValueError(f"has {what} ({character!r}), which no path is meant to have; take it out")
    if text != text.strip():
        raise ValueError("begins or ends with a space, which is easily overlooked; take it out")
    resolved(text)
    return text


def _writable(text: str) -> str:
    """What the text stands for; raises ValueError for a folder that cannot be meant, or cannot be written by jobs."""
    path = str(resolved(_readable(text)))
    for character, what in UNWRITABLE.items():
        if character in path:
            raise ValueError(
                f"has {what} ({character}), which Snakemake or the system reads as more than a name; name it otherwise"
            )
    if path.startswith("-"):
        raise ValueError("begins with a dash, as options of commands do; name it otherwise, or write its absolute path")
    return text if Path(path) == Path(text) else path


ReadPath = Annotated[str, Field(min_length=1), AfterValidator(_readable)]
"""A file or folder that is read; `resolved` opens it."""
WrittenFolder = Annotated[str, Field(min_length=1), AfterValidator(_writable)]
"""A folder that is written to, resolved when the configuration is read: no entry's hash covers it."""
