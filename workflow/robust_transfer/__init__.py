"""Do adversarially robust models transfer better? The stages of the experiment, one module each.

`read_results` reads the results table of an experiment as a pandas DataFrame, `measured` finds numbers in it, and
`load_backbone` gives a network of the store as a torch module.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robust_transfer.networks.backbones import load_backbone as load_backbone
    from robust_transfer.tables.measured import measured as measured
    from robust_transfer.tables.results import read_results as read_results

__version__ = "0.1.0"
__all__ = ["__version__", "load_backbone", "measured", "read_results"]

_MODULES = {
    "load_backbone": "robust_transfer.networks.backbones",
    "measured": "robust_transfer.tables.measured",
    "read_results": "robust_transfer.tables.results",
}


def __getattr__(name: str) -> Any:
    """The functions above, imported when they are asked for: every stage imports this package, and few need pandas."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
