"""What the page's charts and tables show, as plain rows from the tables of an experiment."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from robust_transfer.configuration.eps import eps_value
from robust_transfer.configuration.training import NORM_LABELS
from robust_transfer.figures.cells import Cells
from robust_transfer.figures.estimates import Comparison, Estimate
from robust_transfer.figures.labels import architecture_label, difference_text, network_label
from robust_transfer.figures.protocols import (
    FIXED_FEATURE,
    FULL_NETWORK,
    MODE_LABELS,
    Protocol,
    protocol_details,
    protocol_label,
)
from robust_transfer.page.charts import (
    SIDES,
    TEXTURE_ROBUST,
    Chart,
    Control,
    Row,
    curves,
    differences,
    options,
    transfers,
)
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.flags import DAGGER, failures
from robust_transfer.tables.key import BEST_ARCH, BEST_ROBUST, canonical
from robust_transfer.tables.results import DIFFERENCE, OUT_OF_BAG

ROBUST_AHEAD, STANDARD_AHEAD, UNDECIDED, FAILED = SIDES
EVERY_IMAGE = "all"


def headline_charts(results: pd.DataFrame) -> list[tuple[str, Chart]]:
    """For each mode that was measured its protocol in words, and the differences by target."""
    cells = Cells(results)
    by_mode: dict[str, tuple[str, list[Row]]] = {}
    for mode in (FIXED_FEATURE, FULL_NETWORK):
        protocol = cells.shown(mode)
        compared = [(panel.label, cells.comparison(panel, BEST_ARCH)) for panel in cells.panels(mode)]
        rows = [_difference(label, one) for label, one in compared if one.difference]
        if protocol and rows:
            by_mode[mode] = protocol_label(protocol), rows
    ends = [row[end] for _, rows in by_mode.values() for row in rows for end in ("low", "high")]
    domain = min([0.0, *ends]), max([0.0, *ends])
    return [(label, differences(rows, f"headline-{mode}", domain)) for mode, (label, rows) in by_mode.items()]


def _difference(label: str, one: Comparison) -> Row:
    assert one.difference
    assert one.robust
    assert one.standard
    low, high = one.difference.ci_low, one.difference.ci_high
    side = UNDECIDED
    if one.failed:
        side = FAILED
    elif one.decided:
        side = ROBUST_AHEAD if one.difference.value > 0 else STANDARD_AHEAD
    return {
        "target": label,
        "difference": round(one.difference.value, 4),
        "low": round(one.difference.value if math.isnan(low) else low, 4),
        "high": round(one.difference.value if math.isnan(high) else high, 4),
        "standard": f"{one.standard.value:.1f}",
        "robust": f"{one.robust.value:.1f}",
        "network": f"{architecture_label(one.robust.chosen['arch'])}, ε {one.robust.chosen['eps']}",
        "shown": difference_text(one.difference) + (f" {DAGGER}" if one.failed else ""),
        "n": _count(one.difference),
        "side": side,
    }


def _count(one: Estimate) -> str:
    return f"{one.n} {one.ci_kind}" if one.ci_kind else str(one.n)


def explorer(results: pd.DataFrame) -> Chart | None:
    """Every test accuracy of a transfer by its target's metric, with controls for what differs among them."""
    about = ExperimentInfo.of(results)
    rows = list(_transfers(results, about))
    if not rows:
        return None
    recipes = ("", *about.texture_robust)
    names = [network_label(name, recipe, about.texture_robust) for recipe in recipes for name in about.ordered]
    architectures = options(rows, "architecture", names)
    rows.sort(key=lambda row: (architectures.index(row["architecture"]), *_radius_order(row), not row["is_mean"]))
    eps = list(dict.fromkeys(row["eps"] for row in sorted(rows, key=_radius_order)))
    ordered = {
        "target": [target.label for target in about.targets],
        "mode": list(MODE_LABELS.values()),
        "selection": [about.selection],
        "images": [EVERY_IMAGE],
        "view": ["native"],
    }
    labels = {
        "target": "Target",
        "mode": "Mode",
        "protocol": "Protocol",
        "architecture": "Architecture",
        "view": "View",
        "images": "Images per class",
        "selection": "Chosen on",
    }
    controls = [
        Control(column, label, options(rows, column, ordered.get(column, ())), with_all=column == "architecture")
        for column, label in labels.items()
        if column == "target" or len({row[column] for row in rows}) > 1
    ]
    return transfers(rows, controls, eps, architectures)


