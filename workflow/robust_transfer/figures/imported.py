"""Are imported weights the published ones? Each network's accuracy on the source beside its published accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd

from robust_transfer.configuration.training import NORM_LABELS
from robust_transfer.figures.cells import NOT_MEASURED
from robust_transfer.figures.labels import architecture_label
from robust_transfer.figures.numbers import Number
from robust_transfer.figures.tables import Cell, Table, TableRow, Tables
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.key import canonical
from robust_transfer.tables.published import published_accuracy
from robust_transfer.tables.sanity import DEVIATIONS, PUBLISHED_SLACK, published_flags

IMPORTED = "importing/"
"""What the ids of imported backbones begin with."""
ABREAST = 4
"""Networks side by side in one table: each takes three columns."""
COLUMNS = (
    "arch", "norm", "eps", "value", "ci_low", "ci_high", "n", "published", "difference", "flag", "recipe", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """An imported backbone's accuracy on the source, and the one that was published for its network."""

    row: Any
    """Its row of the results table, by attributes."""
    published: float
    """Percent."""

    @property
    def difference(self) -> float:
        """Ours less the published one, in percentage points."""
        return float(self.row.value - self.published)

    @property
    def flags(self) -> list[str]:
        """The sanity flags of the two numbers: `unlike-published`, or none."""
        return [flag.flag for flag in published_flags(self.row.value, self.row.n, self.published)]


@dataclass(frozen=True)
class ImportedNetwork:
    """An architecture's imported backbones of one norm: three columns, with one row per eps."""

    label: str
    norm: str
    """`l2` or `linf`."""
    backbones: dict[str, Compared]
    """By eps."""


def imported(results: pd.DataFrame) -> Tables:
    """Tabulate the published numbers beside ours, networks side by side, one row per eps; L∞ networks below L2 ones."""
    about = ExperimentInfo.of(results)
    with_imported = results["backbone"].str.startswith(IMPORTED).fillna(False)
    rows: list[Any] = list(results[_clean_on_source(results) & with_imported].itertuples())
    recipes = about.released
    compared = [
        Compared(row, published)
        for row in rows
        if row.recipe in recipes and (published := published_accuracy(row.arch, row.norm, row.eps)) is not None
    ]
    if not compared:
        return Tables([], [_nothing(about, rows)], [])
    networks = _networks(compared, about)
    others = dict.fromkeys(row.recipe for row in rows if row.recipe not in recipes)
    tables = [_table(side_by_side) for norm in NORM_LABELS for side_by_side in _abreast(networks, norm)]
    return Tables(tables, _notes(compared, list(others), about), [_number(one) for one in compared])


def _clean_on_source(results: pd.DataFrame) -> pd.Series[bool]:
    on_source = (results["mode"] == "source") & (results["target"].astype("string") == results["source"])
    on_source &= results["variant"] == canonical({})  # on images as they are
    return on_source & (results["split"] == "test") & results["attack"].isna() & (results["metric"] == "top1")


def _nothing(about: ExperimentInfo, rows: Sequence[Any]) -> str:
    if rows:
        return f"published accuracies of the imported backbones: {NOT_MEASURED}"
    if about.source_label in about.dropped:
        return f"no imported backbones: {NOT_MEASURED}, without images of {about.source_label}"
    return f"no imported backbones: {NOT_MEASURED}"


def _networks(compared: Sequence[Compared], about: ExperimentInfo) -> list[ImportedNetwork]:
    """Networks in the order of figures. Standard backbones go with the L2 ones, which have the same recipe."""
    several_recipes = len({one.row.recipe for one in compared}) > 1
    several_seeds = len({one.row.backbone_seed for one in compared}) > 1
    grouped: dict[tuple[str, str, int | None, str], list[Compared]] = {}
    for one in compared:
        row = one.row
        norm = "l2" if row.norm == "none" else row.norm
        grouped.setdefault((row.arch, row.recipe, row.backbone_seed, norm), []).append(one)
    networks = []
    order = [*about.ordered, *(arch for arch, *_ in grouped)]
    for (arch, recipe, seed, norm), backbones in sorted(grouped.items(), key=lambda item: order.index(item[0][0])):
        label = [architecture_label(arch)]
        label += [recipe] if several_recipes else []
        label += [f"seed {seed}"] if several_seeds else []
        networks.append(ImportedNetwork(", ".join(label), norm, {one.row.eps: one for one in backbones}))
    return networks


