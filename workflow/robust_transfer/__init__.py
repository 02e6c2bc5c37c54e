"""Do adversarially robust models transfer better? The stages of the experiment, one module each.

`read_results` reads the results table of an experiment as a pandas DataFrame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robust_transfer.tables.results import read_results as read_results

__version__ = "0.1.0"
__all__ = ["__version__", "read_results"]


def __getattr__(name: str) -> Any:
    """`read_results`, imported when it is asked for: every stage imports this package, and few need pandas."""
    if name == "read_results":
        from robust_transfer.tables.results import read_results

        return read_results
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