def _radius_order(row: Row) -> tuple[bool, str, float]:
    """Standard networks first, then every norm by growing eps."""
    return row["eps_value"] > 0, row["norm"] if row["eps_value"] > 0 else "", row["eps_value"]


def _transfers(results: pd.DataFrame, about: ExperimentInfo) -> Iterator[Row]:
    metrics = {target.name: target for target in about.targets}
    best = _best_robust(results)
    rows = results[(results["mode"] != "source") & (results["split"] == "test") & results["eps_value"].notna()]
    rows = rows[rows["attack"].isna()]
    norms = {str(norm) for norm in rows["norm"].unique()} - {"none"}
    means = _have_means(rows)
    for row in _each(rows):
        target = metrics.get(str(row.target))
        if target is None or row.metric != target.metric:
            continue
        if str(row.arch) == BEST_ARCH:
            continue
        key = _cell(row)
        is_seed = not pd.isna(row.backbone_seed)
        if is_seed and not pd.isna(row.transfer_seed) and (key, int(row.backbone_seed)) in means:
            continue  # one of several transfers of a network, whose mean is there
        variant = json.loads(row.variant)
        view = variant.pop("downscaled", None)
        is_mean = not is_seed or key not in means
        mark = f" ({NORM_LABELS.get(str(row.norm), row.norm)})" if len(norms) > 1 and row.eps != "0" else ""
        failed = failures(None if pd.isna(row.flags) else row.flags)
        name = network_label(str(row.arch), str(row.recipe), about.texture_robust)
        yield {
            "target": target.label,
            "mode": MODE_LABELS.get(str(row.mode), str(row.mode)),
            "protocol": _protocol(str(row.mode), row.protocol, variant),
            "architecture": name,
            "view": f"{view} px" if view else "native",
            "images": _images(row),
            "selection": "" if pd.isna(row.selection) else str(row.selection),
            "eps": f"{row.eps}{mark}",
            "eps_value": float(row.eps_value),
            "norm": str(row.norm),
            "is_mean": is_mean,
            "seed": f"seed {row.backbone_seed}" if is_seed else "mean over seeds",
            "series": " ".join([name, *[str(row.norm)] * (len(norms) != 1)]),
            "value": round(float(row.value), 4),
            "low": round(float(row.value if math.isnan(row.ci_low) else row.ci_low), 4),
            "high": round(float(row.value if math.isnan(row.ci_high) else row.ci_high), 4),
            "shown": f"{row.value:.1f}" + (f" {DAGGER}" if failed else ""),
            "interval": "" if math.isnan(row.ci_low) else f"{row.ci_low:.1f} to {row.ci_high:.1f}",
            "n": f"{row.n} {row.ci_kind}".strip(),
            "role": _role(row, about, best),
            "flags": "" if pd.isna(row.flags) else str(row.flags).replace(",", ", "),
        }


def _images(row: Any) -> str:
    """From how many training images a number is."""
    if not pd.isna(row.training_images):
        return f"{row.training_images} in total"
    return EVERY_IMAGE if pd.isna(row.images_per_class) else str(row.images_per_class)


def _role(row: Any, about: ExperimentInfo, best: dict[tuple[str, ...], str]) -> str:
    """What a network is among those of its architecture."""
    if str(row.recipe) in about.texture_robust:
        return TEXTURE_ROBUST
    return "standard" if row.eps == "0" else "best robust" if row.eps == best.get(_cell(row)[:-3]) else "other"


def _each(table: pd.DataFrame) -> Iterator[Any]:
    """The rows, with their columns as attributes."""
    yield from table.itertuples(index=False)


def _cell(row: Any) -> tuple[str, ...]:
    """What tells a network's number from others, seeds left out; the last three say which network it is."""
    which = (
        "target",
        "mode",
        "protocol",
        "variant",
        "images_per_class",
        "training_images",
        "selection",
        "metric",
        "arch",
    )
    return tuple(str(getattr(row, name)) for name in (*which, "norm", "eps", "recipe"))


def _have_means(rows: pd.DataFrame) -> set[Any]:
    """Cells of which there is a mean over pretraining seeds, and (cell, seed) with a mean over transfer seeds."""
    found: set[Any] = set()
    for row in _each(rows[rows["transfer_seed"].isna()]):
        found.add(_cell(row) if pd.isna(row.backbone_seed) else (_cell(row), int(row.backbone_seed)))
    return found


