"""What an experiment's folder holds, as the page shows it."""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from robust_transfer.page.files import Download, data_uri
from robust_transfer.page.galleries import Galleries, galleries
from robust_transfer.page.stylized import Stylized, stylized
from robust_transfer.registry import FIGURES, STAGES
from robust_transfer.store.entry import read_json
from robust_transfer.tables.errors import TableError
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.flags import FLAGS
from robust_transfer.tables.results import read_results
from robust_transfer.tables.training import read_flags, read_training

LARGEST_SVG = 1_500_000
"""Bytes; a picture above is shown as PNG."""
SHOWN_ROWS = 400
"""Rows of a figure's numbers that the page shows; the file to download has all."""


@dataclass(frozen=True)
class ShownFigure:
    """A figure or table of the experiment, with all that goes with it."""

    name: str
    heading: str
    caption: str
    picture: str
    """Address of the picture; empty for a table."""
    alternative: str
    """What the picture shows, in words."""
    table: str
    """The table's own HTML; empty for a picture."""
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    """Its numbers, or the first of them."""
    more: int
    """How many further rows the file has."""
    downloads: Sequence[Download]


@dataclass(frozen=True)
class Content:
    """All that the page shows, before it becomes HTML."""

    about: ExperimentInfo
    results: pd.DataFrame
    training: pd.DataFrame
    flags: pd.DataFrame
    timings: pd.DataFrame
    ledger: Mapping[str, Any]
    """`answer` and `claims`, as the stage `claims` writes them."""
    described: Mapping[str, Any]
    """Methods, configuration and software of the experiment, as planned."""
    figures: Sequence[ShownFigure]
    tables: Sequence[Download]
    galleries: Galleries | None
    """None where no backbone has one."""
    stylized: Stylized | None
    """None where no dataset was stylized."""

    @classmethod
    def of(cls, folder: Path) -> Content:
        """Read `results/<experiment>/`, and its contact sheets from the store.

        Raises TableError where one of its tables is missing or is none, StoreError where a contact sheet is.
        """
        results = read_results(folder / "results.parquet")
        described = _json(folder / "about.json")
        stated = described.get("figures", FIGURES)
        drawn = [name for name in FIGURES if name in stated and (folder / "figures" / f"{name}.csv").exists()]
        captions = described.get("captions", {})
        return cls(
            ExperimentInfo.of(results),
            results,
            read_training(folder / "training.parquet"),
            read_flags(folder / "flags.csv"),
            pd.read_parquet(folder / "timings.parquet"),
            _json(folder / "claims.json"),
            described,
            [_figure(folder / "figures", name, captions.get(name, "")) for name in drawn],
            [
                Download.of(folder / "results.csv", results.to_csv(index=False).encode()),
                Download.of(folder / "backbones.csv"),
                Download.of(folder / "flags.csv"),
                *([Download.of(folder / "claims.csv")] if (folder / "claims.csv").exists() else []),
            ],
            galleries(described, results),
            stylized(described),
        )


def _json(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    found = read_json(path)
    if not isinstance(found, dict):
        raise TableError(f"{path}: holds no JSON object; make it anew: remove it and run the experiment again")
    return found


def _figure(folder: Path, name: str, caption: str) -> ShownFigure:
    figure = FIGURES[name]
    with open(folder / f"{name}.csv", newline="", encoding="utf-8") as file:
        columns, *rows = csv.reader(file)
    caption = " ".join(caption.split()) or f"{figure.shows[0].upper()}{figure.shows[1:]}."
    files = [folder / f"{name}.{suffix}" for suffix in figure.suffixes]
    return ShownFigure(
        name,
        figure.shows[0].upper() + figure.shows[1:] + (f" ({figure.paper} of the paper)" if figure.paper else ""),
        caption,
        "" if figure.is_table else _picture(folder, name),
        _alternative(caption, columns, rows),
        _body((folder / f"{name}.html").read_text(encoding="utf-8")) if figure.is_table else "",
        columns,
        rows[:SHOWN_ROWS],
        max(0, len(rows) - SHOWN_ROWS),
        [Download.of(file) for file in files if file.exists() and file.suffix not in (".html", ".png")],
    )


def _picture(folder: Path, name: str) -> str:
    svg = folder / f"{name}.svg"
    if svg.exists() and svg.stat().st_size <= LARGEST_SVG:
        return data_uri("svg", svg.read_bytes())
    return data_uri("png", (folder / f"{name}.png").read_bytes())


def _body(document: str) -> str:
    """What stands between the tags of a document's body."""
    found = re.search(r"<body>(.*)</body>", document, re.S)
    return found[1] if found else html.escape(document)


def _alternative(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The caption's first sentence, and for each panel from where to where its values go."""
    first = re.split(r"(?<=\.)\s+(?=[A-Z])", caption.removeprefix("Figure ").lstrip("0123456789. "))[0]
    frame = pd.DataFrame(rows, columns=pd.Index(columns), dtype="string")
    panel = next((column for column in ("target", "dataset", "quantity", "arch") if column in frame), None)
    if frame.empty:
        return f"{first} Nothing was measured for it."
    if panel is None or "value" not in frame:
        return first
    values = pd.to_numeric(frame["value"], errors="coerce")
    ranges = [
        f"{name}: {found.min():.1f} to {found.max():.1f}"
        for name, found in values.groupby(frame[panel].fillna(""), sort=False)
        if found.notna().any() and name
    ]
    return f"{first} Values by {panel}: {'; '.join(ranges)}. The numbers are in the table below." if ranges else first


@dataclass(frozen=True)
class Costs:
    """What a stage took."""

    stage: str
    entries: int
    minutes: float
    """Of work in its jobs, start-up left out."""
    devices: str
    memory_mb: float


def costs(timings: pd.DataFrame) -> list[Costs]:
    """Entries, time, devices and the most memory by stage, in the order data flows."""
    return [
        Costs(
            stage,
            len(rows),
            float(rows["seconds"].sum() / 60),
            ", ".join(sorted(map(str, rows["device"].dropna().unique()))),
            float(rows["peak_memory_mb"].max()),
        )
        for stage in STAGES
        if len(rows := timings[timings["stage"] == stage])
    ]


def provenance(timings: pd.DataFrame) -> list[tuple[str, int]]:
    """Versions and commits that made the entries, and how many each made."""
    found: dict[str, int] = {}
    for details in timings["details"].dropna():
        of = json.loads(details).get("provenance") or {}
        said = ", ".join(f"{name} {value}" for name, value in sorted(of.items())) or "not recorded"
        found[said] = found.get(said, 0) + 1
    return sorted(found.items(), key=lambda one: -one[1])


def flagged(flags: pd.DataFrame) -> list[dict[str, Any]]:
    """Sanity flags by kind: what each means, what to do, and the messages."""
    return [
        {
            "name": name,
            "means": meaning.means,
            "counts": {"fails": "does not count", "warns": "counts, with care", "costs": "counts"}[meaning.effect],
            "rows": [(str(row.entry), str(row.message)) for row in found.itertuples(index=False)],
        }
        for name, meaning in FLAGS.items()
        if len(found := flags[flags["flag"] == name])
    ]
