"""What Figure 8 shows: the panels that a results table has numbers for, and the published numbers behind them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pandas as pd

from robust_transfer.configuration.training import NORM_LABELS
from robust_transfer.figures.cells import Cells, Panel
from robust_transfer.figures.estimates import Estimate
from robust_transfer.figures.kinds import kind_of, of_kind
from robust_transfer.figures.labels import architecture_label
from robust_transfer.figures.protocols import FIXED_FEATURE, FULL_NETWORK, MODE_LABELS, STYLIZED, Protocol
from robust_transfer.tables.experiment_info import ExperimentInfo, Target
from robust_transfer.tables.key import BEST_ROBUST
from robust_transfer.tables.published import PUBLISHED
from robust_transfer.tables.published_experiment import paper_beside
from robust_transfer.tables.published_texture import LABELS, METHOD, RECIPE
from robust_transfer.tables.results import as_results

AS_THEY_ARE = Protocol("source", None, "{}")
Dots = dict[str, Estimate]
"""By series: standard, best robust, and recipes of texture-robust networks."""


@dataclass(frozen=True)
class Curves:
    """A panel of 8a: accuracy on the stylized source over eps, by architecture, and of texture-robust networks."""

    panel: Panel
    series: str
    curves: dict[str, list[tuple[str, Estimate]]]
    levels: dict[tuple[str, str], Estimate]
    """By recipe and architecture."""

    @property
    def rows(self) -> list[Estimate]:
        """Every number in it."""
        return [row for curve in self.curves.values() for _, row in curve] + list(self.levels.values())


@dataclass(frozen=True)
class Groups:
    """A row of 8b: the networks of one architecture on every target, in one mode."""

    label: str
    arch: str
    groups: list[tuple[Panel, Dots]]

    @property
    def rows(self) -> list[Estimate]:
        """Every number in it."""
        return [row for _, dots in self.groups for row in dots.values()]


class Texture:
    """What the figure asks of a results table; published numbers among those of another experiment are apart."""

    def __init__(self, results: pd.DataFrame) -> None:
        about, theirs = ExperimentInfo.of(results), results["experiment"] == PUBLISHED
        self.published: Texture | None = None
        if about.experiment != PUBLISHED and theirs.any():
            beside = replace(paper_beside(about), texture_robust=LABELS)
            self.published = Texture(as_results(results[theirs], beside))
            results = results[~theirs]
        variants = (json.loads(text) for text in results["variant"].unique())
        self._methods = {variant[STYLIZED] for variant in variants if STYLIZED in variant}
        self.native, self.on_stylized = Cells(results), Cells(results, stylized=True)
        self.about = self.native.about
        self.recipes = tuple(self.about.texture_robust)
        radii = results[["norm", "eps", "eps_value"]].dropna().drop_duplicates().sort_values("eps_value", kind="stable")
        self._radii = [(str(norm), str(eps)) for norm, eps, _ in radii.itertuples(index=False, name=None)]
        self._native = {recipe: Cells(results, recipe=recipe) for recipe in self.recipes}
        self._on_stylized = {recipe: Cells(results, recipe=recipe, stylized=True) for recipe in self.recipes}

    @property
    def norms(self) -> list[str]:
        """The norms of robust networks; one where there are none."""
        return list(dict.fromkeys(norm for norm, _ in self._radii if norm != "none")) or ["l2"]

    def eps(self, norm: str) -> tuple[str, ...]:
        """Every eps of networks under a norm, transferred or not, growing."""
        return tuple(dict.fromkeys(eps for of, eps in self._radii if of in ("none", norm)))

    def _mark(self, norm: str) -> str:
        return f", {NORM_LABELS.get(norm, norm)}" if len(self.norms) > 1 else ""

    def curves(self) -> list[Curves]:
        """The panels of 8a that were measured, for each norm."""
        found = []
        for norm in self.norms:
            for protocol, label in (
                (AS_THEY_ARE, "tested, no training"),
                (self.on_stylized.shown(FULL_NETWORK), "full-network transfer"),
            ):
                if protocol is None:
                    continue
                source = Target(self.about.source, self.about.source_label, self.about.source_metric)
                title = f"Stylized {source.label}: {label}{self._mark(norm)}"
                panel = Panel(source, protocol, norm, title, self.about.experiment)
                found.append(self._curves(panel, label))
        return [one for one in found if one.rows]

    def _curves(self, panel: Panel, series: str) -> Curves:
        every = self.eps(panel.norm)
        curves = {
            arch: [(eps, row) for eps in every if (row := _on_source(self.on_stylized, panel, arch, eps))]
            for arch in self.about.ordered
        }
        levels = {
            (recipe, arch): row
            for recipe, cells in self._on_stylized.items()
            for arch in self.about.ordered
            if (row := _on_source(cells, panel, arch, "0"))
        }
        kind = kind_of([*(row for curve in curves.values() for _, row in curve), *levels.values()])
        return Curves(
            panel,
            series,
            {arch: [(eps, of_kind(kind, row)) for eps, row in curve] for arch, curve in curves.items() if curve},
            {key: of_kind(kind, row) for key, row in levels.items()},
        )

    @property
    def otherwise_stylized(self) -> bool:
        """Published numbers are there, and ours are of images stylized in another way."""
        return self.published is not None and self._methods != {METHOD}

    def curves_behind(self, ours: Curves) -> Curves | None:
        """The published numbers behind a panel of 8a, of the networks that we have; None where there are none.

        They are of images stylized by AdaIN, so they stand behind no others.
        """
        if self.published is None or self.otherwise_stylized:
            return None
        for one in self.published.curves():
            if _where(one.panel) == _where(ours.panel):
                every = self.eps(ours.panel.norm)
                found = {
                    arch: [(eps, row) for eps, row in one.curves.get(arch, ()) if eps in every] for arch in ours.curves
                }
                return replace(one, curves={arch: curve for arch, curve in found.items() if curve})
        return None

    def groups(self) -> list[Groups]:
        """The rows of 8b: those with a texture-robust network."""
        found = []
        for mode in (FIXED_FEATURE, FULL_NETWORK):
            for norm in self.norms:
                panels = [panel for panel in self.native.panels(mode) if panel.norm == norm]
                archs = [arch for arch in self.about.ordered if any(self._robust(panel, arch) for panel in panels)]
                for arch in archs:
                    label = f"{MODE_LABELS[mode]}, {architecture_label(arch)}{self._mark(norm)}"
                    found.append(Groups(label, arch, [(panel, self._dots(panel, arch)) for panel in panels]))
        return found

    def groups_behind(self, ours: Groups) -> Groups | None:
        """The published numbers behind a row of 8b, of our targets; None where there are none.

        Their texture-robust networks are taken for ours that were trained on Stylized ImageNet too.
        """
        if self.published is None:
            return None
        places = [_where(panel) for panel, _ in ours.groups]
        there = {recipe for _, dots in ours.groups for recipe in dots}
        same = next((recipe for recipe in self.about.on_stylized_imagenet if recipe in there), RECIPE)
        for one in self.published.groups():
            found = [
                (panel, {same if series == RECIPE else series: row for series, row in dots.items()})
                for panel, dots in one.groups
                if _where(panel) in places and dots
            ]
            if found and one.arch == ours.arch:
                return replace(one, groups=found)
        return None

    def _dots(self, panel: Panel, arch: str) -> Dots:
        rows = {
            "standard": self.native.cell(panel, arch, "0"),
            "best robust": self.native.cell(panel, arch, BEST_ROBUST),
            **self._robust(panel, arch),
        }
        there = {series: row for series, row in rows.items() if row}
        kind = kind_of(there.values())
        return {series: of_kind(kind, row) for series, row in there.items()}

    def _robust(self, panel: Panel, arch: str) -> Dots:
        """Texture-robust networks, which have an eps of 0, by recipe."""
        rows = {recipe: cells.cell(panel, arch, "0") for recipe, cells in self._native.items()}
        return {recipe: row for recipe, row in rows.items() if row}


def _on_source(cells: Cells, panel: Panel, arch: str, eps: str) -> Estimate | None:
    if panel.protocol.mode == "source":
        return cells.source(arch, panel.norm, eps)
    return cells.cell(panel, arch, eps)


def _where(panel: Panel) -> tuple[str, str, str, str]:
    """What a panel of ours and a published one agree in."""
    return panel.target.name, panel.target.metric, panel.protocol.mode, panel.norm