def _abreast(networks: Sequence[ImportedNetwork], norm: str) -> list[list[ImportedNetwork]]:
    """The networks of a norm, as many side by side as fit and in rows as even as can be: those of most eps first."""
    of_norm = sorted((one for one in networks if one.norm == norm), key=lambda one: -len(one.backbones))
    rows_n = math.ceil(len(of_norm) / ABREAST)
    ends = [math.ceil(i * len(of_norm) / rows_n) for i in range(rows_n + 1)] if rows_n else [0]
    return [of_norm[start:end] for start, end in pairwise(ends)]


def _table(networks: Sequence[ImportedNetwork]) -> Table:
    """Networks side by side, each the heading of three columns, one row per eps."""
    radii = {eps: one.row.eps_value or 0.0 for network in networks for eps, one in network.backbones.items()}
    rows = [
        TableRow((eps,), [cell for network in networks for cell in _cells(network.backbones.get(eps))])
        for eps in sorted(radii, key=radii.__getitem__)
    ]
    columns = [(network.label, heading) for network in networks for heading in ("ours", "theirs", "Δ")]
    norm = NORM_LABELS[networks[0].norm]
    return Table.of(rows, [f"ε, {norm}"], columns, f"Imported {norm} networks: accuracy on the source")


def _cells(one: Compared | None) -> list[Cell]:
    if one is None:
        return [Cell("–", faint=True), Cell("–", faint=True), Cell()]
    row = one.row
    ours = Cell(f"{row.value:.2f}", f"[{row.ci_low:.2f}, {row.ci_high:.2f}]")
    return [ours, Cell(f"{one.published:.2f}"), Cell(_signed(one.difference), starred=bool(one.flags))]


def _signed(points: float) -> str:
    text = f"{points:+.2f}"
    return "0.00" if text[1:] == "0.00" else text.replace("-", "−")


def _notes(compared: Sequence[Compared], others: Sequence[str], about: ExperimentInfo) -> list[str]:
    images = sorted({one.row.n for one in compared})
    counted = f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,} to {images[-1]:,}"
    differences = [one.difference for one in compared]
    notes = [
        f"Top-1 accuracy in % on {counted} test images of {about.source_label or about.source}, with 95 % intervals "
        "over images. Theirs: as published by those who trained the networks. Δ: ours less theirs in percentage "
        f"points; * by more than {PUBLISHED_SLACK:g} and more than {DEVIATIONS:g} standard deviations of sampling.",
    ]
    if len(compared) > 1:
        marked = sum(bool(one.flags) for one in compared)
        notes.append(
            f"{len(compared)} networks: Δ is {_signed(sum(differences) / len(compared))} on average, from "
            f"{_signed(min(differences))} to {_signed(max(differences))}; {marked or 'none'} marked."
        )
    if others:
        notes.append(f"Not compared, since other networks than these were published: {', '.join(others)}.")
    return notes


def _number(one: Compared) -> Number:
    row = one.row
    return {
        "arch": row.arch,
        "norm": row.norm,
        "eps": row.eps,
        "value": row.value,
        "ci_low": row.ci_low,
        "ci_high": row.ci_high,
        "n": row.n,
        "published": one.published,
        "difference": one.difference,
        "flag": ", ".join(one.flags) or None,
        "recipe": row.recipe,
        "seed": row.backbone_seed,
    }