def _best_robust(results: pd.DataFrame) -> dict[tuple[str, ...], str]:
    """The robust eps that each architecture's choice prefers, by cell."""
    chosen = results[(results["eps"].astype("string") == BEST_ROBUST) & (results["arch"].astype("string") != BEST_ARCH)]
    chosen = chosen[chosen["attack"].isna()]
    plain = chosen[~chosen["metric"].str.endswith((DIFFERENCE, OUT_OF_BAG))]
    return {_cell(row)[:-3]: str(json.loads(row.hyperparameters)["eps"]) for row in _each(plain)}


def _protocol(mode: str, name: Any, variant: dict[str, Any]) -> str:
    return protocol_details(Protocol(mode, None if pd.isna(name) else str(name), canonical(variant))) or "as it is"


QUANTITIES = {
    "loss": "Training loss",
    "train_accuracy": "Training accuracy, %",
    "clean_accuracy": "Check sample, clean, %",
    "robust_accuracy": "Check sample, under attack, %",
}


def training_curves(training: pd.DataFrame) -> Chart | None:
    """Loss and accuracies of the backbones over epochs."""
    robust = ExperimentInfo.of(training).texture_robust
    rows = [
        {
            "quantity": label,
            "architecture": architecture_label(str(row.arch)),
            "eps": str(row.eps),
            "epoch": int(row.epoch),
            "value": round(float(getattr(row, column)), 4),
            "shown": f"{getattr(row, column):.3f}" if column == "loss" else f"{getattr(row, column):.1f}",
            "backbone": f"{network_label(str(row.arch), str(row.recipe), robust)}, ε {row.eps}, seed {row.seed}",
        }
        for column, label in QUANTITIES.items()
        for row in _each(training)
        if not pd.isna(getattr(row, column)) and math.isfinite(getattr(row, column))
    ]
    if not rows:
        return None
    by_value = training.assign(at=[eps_value(eps) for eps in training["eps"].astype(str)]).sort_values("at")
    eps = list(dict.fromkeys(str(one) for one in by_value["eps"]))
    controls = [
        Control("quantity", "Shown", options(rows, "quantity", list(QUANTITIES.values()))),
        Control("architecture", "Architecture", options(rows, "architecture"), with_all=True),
    ]
    controls = [one for one in controls if len(one.options) > 1]
    return curves(rows, controls, eps)


def sources(results: pd.DataFrame) -> list[Row]:
    """Accuracy of the backbones on the source, clean and under each attack: a row for each network."""
    about = ExperimentInfo.of(results)
    rows = results[(results["mode"] == "source") & (results["metric"] == "top1") & (results["split"] == "test")]
    networks: dict[tuple[str, str, str, str], Row] = {}
    by_eps = rows.assign(at=[eps_value(str(eps)) for eps in rows["eps"]])
    means_first = by_eps.sort_values(["at", "backbone_seed"], na_position="first", kind="stable")
    for row in _each(means_first):
        recipe = str(row.recipe) if str(row.recipe) in about.texture_robust else ""
        key = (str(row.arch), str(row.norm), str(row.eps), recipe)
        name = network_label(key[0], recipe, about.texture_robust)
        one = networks.setdefault(key, {"architecture": name, "eps": _radius(*key[1:3]), "values": {}})
        said = "clean" if pd.isna(row.attack) else _attack(json.loads(row.attack))
        failed = failures(None if pd.isna(row.flags) else row.flags)
        one["values"].setdefault(said, f"{row.value:.1f}" + (f" {DAGGER}" if failed else ""))
    order = {name: place for place, name in enumerate(about.ordered)}
    return [networks[key] for key in sorted(networks, key=lambda key: (bool(key[3]), order.get(key[0], len(order))))]


def _radius(norm: str, eps: str) -> str:
    return eps if norm in ("none", "l2") else f"{eps} ({NORM_LABELS.get(norm, norm)})"


def _attack(attack: dict[str, Any]) -> str:
    kind = f"PGD-{attack['steps']}" if "steps" in attack else str(attack.get("kind", "attack"))
    return f"{kind}, {NORM_LABELS.get(attack.get('norm', ''), '')} {attack.get('eps', '')}".strip()
