"""What of an experiment a claim looks at: targets, architectures and view, and what is missing for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from robust_transfer.configuration.claims import Where
from robust_transfer.configuration.eps import eps_value
from robust_transfer.configuration.training import NORM_LABELS
from robust_transfer.configuration.variants import SETTINGS
from robust_transfer.figures.cells import Cells, Panel
from robust_transfer.figures.estimates import Estimate
from robust_transfer.figures.protocols import (
    ADVERSARIAL,
    MODE_LABELS,
    PAPER,
    Protocol,
    protocol_label,
    shown_protocol,
    shown_selection,
)
from robust_transfer.tables.experiment_info import ATTRIBUTE, ExperimentInfo, Target
from robust_transfer.tables.flags import failures, joined
from robust_transfer.tables.key import BEST_ARCH, canonical

UNTRANSFERRED = "untransferred"
"""Stands for the modes `source`, `cue-conflict` and `gallery` here: networks as they are."""
SOURCE, CONFLICT, CONFLICT_TARGET, GALLERY = "source", "cue-conflict", "cue_conflict", "gallery"
METRICS = {CONFLICT: "shape_bias"}
STYLIZED = "stylized"


@dataclass(frozen=True)
class Looked:
    """The cells that a claim looks at."""

    cells: Cells
    panels: Sequence[Panel]
    """One for each target, of one norm."""
    architectures: Sequence[str]
    view: int | None
    """Size that targets are downscaled to; None: native."""
    missing: Sequence[str]
    """What the claim asks for and was not measured."""

    @property
    def chosen_on_test(self) -> bool:
        """Whether hyperparameters or networks were chosen on the images that the accuracies are of."""
        return self.cells.selection == "test" and any(one.protocol.mode != UNTRANSFERRED for one in self.panels)

    @property
    def protocol(self) -> str:
        """How the numbers were measured and where what is behind them was chosen, in words."""
        protocols = dict.fromkeys(one.protocol for one in self.panels)
        if any(one.mode == UNTRANSFERRED for one in protocols):
            return "without transfer"
        view = f", images downscaled to {self.view} px" if self.view else ""
        view += "".join(f", {NORM_LABELS.get(one, one)} networks" for one in {one.norm for one in self.panels} - {"l2"})
        return "; ".join(f"{protocol_label(one)}{view}, chosen on {self.cells.selection}" for one in protocols)

    def cell(self, panel: Panel, arch: str, eps: str) -> Estimate | None:
        """The number of one network on one target."""
        return self.cells.cell(panel, arch, eps, downscaled=self.view)

    def counted(
        self, panel: Panel, networks: Sequence[tuple[str, str]]
    ) -> tuple[dict[tuple[str, str], Estimate], tuple[str, ...]]:
        """The numbers of networks (architecture, eps), where measured, and the flags by which others do not count.

        Their intervals are of one kind: where some are means over seeds and others of one seed, the numbers are those
        of the first seed that all share; there are none if they share none.
        """
        cells = {network: self.cell(panel, *network) for network in networks}
        found = {network: one for network, one in cells.items() if one and not one.failed}
        failed = failures(joined(one.flags for one in cells.values() if one and one.failed))
        if len({one.ci_kind for one in found.values()}) < 2:
            return found, failed
        seeds = {
            network: {one.backbone_seed: one for one in self.cells.seeds(panel, *network, downscaled=self.view)}
            for network in found
        }
        shared = set.intersection(*(set(of) for of in seeds.values()))
        return {network: of[min(shared, key=str)] for network, of in seeds.items()} if shared else {}, failed


class Measured:
    """A results table as claims look at it."""

    def __init__(self, results: pd.DataFrame) -> None:
        """Raises TableError if `results` have lost the experiment's description."""
        self.results, self.about = results, ExperimentInfo.of(results)
        self._looked: dict[tuple[Where, str | None], Looked] = {}
        self._cells: dict[tuple[object, ...], Cells] = {}

    @property
    def input_size(self) -> int:
        """Side of the networks' input in pixels; 224, the paper's, where nothing says it."""
        return int(self.results.attrs[ATTRIBUTE].get("input_size") or 224)

    def look(self, where: Where, recipe: str | None = None) -> Looked:
        """What `where` names, for networks of this recipe (default: all but texture-robust ones)."""
        if (where, recipe) not in self._looked:
            self._looked[where, recipe] = self._look(where, recipe)
        return self._looked[where, recipe]

    def _look(self, where: Where, recipe: str | None) -> Looked:
        named = self._named(where)
        cells = self._of(where, recipe, named)
        mode = _mode(where)
        protocol = _protocol(cells, mode, where)
        views = [size for size in cells.views(protocol) if size] if protocol else []
        view = min(views, default=None) if where.view == "downscaled" else None
        norms = cells.norms()
        norm = where.norm or ("l2" if "l2" in norms or not norms else norms[0])
        panels = [
            one
            for one in (cells.panels(mode, protocol) if protocol else [])
            if one.norm == norm and (not named or one.target.name in named) and _is_measured(cells, one, view)
        ]
        missing = []
        if protocol is None:
            missing.append(_absent_mode(where))
        elif where.view == "downscaled" and view is None:
            missing.append("downscaled images")
            panels = []
        elif norms and norm not in norms:
            missing.append(f"{NORM_LABELS.get(norm, norm)} networks")
        elif where.mode == GALLERY and not panels:
            missing.append(_absent_mode(where))
        elif absent := [name for name in named if name not in {one.target.name for one in panels}]:
            missing.append(f"{'target' if len(absent) == 1 else 'targets'} {', '.join(absent)}")
        elif not panels:
            missing.append(f"{where.view} images")
        return Looked(cells, panels, _architectures(self.about, where), view, missing)

    def _named(self, where: Where) -> Sequence[str]:
        """The targets that a claim names; none where it is about all of the experiment."""
        if where.mode == CONFLICT:
            return (CONFLICT_TARGET,)
        targets = where.targets or ((SOURCE,) if where.mode in (SOURCE, GALLERY) else ())
        return tuple(self.about.source if name == SOURCE else name for name in targets)

    def _of(self, where: Where, recipe: str | None, named: Sequence[str]) -> Cells:
        known = {target.name for target in self.about.targets}
        named = [name for name in named if name not in known]
        metric = where.metric or METRICS.get(where.mode)
        stylized = where.view == STYLIZED
        key = (where.mode, metric, recipe, stylized, where.attacked, where.norm, tuple(named))
        if key not in self._cells:
            rows = self._rows(where, recipe)
            about = _with_targets(self.about, rows, named, metric)
            rows.attrs = {ATTRIBUTE: about.as_json() | {"texture_robust": {}, "norm": None}}
            self._cells[key] = Cells(rows)
        return self._cells[key]

    def _rows(self, where: Where, recipe: str | None) -> pd.DataFrame:
        """The rows of a kind of images and networks, as if there were no other kinds."""
        rows = self.results
        texture_robust = rows["recipe"].isin(list(self.about.texture_robust))
        rows = rows[~texture_robust if recipe is None else rows["recipe"] == recipe]
        rows = rows[(rows["source"] == self.about.source) & (rows["attack"].notna() == where.attacked)]
        variants = {text: json.loads(text) for text in rows["variant"].unique()}
        stylized = {text for text, one in variants.items() if STYLIZED in one}
        by_class = {text for text, one in variants.items() if "shape" in one}
        rows = rows[(rows["variant"].isin(stylized) == (where.view == STYLIZED)) & ~rows["variant"].isin(by_class)]
        if stylized:
            without = {
                text: canonical({k: v for k, v in one.items() if k != STYLIZED}) for text, one in variants.items()
            }
            rows = rows.assign(variant=rows["variant"].map(without).astype("string"))
        if _mode(where) != UNTRANSFERRED:
            return _mildest(rows, where.norm) if where.attacked else rows
        selection = shown_selection(self.results)
        again = rows[rows["mode"].astype("string") == where.mode]
        again = again.assign(mode=UNTRANSFERRED, selection=selection, protocol=None, attack=None)
        return pd.concat([rows[rows["mode"].astype("string") == SOURCE], again])


