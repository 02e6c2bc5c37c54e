"""Cells: what figures ask of the results table.

A cell is one target, measured by one protocol, by one architecture at one eps. A protocol here is a transfer mode with
the protocol's name and what deviates from it. Where an experiment has several norms, each gets panels of its own; where
it has several protocols, figures show one and say which, and `protocol_gap` compares them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from robust_transfer.configuration.eps import eps_value
from robust_transfer.configuration.training import NORM_LABELS
from robust_transfer.figures.estimates import Comparison, Estimate, estimates_by
from robust_transfer.figures.protocols import (
    FIXED_FEATURE,
    FULL_NETWORK,
    MODE_LABELS,
    NATIVE,
    ODD,
    STYLIZED,
    Protocol,
    protocol_details,
    shown_protocol,
    shown_selection,
    under,
    with_views,
)
from robust_transfer.tables.experiment_info import ExperimentInfo, Target
from robust_transfer.tables.key import BEST_ROBUST
from robust_transfer.tables.published import PUBLISHED
from robust_transfer.tables.published_experiment import paper_beside
from robust_transfer.tables.results import DIFFERENCE, OUT_OF_BAG, as_results, from_most_images

NOT_MEASURED = "not measured"
NETWORK = ("arch", "norm", "eps")
PROTOCOL = ("mode", "protocol", "deviations")
PANEL = ("target", *PROTOCOL, "norm")
CELL = (*NETWORK, "target", *PROTOCOL, "downscaled", "metric")
"""Columns that name a network, a protocol, a panel and a cell; `deviations` and `downscaled` are made of `variant`."""


@dataclass(frozen=True)
class Panel:
    """One target by one protocol under one norm: a panel of a figure, a line of a table."""

    target: Target
    protocol: Protocol
    norm: str
    label: str
    """The target, and what tells this panel from others of the same target."""
    experiment: str = ""
    """The experiment whose numbers it shows; that of published ones is `published`."""


class Cells:
    """The test accuracies of a results table, by cell."""

    def __init__(
        self,
        results: pd.DataFrame,
        *,
        images_per_class: int | None = None,
        training_images: int | None = None,
        selection: str | None = None,
        recipe: str | None = None,
        stylized: bool = False,
        attack: str | None = None,
    ) -> None:
        """Keep the numbers of transfer from so many training images of each class, or of all classes together.

        Numbers of transferred models under attack are kept where `attack`, as its column has it, names theirs, and then
        alone.

        Numbers of texture-robust networks, which are neither standard nor robust ones, are kept where `recipe` names
        theirs, and then alone; numbers on stylized images where `stylized` says so, and then alone.

        None: from all; for a mode and target never measured so, from the most that there are, and that is a deviation.
        Of several selections only one is kept: the given one, else the one that figures of the experiment show, else
        the one there is. Published numbers among those of another experiment are apart, in `published`.

        Raises TableError if `results` have lost the experiment's description.
        """
        self.about = ExperimentInfo.of(results)
        self.published: Cells | None = None
        if self.about.experiment != PUBLISHED and (theirs := results["experiment"] == PUBLISHED).any():
            paper = paper_beside(self.about, results.loc[theirs, "target"].unique())
            rows = as_results(results[theirs], paper)
            self.published = Cells(rows, images_per_class=images_per_class, training_images=training_images)
            results = results[~theirs]
        self.selection = selection or shown_selection(results)
        of_recipe = (
            ~results["recipe"].isin(list(self.about.texture_robust)) if recipe is None else results["recipe"] == recipe
        )
        on_stylized = results["variant"].map(
            {text: STYLIZED in json.loads(text) for text in results["variant"].unique()}
        )
        test = results[(results["split"] == "test") & of_recipe & (on_stylized.astype(bool) == stylized)]
        test.attrs = {}  # pandas copies them deeply in every operation
        wanted = {"images_per_class": images_per_class, "training_images": training_images}
        few = {name: number for name, number in wanted.items() if number is not None}
        of_size = from_most_images(test)
        for name, number in few.items():
            of_size = (test[name] == number).fillna(False).astype(bool)
        # Published networks were also measured, untransferred, on images they were not trained on.
        on_source = (test["metric"] == "top1") & (test["target"].astype("string") == test["source"])
        clean, source = on_source & test["attack"].isna(), test["mode"] == "source"
        transfer = with_views(
            test[~source & (test["selection"] == self.selection) & of_size & under(test, attack)],
            said=not few,
        )
        self._measured = transfer[[*PANEL, "downscaled"]].drop_duplicates()
        self._radii = transfer[["norm", "eps", "eps_value"]].dropna().drop_duplicates()
        self._cells = estimates_by(transfer, CELL)
        self._source = estimates_by(test[source & clean], NETWORK)
        self._attacked = estimates_by(test[source & on_source & test["attack"].notna()], (*NETWORK, "attack"))

    def protocols(self, mode: str) -> list[Protocol]:
        """The protocols this mode was measured by, in the table's order."""
        rows = self._measured.loc[self._measured["mode"] == mode, ["protocol", "deviations"]].drop_duplicates()
        return [
            Protocol(mode, name or None, deviations) for name, deviations in rows.itertuples(index=False, name=None)
        ]

    def shown(self, mode: str) -> Protocol | None:
        """The protocol of this mode that figures show; None if it was not measured."""
        return shown_protocol(self.protocols(mode), self.about)

    def remarks(self, protocol: Protocol | None) -> list[str]:
        """What a figure by this protocol has to say: which it is of several, and that it was chosen on test images."""
        several = protocol is not None and len(self.protocols(protocol.mode)) > 1
        odd = protocol is not None and not {*json.loads(protocol.deviations)}.isdisjoint(ODD)
        said = [f"measured by the {protocol_details(protocol)}"] if protocol and (several or odd) else []
        return said + (["hyperparameters chosen on test images"] if self.selection == "test" else [])

    def others(self, mode: str) -> str:
        """A sentence that names the protocols of this mode that figures leave out; empty if there are none."""
        named = [protocol_details(one) for one in self.protocols(mode) if one != self.shown(mode)]
        return f"{MODE_LABELS[mode]} was measured in other ways too: {'; '.join(named)}." if named else ""

    def norms(self) -> list[str]:
        """The norms of robust networks, or the one that figures of one norm show."""
        every = self.every_norm()
        return [self.about.norm] if self.about.norm in every else every

    def every_norm(self) -> list[str]:
        """The norms of robust networks."""
        return [norm for norm in self._radii["norm"].unique() if norm != "none"]

    def eps(self, *norms: str) -> list[str]:
        """Every eps measured under these norms (default: all), growing; 0 first, if it was measured."""
        under = self._radii[self._radii["norm"].isin(["none", *(norms or self.norms())])]
        return list(under.sort_values("eps_value", kind="stable")["eps"].unique())

    def panels(self, mode: str, protocol: Protocol | None = None, norms: Sequence[str] | None = None) -> list[Panel]:
        """Targets in order, for every norm, by this protocol or the one that figures show; none if not measured.

        A norm that some targets lack has panels for the others alone; default: the norms of `norms()`.
        """
        protocol, norms = protocol or self.shown(mode), norms or self.norms() or ["l2"]
        if protocol is None:
            return []
        found = []
        rows = self._by(protocol)
        for target in self.about.targets:
            measured = set(rows.loc[rows["target"] == target.name, "norm"])
            for norm in [norm for norm in norms if norm in measured] or norms[:1]:
                mark = f", {NORM_LABELS.get(norm, norm)}" if len(norms) > 1 else ""
                found.append(Panel(target, protocol, norm, target.label + mark, self.about.experiment))
        return found

    def at_most_eps(self, *modes: str) -> list[str]:
        """Architectures that were measured at two robust eps or more in these modes, or where none was, at any."""
        counts = dict.fromkeys(self.about.ordered, 0)
        for panel in (panel for mode in modes for panel in self.panels(mode)):
            for arch in counts:
                robust = [eps for eps in self.eps(panel.norm) if eps != "0" and self.cell(panel, arch, eps)]
                counts[arch] = max(counts[arch], len(robust))
        return [arch for arch, count in counts.items() if count >= min(2, max(counts.values(), default=0))]

    def behind(self, panel: Panel, view: int | None = None) -> Panel | None:
        """The panel of published numbers that stand behind those of a panel of ours; None where there are none.

        `view`: where numbers of images downscaled to this size are to be there.
        """
        if self.published is None:
            return None
        theirs = self.published.panels(panel.protocol.mode, norms=[panel.norm])
        found = (one for one in theirs if one.target.name == panel.target.name)
        return next((one for one in found if view is None or view in self.published.views(one.protocol)), None)

    def cell(self, panel: Panel, arch: str, eps: str, *, downscaled: int | None = None) -> Estimate | None:
        """The cell's number by the target's metric, a mean over seeds where there are several; None: not measured."""
        return self._first(panel, arch, eps, panel.target.metric, downscaled)

    def difference(self, panel: Panel, arch: str, eps: str) -> Estimate | None:
        """The network's number less that of the standard one, paired; None where there is none, as for eps 0."""
        return self._first(panel, arch, eps, panel.target.metric + DIFFERENCE)

    def seeds(self, panel: Panel, arch: str, eps: str, *, downscaled: int | None = None) -> list[Estimate]:
        """The cell's numbers for single seeds of pretraining (means over seeds of transfer), by seed."""
        by_seed: dict[int, Estimate] = {}
        for one in self._cell(panel, arch, eps, downscaled, panel.target.metric):
            if one.backbone_seed is not None:
                by_seed.setdefault(one.backbone_seed, one)
        return [by_seed[seed] for seed in sorted(by_seed)]

    def runs(self, panel: Panel, arch: str, eps: str) -> dict[tuple[int, int], Estimate]:
        """The cell's numbers for single runs, by seeds of pretraining and of transfer."""
        return {
            (one.backbone_seed, one.transfer_seed): one
            for one in self._cell(panel, arch, eps, None, panel.target.metric)
            if one.backbone_seed is not None and one.transfer_seed is not None
        }

    def comparison(self, panel: Panel, arch: str, *, downscaled: int | None = None) -> Comparison:
        """Standard against robust for one architecture, or for `best` with the architecture chosen too.

        The difference of published numbers, which have no intervals, is that of the two.
        """
        fixed_eps = self.about.fixed_eps.get(panel.norm)
        standard = self.cell(panel, arch, "0", downscaled=downscaled)
        robust = self.cell(panel, arch, BEST_ROBUST, downscaled=downscaled)
        paired = self._first(panel, arch, BEST_ROBUST, panel.target.metric + DIFFERENCE, downscaled)
        if self.about.experiment == PUBLISHED and standard and robust:
            paired = replace(robust, value=robust.value - standard.value)
        return Comparison(
            standard=standard,
            robust=robust,
            fixed=self.cell(panel, arch, fixed_eps, downscaled=downscaled) if fixed_eps else None,
            difference=paired,
            unseen=self._first(panel, arch, BEST_ROBUST, panel.target.metric + DIFFERENCE + OUT_OF_BAG, downscaled),
        )

    def fewer_seeds(self, panel: Panel, robust: Estimate) -> list[tuple[str, str]]:
        """Networks (architecture, eps) that `robust` was not chosen among, since they have fewer seeds than it."""
        seeds = len(robust.chosen.get("backbone_seeds", []))
        measured = [(arch, eps) for arch in self.about.ordered for eps in self.eps(panel.norm)]
        counts = {network: len(self.seeds(panel, *network)) for network in measured}
        return [network for network, count in counts.items() if 0 < count < seeds]

    def source(self, arch: str, norm: str, eps: str, seed: int | None = None) -> Estimate | None:
        """Clean top-1 accuracy on the source: of one seed, or the mean over seeds where there are several."""
        found = self._source.get((arch, norm, eps)) or self._source.get(_network(arch, norm, eps), [])
        return next((one for one in found if seed in (None, one.backbone_seed)), None)

    def source_eps(self, norm: str) -> list[str]:
        """Every eps of networks of this norm that were measured on the source, clean or attacked, growing."""
        keys = [key[:3] for found in (self._source, self._attacked) for key in found]
        return sorted({eps for _, of, eps in keys if of in ("none", norm)}, key=eps_value)

    def attacked(self, arch: str, norm: str, eps: str) -> dict[str, Estimate]:
        """Top-1 accuracy on perturbed images of the source, by the radius of the attack in this norm, growing.

        Of several attacks at one radius the one that leaves the least; of several seeds the mean.
        """
        found: dict[str, Estimate] = {}
        for (*network, attack), (first, *_) in self._attacked.items():
            said = json.loads(attack)
            if tuple(network) != _network(arch, norm, eps) or said["norm"] != norm:
                continue
            radius = str(said["eps"])
            if radius not in found or first.value < found[radius].value:
                found[radius] = first
        return {radius: found[radius] for radius in sorted(found, key=eps_value)}

    def views(self, protocol: Protocol) -> list[int | None]:
        """Sizes that targets were downscaled to, growing, after None for native images."""
        return [None, *sorted(int(size) for size in self._by(protocol)["downscaled"].unique() if size != NATIVE)]

    def _by(self, protocol: Protocol) -> pd.DataFrame:
        """What was measured by a protocol: targets, norms and views."""
        of = self._measured[list(PROTOCOL)]
        return self._measured[(of == [protocol.mode, protocol.name or "", protocol.deviations]).all(axis=1)]

    def _first(self, panel: Panel, arch: str, eps: str, metric: str, downscaled: int | None = None) -> Estimate | None:
        return next(iter(self._cell(panel, arch, eps, downscaled, metric)), None)

    def _cell(self, panel: Panel, arch: str, eps: str, downscaled: int | None, metric: str) -> list[Estimate]:
        """The numbers of a cell, means over more seeds first: single runs, means over seeds, or what was chosen."""
        how = (panel.protocol.mode, panel.protocol.name or "", panel.protocol.deviations)
        what = (panel.target.name, *how, downscaled or NATIVE, metric)
        # A norm may have a standard network of its own; else the standard one stands with all norms.
        own = self._cells.get((arch, panel.norm, eps, *what))
        return own or self._cells.get((*_network(arch, panel.norm, eps), *what), [])


def cells_of_few(results: pd.DataFrame, counted: str, images: int) -> Cells:
    """The numbers of transfer from few images, so many by the column `images_per_class` or `training_images`."""
    by_class = counted == "images_per_class"
    return Cells(results, images_per_class=images if by_class else None, training_images=None if by_class else images)


def shown_mode(cells: Cells) -> str:
    """The mode that a figure of one mode shows: fixed-feature as in the paper, or full-network if that is all."""
    return FIXED_FEATURE if cells.protocols(FIXED_FEATURE) or not cells.protocols(FULL_NETWORK) else FULL_NETWORK


def _network(arch: str, norm: str, eps: str) -> tuple[str, str, str]:
    """The values of the columns `NETWORK`; standard networks count under every norm."""
    return arch, "none" if eps == "0" else norm, eps
