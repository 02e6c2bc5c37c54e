"""Stylized images beside the originals, as the page shows them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robust_transfer.page.files import data_uri
from robust_transfer.store.entry import Entry, open_entry

SHEET = "samples.png"
BUDGET = 2_000_000
"""Bytes that all sheets may take; one that is larger than its share of them is shown as a smaller JPEG."""
WIDTH, QUALITY = 1000, 80
"""Pixels across and quality of these."""


@dataclass(frozen=True)
class Sheet:
    """The contact sheet of one dataset."""

    dataset: str
    """Its label."""
    picture: str
    """Its address."""
    alternative: str
    """What it shows, in words."""
    path: str
    """Where the sheet lies in full size."""


@dataclass(frozen=True)
class Stylized:
    """The sheets of all datasets that were stylized."""

    caption: str
    sheets: Sequence[Sheet]


def stylized(described: Mapping[str, Any]) -> Stylized | None:
    """The stylized datasets that `about.json` lists, from the store; None where it lists none. Raises StoreError."""
    listed = described.get("stylized")
    if not listed:
        return None
    store, labels = Path(described["configuration"]["store"]), listed["entries"]
    share = BUDGET // len(labels)
    return Stylized(listed["caption"], [_sheet(open_entry(store / name), labels[name], share) for name in labels])


def _sheet(entry: Entry, label: str, share: int) -> Sheet:
    how, path = entry.facts()["stylized"], entry.file(SHEET)
    styles = " The third row shows the images that gave the styles." if "styles" in how else ""
    says = f"Test images of {label} as they are, and below each of them what {how['method']} made of it.{styles}"
    return Sheet(label, _picture(path.read_bytes(), share), says, str(path))


def _picture(content: bytes, share: int) -> str:
    """The address of a PNG, or of a JPEG made of it where it takes more bytes than its share."""
    if len(content) <= share:
        return data_uri("png", content)
    from PIL import Image  # most pages have none so large

    with Image.open(io.BytesIO(content)) as sheet:
        small = sheet.convert("RGB")
    small.thumbnail((WIDTH, small.height))
    made = io.BytesIO()
    small.save(made, "JPEG", quality=QUALITY)
    return data_uri("jpg", made.getvalue())
