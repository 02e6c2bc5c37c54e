"""Cells: what figures ask of the results table.

A cell is one target, measured one way, by one architecture at one eps. A way is a transfer mode with its protocol and
that protocol's deviations; where an experiment has several ways or norms, each gets panels of its own and says so.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass

from robust_transfer.table import BEST_ROBUST, DIFFERENCE, Results, Row, Target, canonical

FIXED_FEATURE, FULL_NETWORK = "fixed-feature", "full-network"
MODE_LABELS = {FIXED_FEATURE: "Fixed-feature", FULL_NETWORK: "Full-network"}
NORM_LABELS = {"l2": "L2", "linf": "L∞"}
METRIC_LABELS = {"top1": "top-1", "mean_per_class": "mean per class"}
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Way:
    """How a transfer was measured."""

    mode: str
    protocol: str | None
    deviations: str
    """JSON of what deviates from the protocol, the view of the images left out."""


@dataclass(frozen=True)
class Panel:
    """One target in one way under one norm: a panel of a figure, a line of a table."""

    target: Target
    way: Way
    norm: str
    label: str
    """The target, and what tells this panel from others of the same target."""


@dataclass(frozen=True)
class Against:
    """Standard, best robust and robust at the eps fixed beforehand, side by side; None where not measured."""

    standard: Row | None
    robust: Row | None
    fixed: Row | None
    difference: Row | None
    """Best robust less standard, paired."""

    @property
    def decided(self) -> bool:
        """The interval of the difference excludes 0."""
        return self.difference is not None and (self.difference.ci_low > 0 or self.difference.ci_high < 0)

    @property
    def ahead(self) -> str:
        """Which is ahead, as printed to one decimal: `standard`, `robust`, or neither."""
        if self.standard is None or self.robust is None:
            return ""
        standard, robust = round(self.standard.value, 1), round(self.robust.value, 1)
        return "" if standard == robust else "standard" if standard > robust else "robust"


class Cells:
    """The test accuracies of a results table, by cell."""

    def __init__(self, results: Results) -> None:
        """Index the table. Where numbers chosen on validation exist, those chosen on test stay out."""
        self.about = results.about
        kept = [row for row in results.rows if row.split == "test" and row.images_per_class is None]
        selections = {row.selection for row in kept if row.selection}
        self.selection = "validation" if "validation" in selections or not selections else "test"
        self._rows: dict[tuple[object, ...], list[Row]] = defaultdict(list)
        self._source: dict[tuple[object, ...], list[Row]] = defaultdict(list)
        self._ways: dict[Way, None] = {}
        self._eps: dict[str, dict[str, float]] = defaultdict(dict)
        for row in kept:
            if row.mode == "source":
                if row.attack is None and row.metric == "top1":
                    self._source[row.arch, row.norm, row.eps].append(row)
            elif row.selection == self.selection:
                way = _way(row)
                self._ways[way] = None
                self._rows[row.target, way, row.norm, row.arch, row.eps, row.downscaled, row.metric].append(row)
                if row.eps_value is not None:
                    self._eps[row.norm][row.eps] = row.eps_value

    def ways(self, mode: str) -> list[Way]:
        """The ways this mode was measured, in the table's order."""
        return [way for way in self._ways if way.mode == mode]

    def norms(self) -> list[str]:
        """The norms of robust networks."""
        return [norm for norm in self._eps if norm != "none"]

    def eps(self, *norms: str) -> list[str]:
        """Every eps measured under these norms (default: all), growing; 0 first, if it was measured."""
        found = {eps: value for norm in ("none", *(norms or self.norms())) for eps, value in self._eps[norm].items()}
        return sorted(found, key=found.__getitem__)

    def panels(self, mode: str, way: Way | None = None) -> list[Panel]:
        """Targets in order, for every norm and every way of the mode, or that one; none if it was not measured."""
        ways, norms = self.ways(mode) if way is None else [way], self.norms() or ["l2"]
        found = []
        for target in self.about.targets:
            for norm in norms:
                for way in ways:
                    marks = [NORM_LABELS.get(norm, norm)] if len(norms) > 1 else []
                    marks += [way_label(way)] if len(ways) > 1 else []
                    found.append(Panel(target, way, norm, ", ".join([target.label, *marks])))
        return found

    def cell(
        self, panel: Panel, arch: str, eps: str, *, downscaled: int | None = None, difference: bool = False
    ) -> Row | None:
        """The cell's number by the target's metric, a mean over seeds where there are several; None: not measured."""
        rows = self._of(panel, arch, eps, downscaled, panel.target.metric + (DIFFERENCE if difference else ""))
        return max(rows, key=_summary_first, default=None)

    def seeds(self, panel: Panel, arch: str, eps: str, *, downscaled: int | None = None) -> list[Row]:
        """The cell's numbers for single seeds of pretraining (means over seeds of transfer), by seed."""
        rows = self._of(panel, arch, eps, downscaled, panel.target.metric)
        by_seed: dict[int, Row] = {}
        for row in sorted(rows, key=_summary_first):
            if row.backbone_seed is not None:
                by_seed[row.backbone_seed] = row
        return [by_seed[seed] for seed in sorted(by_seed)]

    def against(self, panel: Panel, arch: str) -> Against:
        """Standard against robust for one architecture, or for `best` with the architecture chosen too."""
        fixed_eps = self.about.fixed_eps.get(panel.norm)
        return Against(
            standard=self.cell(panel, arch, "0"),
            robust=self.cell(panel, arch, BEST_ROBUST),
            fixed=self.cell(panel, arch, fixed_eps) if fixed_eps else None,
            difference=self.cell(panel, arch, BEST_ROBUST, difference=True),
        )

    def source(self, arch: str, norm: str, eps: str, seed: int | None = None) -> Row | None:
        """Clean top-1 accuracy on the source: of one seed, or the mean over seeds where there are several."""
        rows = self._source.get((arch, "none" if eps == "0" else norm, eps), [])
        if seed is not None:
            rows = [row for row in rows if row.backbone_seed == seed]
        return max(rows, key=_summary_first, default=None)

    def views(self, way: Way) -> list[int | None]:
        """Sizes that targets were downscaled to, growing, after None for native images."""
        sizes = {row.downscaled for key, rows in self._rows.items() if key[1] == way for row in rows}
        return [None, *sorted(size for size in sizes if size is not None)]

    def _of(self, panel: Panel, arch: str, eps: str, downscaled: int | None, metric: str) -> list[Row]:
        norm = "none" if eps == "0" else panel.norm
        return self._rows.get((panel.target.name, panel.way, norm, arch, eps, downscaled, metric), [])


def way_label(way: Way) -> str:
    """A way in words: mode, protocol, and what deviates from the protocol."""
    details = [f"{way.protocol} protocol"] if way.protocol else []
    details += [f"{name.replace('_', ' ')}: {value}" for name, value in json.loads(way.deviations).items()]
    return MODE_LABELS.get(way.mode, way.mode) + (f" ({', '.join(details)})" if details else "")


def shown_mode(cells: Cells) -> str:
    """The mode that a figure of one mode shows: fixed-feature as in the paper, or full-network if that is all."""
    return FIXED_FEATURE if cells.ways(FIXED_FEATURE) or not cells.ways(FULL_NETWORK) else FULL_NETWORK


def _way(row: Row) -> Way:
    deviations = {name: value for name, value in json.loads(row.variant).items() if name != "downscaled"}
    return Way(row.mode, row.protocol, canonical(deviations))


def _summary_first(row: Row) -> tuple[bool, bool]:
    """Sorts a mean over more seeds above one over fewer, and above a single seed."""
    return row.backbone_seed is None, row.transfer_seed is None