def _mildest(rows: pd.DataFrame, norm: str | None) -> pd.DataFrame:
    """Of transferred models under attack the rows of one attack, as if they were of clean images.

    That is the one of the smallest radius, where networks differ most, and there AutoAttack if it was made. Its norm is
    `norm`, by default l2 if there are such attacks.
    """
    said = {text: json.loads(text) for text in rows["attack"].dropna().unique()}
    attacks = [text for text, one in said.items() if one.get("kind") != "none" and one["norm"] == (norm or one["norm"])]
    order = {
        text: (said[text]["norm"] != "l2", eps_value(said[text]["eps"]), "kind" not in said[text]) for text in attacks
    }
    one = min(attacks, key=order.__getitem__, default=None)
    transferred = rows["mode"].astype("string") != SOURCE
    return rows[~transferred | (rows["attack"] == one)].assign(attack=rows["attack"].mask(transferred))


def _mode(where: Where) -> str:
    return UNTRANSFERRED if where.mode in (SOURCE, CONFLICT, GALLERY) else where.mode


def _absent_mode(where: Where) -> str:
    """What is missing where nothing was measured in a mode."""
    known = {SOURCE: "accuracy on the source", CONFLICT: "shape bias", GALLERY: f"galleries' {where.metric}"}
    what = known.get(where.mode)
    what = what or f"{MODE_LABELS[where.mode].lower()} transfer"
    what += f" by the {where.protocol} protocol" if where.protocol else ""
    what += f" of setting {where.setting}" if where.setting else ""
    return what + " on stylized images" * (where.view == STYLIZED) + " under attack" * where.attacked


