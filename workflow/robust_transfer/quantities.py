"""Times and sizes in words: in the unit that suits them, in every message of the package.

The terminal's plugin, which imports nothing of the package, words times by the same rule.
"""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A time in the unit that suits it: 99 s, 12 min, 5 h, 3 days; 0 s where it is negative, as of a clock set back."""
    for unit, length, longest in (("s", 1, 100), ("min", 60, 100 * 60), ("h", 3600, 48 * 3600)):
        if seconds < longest:
            return f"{max(seconds, 0) / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


def size(number: float) -> str:
    """A number of bytes in a unit that fits, of powers of 1,000: 999 B, 2.5 MB, 7.0 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
