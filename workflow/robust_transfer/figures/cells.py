"""Cells: what figures ask of the results table.

A cell is one target, measured one way, by one architecture at one eps. A way is a transfer mode with its protocol and
that protocol's deviations. Where an experiment has several norms, each gets panels of its own; where it has several
ways, figures show one and say which, and `protocol_gap` compares them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from robust_transfer.configuration.transfer import PROTOCOLS, ProtocolName
from robust_transfer.tables.results import BEST_ROBUST, DIFFERENCE, ExperimentInfo, Results, Row, Target, canonical

FIXED_FEATURE, FULL_NETWORK = "fixed-feature", "full-network"
MODE_LABELS = {FIXED_FEATURE: "Fixed-feature", FULL_NETWORK: "Full-network"}
NORM_LABELS = {"l2": "L2", "linf": "L∞"}
FROZEN: ProtocolName = "frozen"
PAPER: ProtocolName = "paper"
KNN: ProtocolName = "knn"
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
class Comparison:
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

    def __init__(self, results: Results, *, images_per_class: int | None = None, selection: str | None = None) -> None:
        """Index the numbers of transfer from so many training images of each class; None: all.

        Of several selections only one is kept: the given one, else the one that figures of the experiment show, else
        the one there is.
        """
        self.about = results.about
        self.selection = selection or shown_selection(results)
        self._rows: dict[tuple[object, ...], list[Row]] = defaultdict(list)
        self._source: dict[tuple[object, ...], list[Row]] = defaultdict(list)
        self._ways: dict[Way, None] = {}
        self._eps: dict[str, dict[str, float]] = defaultdict(dict)
        for row in results.rows:
            if row.split != "test":
                continue
            if row.mode == "source":
                # Published networks were also measured, untransferred, on images they were not trained on.
                if row.attack is None and row.metric == "top1" and row.target == row.source:
                    self._source[row.arch, row.norm, row.eps].append(row)
            elif row.selection == self.selection and row.images_per_class == images_per_class:
                way = _way(row)
                self._ways[way] = None
                self._rows[row.target, way, row.norm, row.arch, row.eps, row.downscaled, row.metric].append(row)
                if row.eps_value is not None:
                    self._eps[row.norm][row.eps] = row.eps_value

    def ways(self, mode: str) -> list[Way]:
        """The ways this mode was measured, in the table's order."""
        return [way for way in self._ways if way.mode == mode]

    def shown(self, mode: str) -> Way | None:
        """The way of this mode that figures show; None if it was not measured."""
        return shown_way(self.ways(mode), self.about)

    def remarks(self, way: Way | None) -> list[str]:
        """What a figure of this way has to say: which one it is of several, and that it was chosen on test images."""
        several = way is not None and len(self.ways(way.mode)) > 1
        said = [f"measured by the {way_details(way)}"] if way and several else []
        return said + (["hyperparameters chosen on test images"] if self.selection == "test" else [])

    def others(self, mode: str) -> str:
        """A sentence that names the ways of this mode that figures leave out; empty if there are none."""
        named = [way_details(way) for way in self.ways(mode) if way != self.shown(mode)]
        return f"{MODE_LABELS[mode]} was measured in other ways too: {'; '.join(named)}." if named else ""

    def norms(self) -> list[str]:
        """The norms of robust networks."""
        return [norm for norm in self._eps if norm != "none"]

    def eps(self, *norms: str) -> list[str]:
        """Every eps measured under these norms (default: all), growing; 0 first, if it was measured."""
        found = {eps: value for norm in ("none", *(norms or self.norms())) for eps, value in self._eps[norm].items()}
        return sorted(found, key=found.__getitem__)

    def panels(self, mode: str, way: Way | None = None) -> list[Panel]:
        """Targets in order, for every norm, measured the way that figures show, or that one; none if it was not.

        A norm that some targets lack has panels for the others alone.
        """
        way, norms = way or self.shown(mode), self.norms() or ["l2"]
        if way is None:
            return []
        found = []
        measured = {(key[0], key[2]) for key in self._rows if key[1] == way}
        for target in self.about.targets:
            there = [norm for norm in norms if (target.name, norm) in measured]
            for norm in there or norms[:1]:
                mark = f", {NORM_LABELS.get(norm, norm)}" if len(norms) > 1 else ""
                found.append(Panel(target, way, norm, target.label + mark))
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

    def runs(self, panel: Panel, arch: str, eps: str) -> dict[tuple[int, int], Row]:
        """The cell's numbers for single runs, by seeds of pretraining and of transfer."""
        rows = self._of(panel, arch, eps, None, panel.target.metric)
        return {
            (row.backbone_seed, row.transfer_seed): row
            for row in rows
            if row.backbone_seed is not None and row.transfer_seed is not None
        }

    def against(self, panel: Panel, arch: str) -> Comparison:
        """Standard against robust for one architecture, or for `best` with the architecture chosen too."""
        fixed_eps = self.about.fixed_eps.get(panel.norm)
        return Comparison(
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


def preference(way: Way) -> int:
    """The place of a way's protocol among all: the frozen one is first."""
    return [*PROTOCOLS, way.protocol].index(way.protocol)


def way_details(way: Way) -> str:
    """A way's protocol, and what deviates from it: `paper protocol, batchnorm: frozen`."""
    details = [f"{way.protocol} protocol"] if way.protocol else []
    details += [f"{name.replace('_', ' ')}: {value}" for name, value in json.loads(way.deviations).items()]
    return ", ".join(details)


def way_label(way: Way) -> str:
    """A way in words: mode, protocol, and what deviates from the protocol."""
    details = way_details(way)
    return MODE_LABELS.get(way.mode, way.mode) + (f" ({details})" if details else "")


def shown_way(ways: Sequence[Way], about: ExperimentInfo) -> Way | None:
    """The way that figures show: by the experiment's protocol, else the frozen one, else the paper's, and without
    deviations if any is.

    None if there are no ways.
    """
    order = {way: (way.protocol != about.protocol, preference(way), way.deviations != "{}") for way in ways}
    return min(order, key=order.__getitem__, default=None)


def shown_selection(results: Results) -> str:
    """The selection that figures show: the experiment's where the table has numbers of it, else the one there is."""
    return next(iter(selections(results)), results.about.selection)


def selections(results: Results) -> list[str]:
    """Where what the table holds was chosen, the selection that figures show first."""
    found = {row.selection for row in results.rows if row.mode != "source" and row.selection}
    return sorted(found, key=lambda one: (one != results.about.selection, one != "validation"))


def shown_mode(cells: Cells) -> str:
    """The mode that a figure of one mode shows: fixed-feature as in the paper, or full-network if that is all."""
    return FIXED_FEATURE if cells.ways(FIXED_FEATURE) or not cells.ways(FULL_NETWORK) else FULL_NETWORK


def _way(row: Row) -> Way:
    deviations = {name: value for name, value in json.loads(row.variant).items() if name != "downscaled"}
    return Way(row.mode, row.protocol, canonical(deviations))


def _summary_first(row: Row) -> tuple[bool, bool]:
    """Sorts a mean over more seeds above one over fewer, and above a single seed."""
    return row.backbone_seed is None, row.transfer_seed is None
