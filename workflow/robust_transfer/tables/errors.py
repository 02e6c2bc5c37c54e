"""What goes wrong with tables."""

from __future__ import annotations

import shlex
from pathlib import Path


class TableError(ValueError):
    """A table that cannot be made or read; the message names the row or file and the fix."""


def again(path: Path) -> str:
    """What to do about a file of an experiment's results that is not as it should be."""
    return f"rm {shlex.quote(str(path))}, and the next run makes it again"
