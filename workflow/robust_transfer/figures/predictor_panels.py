"""What goes along with transfer: a property of backbones against transfer accuracy, by target and over all targets.

Every backbone is one network, seeds of one architecture too. Over all targets, a network's number is the mean over
targets of its accuracy less the target's mean over networks, of networks that were measured on every target: so that
easy targets and hard ones count alike, and a network counts once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from robust_transfer.configuration.training import NORM_LABELS
from robust_transfer.figures.cells import Cells
from robust_transfer.figures.numbers import Number
from robust_transfer.figures.protocols import Protocol, with_views
from robust_transfer.statistics.correlation import FEWEST, Coefficient, pearson, spearman
from robust_transfer.tables.backbones import BACKBONE, PROPERTIES, properties, transfers
from robust_transfer.tables.flags import failures

ALL_TARGETS = "All targets"
LABELS = {
    "source_accuracy": "Source accuracy (%)",
    "robust_accuracy": "Robust accuracy at own ε (%)",
    "shape_bias": "Shape bias (%)",
    "inversion_distance": "Inversion error (%)",
    "gradient_low_frequency": "Gradient at low frequencies (%)",
    "knn_accuracy": "k-NN accuracy, mean (%)",
    "shape_decisions": "Decisions for shape (%)",
    "texture_decisions": "Decisions for texture (%)",
    "inversion_pixels": "Inversion, pixel distance (%)",
    "inversion_moved": "Inversion, pixels moved (%)",
    "inversion_ssim": "Inversion, SSIM × 100",
    "source_accuracy_stylized": "Accuracy, stylized source (%)",
}
"""What axes call a property; those named by a radius or a size are put together by `property_label`."""
COLUMNS = (
    *("experiment", "property", "mode", "protocol", "deviations", "target", "series", *BACKBONE, "x", "y", "networks"),
    *("left_out", "spearman", "spearman_low", "spearman_high", "pearson", "pearson_low", "pearson_high"),
)


@dataclass(frozen=True)
class PredictorPanel:
    """One property against the accuracy on one target, or over all targets."""

    property: str
    protocol: Protocol
    target: str
    """Its name; empty: over all targets."""
    label: str
    points: pd.DataFrame
    """One row per network: `BACKBONE`, `x`, the property, and `y`, percent, or over all targets percentage points."""
    left_out: int
    """Networks behind whose property or accuracy something failed."""
    spearman: Coefficient | None
    pearson: Coefficient | None
    """None: fewer than `FEWEST` networks, or either has no spread."""

    def missing(self) -> str:
        """Why there is no correlation; empty where there is one."""
        if self.spearman:
            return ""
        lacking = FEWEST - len(self.points)
        return f"needs {lacking} more network{'s' if lacking > 1 else ''}" if lacking > 0 else "no spread"


def property_label(name: str) -> str:
    """What axes and headings call a property."""
    if at := re.fullmatch(r"robust_accuracy_(\w+)_eps(.+)", name):
        return f"Robust accuracy, {NORM_LABELS.get(at[1], at[1])} ε {at[2].replace('of', '/')} (%)"
    if size := re.fullmatch(r"source_accuracy_(\d+)px", name):
        return f"Accuracy, source at {size[1]} px (%)"
    return LABELS.get(name, name)


def predictor_panels(results: pd.DataFrame, cells: Cells, mode: str) -> dict[str, list[PredictorPanel]]:
    """By property, a panel per target and, of several targets, one over all; none where nothing was transferred.

    The properties are those that the experiment names (`figures.predictors`); by default those of `PROPERTIES`, and
    accuracies at a radius or on shifted images, that any network has.
    """
    protocol, every = cells.shown(mode), properties(results)
    if protocol is None:
        return {}
    accuracies = _by(protocol, transfers(results))
    details = every["property"].isin(list(LABELS)) & ~every["property"].isin([*PROPERTIES, "source_accuracy_stylized"])
    measured = every.loc[~details, "property"].unique()
    order = [*PROPERTIES, *sorted(set(measured) - set(PROPERTIES))]
    shown = cells.about.predictors or [name for name in order if name in measured]
    return {
        name: _panels(name, protocol, every[every["property"] == name], accuracies, cells)
        for name in shown
    }  # fmt: skip


def numbers_of(panels: Sequence[PredictorPanel], experiment: str) -> list[Number]:
    """For the CSV: a line for the correlations of each panel, and one for each of its networks."""
    numbers: list[Number] = []
    for panel in panels:
        how = panel.protocol
        where: Number = {"experiment": experiment, "property": panel.property, "mode": how.mode, "protocol": how.name}
        where |= {"deviations": how.deviations, "target": panel.target or ALL_TARGETS}
        found: Number = {"series": "correlation", "networks": len(panel.points), "left_out": panel.left_out}
        for name, one in (("spearman", panel.spearman), ("pearson", panel.pearson)):
            found |= {name: one and one.value, f"{name}_low": one and one.low, f"{name}_high": one and one.high}
        numbers.append(where | found)
        for point in panel.points.to_dict("records"):
            numbers.append(where | {"series": "network"} | {name: point[name] for name in (*BACKBONE, "x", "y")})
    return numbers


def _by(protocol: Protocol, accuracies: pd.DataFrame) -> pd.DataFrame:
    """The accuracies that were measured by this protocol."""
    rows = with_views(accuracies, said=True)
    name = protocol.name or ""
    same = (rows["mode"] == protocol.mode) & (rows["protocol"] == name) & (rows["deviations"] == protocol.deviations)
    return rows[same]


def _panels(
    name: str, protocol: Protocol, of_property: pd.DataFrame, accuracies: pd.DataFrame, cells: Cells
) -> list[PredictorPanel]:
    """The panels of one property."""
    joined = accuracies.rename(columns={"value": "y"}).merge(
        of_property.rename(columns={"value": "x"}), on=list(BACKBONE), suffixes=("", "_of_property")
    )
    failed = [
        bool(failures(_text(one)) or failures(_text(other)))
        for one, other in zip(joined["flags"], joined["flags_of_property"], strict=True)
    ]
    joined = joined.assign(failed=pd.Series(failed, joined.index, dtype=bool))
    targets = [target for target in cells.about.targets if (accuracies["target"] == target.name).any()]
    found = [
        _panel(name, protocol, target.name, target.label, joined[joined["target"] == target.name])
        for target in targets
    ]  # fmt: skip
    if len(targets) > 1:
        found.append(_panel(name, protocol, "", ALL_TARGETS, _pooled(joined, [target.name for target in targets])))
    return found


def _pooled(joined: pd.DataFrame, targets: Sequence[str]) -> pd.DataFrame:
    """One row per network with an accuracy on every target: `y` is the mean over targets of what its accuracy is above
    the target's mean over these networks. A network of which one number failed has failed."""
    joined = joined[joined["target"].isin(list(targets))]
    of_network = joined.groupby(list(BACKBONE), dropna=False, sort=False)
    failed = of_network["failed"].transform("any")
    complete = of_network["target"].transform("nunique") == len(targets)
    rows = joined.assign(failed=failed)[complete]
    counted = rows[~rows["failed"]]
    level = counted.groupby("target")["y"].mean()
    rows = rows.assign(y=rows["y"] - rows["target"].map(level).astype("float64"))
    whole = rows.groupby(list(BACKBONE), dropna=False, sort=False)
    return whole.agg(x=("x", "first"), y=("y", "mean"), failed=("failed", "any")).reset_index()


def _panel(name: str, protocol: Protocol, target: str, label: str, rows: pd.DataFrame) -> PredictorPanel:
    points = rows.loc[~rows["failed"], [*BACKBONE, "x", "y"]].reset_index(drop=True)
    x, y = points["x"].tolist(), points["y"].tolist()
    left_out = int(rows["failed"].sum())
    return PredictorPanel(name, protocol, target, label, points, left_out, spearman(x, y), pearson(x, y))


def _text(flags: object) -> str | None:
    return flags if isinstance(flags, str) else None
