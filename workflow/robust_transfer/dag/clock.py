"""Files from the future: after a clock has jumped back, or from a machine whose clock is ahead.

Times of files decide nothing here. But Snakemake dates what a job has made, and then has the job fail if an input is
from later. So what lies in the future is dated now before the first job.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

TOLERATED = 1.0
"""Seconds ahead that are no jump: a file system's clock and the processor's differ by milliseconds."""


def date_now(paths: Iterable[Path]) -> int:
    """Set the time of files from the future to now; returns how many there were, of those that may be touched."""
    dated, now = 0, time.time()
    for path in paths:
        try:
            if path.stat().st_mtime > now + TOLERATED:
                os.utime(path)
                dated += 1
        except OSError:  # missing; or another user's, or on a disk that cannot be written
            continue
    return dated
