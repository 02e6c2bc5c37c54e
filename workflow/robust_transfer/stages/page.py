"""Stage page: an experiment as one HTML file, which opens from the disk and asks nothing of the network.

    python -m robust_transfer page results/<name> --out results/<name>/index.html

Reads the tables, the ledger of claims, the figures and `about.json` in the folder. It takes 5 s on one core.
"""

from __future__ import annotations

import logging
from pathlib import Path

from robust_transfer.page.content import Content
from robust_transfer.page.document import document
from robust_transfer.store.entry import write_text

log = logging.getLogger("robust_transfer")


def write_page(folder: Path, path: Path) -> None:
    """Write the page of an experiment's results folder. Raises TableError where a table is missing or is none."""
    text = document(Content.of(folder))
    write_text(path, text)
    log.info("%s: %.1f MB", path, len(text.encode()) / 1e6)