def _with_targets(
    about: ExperimentInfo, rows: pd.DataFrame, named: Sequence[str], metric: str | None
) -> ExperimentInfo:
    """With targets that a claim names and that are none of the experiment's, such as its source, if they have rows."""
    known, there = {target.name for target in about.targets}, set(rows["target"].astype("string"))
    labels = {about.source: about.source_label or about.source, CONFLICT_TARGET: "conflicting images"}
    more = [Target(name, labels.get(name, name), "top1") for name in named if name in there and name not in known]
    targets = [*about.targets, *more]
    return replace(about, targets=tuple(replace(one, metric=metric or one.metric) for one in targets))


def _protocol(cells: Cells, mode: str, where: Where) -> Protocol | None:
    """The protocol that figures show, of those that a claim allows."""
    allowed = [one for one in cells.protocols(mode) if where.protocol in (None, one.name) and _has_setting(one, where)]
    if where.view == "downscaled":
        allowed = [one for one in allowed if len(cells.views(one)) > 1] or allowed
    return shown_protocol(allowed, cells.about)


def _has_setting(protocol: Protocol, where: Where) -> bool:
    """Whether a protocol trains on the target what a claim is about; a standard setting has no name in the table."""
    if where.setting is None:
        return True
    said = json.loads(protocol.deviations).get("setting")
    if SETTINGS[where.setting][1]:
        return bool(said == where.setting)
    return said is None and ADVERSARIAL not in json.loads(protocol.deviations) and protocol.name == PAPER


def _is_measured(cells: Cells, panel: Panel, view: int | None) -> bool:
    """Whether any network was measured on the target in this view."""
    archs = (BEST_ARCH, *cells.about.ordered)
    return any(cells.cell(panel, arch, eps, downscaled=view) for arch in archs for eps in cells.eps(panel.norm))


def _architectures(about: ExperimentInfo, where: Where) -> Sequence[str]:
    selected = {"best": (BEST_ARCH,), "all": about.ordered, "widths": about.widths, "narrowest": about.widths[:1]}
    first, *more = where.architectures or ("",)
    return where.architectures if more else selected.get(first, where.architectures)
