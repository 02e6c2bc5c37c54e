"""The contact sheets of an experiment's galleries, as the page shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from robust_transfer.page.files import data_uri
from robust_transfer.store.entry import Entry, open_entry

HEADINGS = {
    "adversarial": "Adversarial examples",
    "gradients": "Gradients of the loss",
    "inversions": "Images rebuilt from their representation",
    "visualisations": "Class visualisations",
}
"""Of the sheets of one kind, in the page's order."""
NUMBERS = {
    "gradient_low_frequency": "Gradient energy in low frequencies, %",
    "inversion_distance": "Left in the representation, %",
    "inversion_moved": "Pixels moved from the start, %",
    "inversion_pixels": "Pixels off the original, %",
    "inversion_ssim": "SSIM to the original, ×100",
}
"""Metrics of the results table, and what the page calls them."""


@dataclass(frozen=True)
class Sheet:
    """One contact sheet."""

    network: str
    picture: str
    """Its address."""
    alternative: str
    """What it shows, in words."""
    file: str
    """What it is called when it is downloaded."""


@dataclass(frozen=True)
class Wall:
    """The sheets of one kind, of every network."""

    name: str
    heading: str
    caption: str
    sheets: Sequence[Sheet]


@dataclass(frozen=True)
class Galleries:
    """All sheets by kind, and the numbers beside them."""

    walls: Sequence[Wall]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    """A network for each: its name, and its numbers with their intervals."""


def galleries(described: Mapping[str, Any], results: pd.DataFrame) -> Galleries | None:
    """The galleries that `about.json` lists, from the store; None where it lists none. Raises StoreError."""
    listed = described.get("galleries")
    if not listed:
        return None
    store = Path(described["configuration"]["store"])
    entries = {name: open_entry(store / name) for name in listed["entries"]}
    walls = [
        Wall(name, heading, listed["captions"][name], [_sheet(entry, name) for entry in entries.values()])
        for name, heading in HEADINGS.items()
    ]
    titles = {name: str(entry.facts()["title"]) for name, entry in entries.items()}
    rows = [[title, *_numbers(results[results["entry"] == name])] for name, title in titles.items()]
    return Galleries(walls, ["Network", *NUMBERS.values()], rows)


def _sheet(entry: Entry, name: str) -> Sheet:
    facts, uri = entry.facts(), data_uri("png", entry.file(f"{name}.png").read_bytes())
    return Sheet(facts["title"], uri, facts["alternatives"][name], f"{entry.name}_{name}.png")


def _numbers(rows: pd.DataFrame) -> list[str]:
    """A network's numbers with their intervals; empty where one was not measured."""
    found = {
        str(metric): f"{value:.1f} [{low:.1f}, {high:.1f}]".replace("-", "−")
        for metric, value, low, high in rows[["metric", "value", "ci_low", "ci_high"]].itertuples(
            index=False, name=None
        )
    }
    return [found.get(metric, "") for metric in NUMBERS]
