"""What trainings left in the store beside their weights: one row per epoch, and the flags of every entry.

Entries made before a column or a flag was recorded lack it: it is not known there, which is no error.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from robust_transfer.configuration.training import Attack, Recipe
from robust_transfer.store.entry import CARD, TIMING, Entry, StoreError, read_json, renewing
from robust_transfer.tables.flags import FLAGS, Flag, joined
from robust_transfer.tables.key import Measurement, canonical
from robust_transfer.tables.sanity import Loss, evaluation_flags, is_above_chance, loss_flags, published_flags
from robust_transfer.tables.training import FLAG_COLUMNS, NULLABLE, TRAINING

EPOCHS = "epochs.csv"
RECORDED = ("epoch", "side", "loss", "train_accuracy", "clean_accuracy", "robust_accuracy", "learning_rate")
"""Columns of the training table that are read from `epochs.csv`."""
CHECKED = 512
"""Images that a training checked, where it did not record how many."""
COSTS = ("images_per_second", "seconds", "peak_memory_mb")
"""Columns of the training table that are read from `timing.json`."""


def epoch_rows(measurement: Measurement, entry: Entry) -> pd.DataFrame:
    """The epochs of the backbone behind a measurement, whose entry is given; none for one that was not trained here.

    Raises StoreError for an altered `epochs.csv`, or one without a column that there always was.
    """
    if EPOCHS not in entry.card()["files"]:
        return TRAINING.frame([])
    epochs = _read_epochs(entry)
    costs = pd.DataFrame(_timing(entry.path).get("epochs", []), columns=["epoch", *COSTS])
    key = measurement.key
    backbone = {name: getattr(key, name) for name in ("source", "arch", "recipe", "norm", "eps")}
    of = {"entry": measurement.backbone, **backbone, "seed": key.backbone_seed}
    return TRAINING.frame(epochs.merge(costs.astype("float64"), how="left", on="epoch").assign(**of))


def _read_epochs(entry: Entry) -> pd.DataFrame:
    """The columns of `epochs.csv`, as floats; NaN where a field is empty or a column was not recorded then."""
    texts = pd.read_csv(entry.file(EPOCHS), dtype="object", keep_default_na=False).reindex(columns=list(RECORDED))
    texts = texts.mask(texts == "")
    lacks = [name for name in RECORDED if name not in NULLABLE and texts[name].isna().any()]
    try:
        if lacks:
            raise ValueError(f"no {', '.join(lacks)}")
        return texts.map(float, na_action="ignore").astype("float64")
    except ValueError as error:
        raise StoreError(
            f"{entry.path / EPOCHS}: not the epochs of a training ({error}); {renewing(entry.path)}"
        ) from None


class Raised(NamedTuple):
    """A flag, and the entry it was raised for."""

    entry: str
    flag: Flag
    selection: str | None = None
    """Of a transfer's flag: where its hyperparameters were chosen."""


def as_flags(raised: Iterable[Raised]) -> pd.DataFrame:
    """Flags by the entry they were raised for, in the columns of `flags.csv`; one that two selections raise once."""
    rows = [(one.entry, one.entry.partition("/")[0], one.flag.flag, one.flag.message) for one in raised]
    return pd.DataFrame(list(dict.fromkeys(rows)), columns=list(FLAG_COLUMNS), dtype="string")


def recorded_flags(path: Path) -> list[Flag]:
    """The flags that an entry's own stage raised, from its card and its `timing.json`."""
    recorded = [*_card(path).get("facts", {}).get("flags", []), *_timing(path).get("flags", [])]
    return [Flag(str(flag["flag"]), str(flag["message"])) for flag in recorded]


def flags_of_trainings(epochs: pd.DataFrame, store: Path) -> list[Raised]:
    """The flags that backbones' losses raise and that their cards, made before there were such flags, do not have.

    `epochs` are of the training table.
    """
    found = []
    for name, course in epochs.groupby("entry", sort=False):
        path = store / str(name)
        raised = {flag.flag for flag in recorded_flags(path)}
        classes = len(_card(path).get("facts", {}).get("classes", []))
        flags = loss_flags([Loss(loss) for loss in course["loss"]], classes)
        found += [Raised(str(name), flag) for flag in flags if flag.flag not in raised]
    return found


def flags_by_row(rows: pd.DataFrame, raised: Iterable[Raised]) -> pd.Series[Any]:
    """The column `flags` of rows that entries measured: names of what was raised for the entry, for its backbone, and
    for that one's evaluations.

    What concerns the time it took alone is left out: it differs from run to run.
    """
    names: dict[tuple[str, str | None], list[str]] = defaultdict(list)
    for one in raised:
        if one.flag.flag in FLAGS and FLAGS[one.flag.flag].effect != "costs":
            names[one.entry, one.selection].append(one.flag.flag)
    evaluations = rows.loc[rows["mode"] == "source", ["backbone", "entry"]].drop_duplicates()
    behind = {name: [name, *of["entry"]] for name, of in evaluations.groupby("backbone")}
    cells = {}
    keys = rows[["entry", "selection", "backbone"]].astype("object")
    for key in set(keys.itertuples(index=False, name=None)):
        entry, selection, backbone = key
        selection = selection if isinstance(selection, str) else None
        own = [(entry, selection), *((one, None) for one in (entry, *behind.get(backbone, [backbone])))]
        cells[key] = joined(["", *(name for one in own for name in names.get(one, []))])
    return pd.Series([cells[key] for key in keys.itertuples(index=False, name=None)], rows.index, dtype="string")


def flags_of_evaluations(rows: pd.DataFrame, epochs: pd.DataFrame, store: Path) -> list[Raised]:
    """The flags that a backbone's test accuracies raise, by entry, beside those of its training.

    A flag that both raise is one, the training's. `rows` are of the results table, `epochs` of the training table.
    """
    checked = epochs.dropna(subset="robust_accuracy").groupby("entry")["robust_accuracy"].last()
    on_source = (rows["mode"] == "source") & (rows["metric"] == "top1") & (rows["split"] == "test")
    on_source &= rows["variant"] == canonical({})  # on other views of the source even guessing is a result
    found = []
    for name, measured in rows[on_source].groupby("entry", sort=False):
        clean = measured[measured["attack"].isna()]
        if clean.empty:
            continue
        first = clean.iloc[0]
        own = measured.loc[measured.apply(_is_own, axis=1), "value"]
        facts = _card(store / first["backbone"]).get("facts", {})
        flags = evaluation_flags(
            classes=len(facts.get("classes", [])),
            images=int(first["n"]),
            clean=float(first["value"]),
            robust=None if own.empty else float(own.iloc[0]),
            train_robust=checked.get(first["backbone"]),
            sample=int(_timing(store / first["backbone"]).get("checked_images", CHECKED)),
        )
        flags += published_flags(float(first["value"]), int(first["n"]), facts.get("published_top1"))
        raised = {flag.flag for flag in recorded_flags(store / first["backbone"])}
        found += [Raised(str(name), flag) for flag in flags if flag.flag not in raised]
    return found


def not_overruled(raised: Iterable[Raised], rows: pd.DataFrame, store: Path) -> list[Raised]:
    """Flags without `at-chance` of trainings whose network is better than guessing on the source's test images.

    A training checks few training images, an evaluation all test images. `rows` are of the results table.
    """
    clean = (rows["mode"] == "source") & (rows["metric"] == "top1") & (rows["split"] == "test") & rows["attack"].isna()
    learned = {
        backbone
        for backbone, value, n in rows.loc[clean, ["backbone", "value", "n"]].itertuples(index=False, name=None)
        if (classes := len(_card(store / backbone).get("facts", {}).get("classes", []))) > 1
        and is_above_chance(float(value), classes, int(n))
    }
    return [one for one in raised if one.flag.flag != "at-chance" or one.entry not in learned]


def _is_own(row: pd.Series[Any]) -> bool:
    """Accuracy under PGD at the backbone's own norm and eps."""
    attack = {"kind": "none"} if pd.isna(row["attack"]) else json.loads(row["attack"])
    return "kind" not in attack and (attack["norm"], attack["eps"]) == (row["norm"], row["eps"])


def training_of(backbone: Entry) -> str | None:
    """The column `training` of a backbone's numbers; None for one that was not trained here."""
    settings = backbone.settings
    if not isinstance(settings.get("training"), dict):
        return None
    default = Recipe().model_dump(mode="json")
    said = {
        name: value for name, value in settings["training"].items() if name == "epochs" or value != default.get(name)
    }
    if settings.get("attack"):
        usual = Attack().model_dump(mode="json")
        said["attack"] = {name: value for name, value in settings["attack"].items() if value != usual.get(name)}
    return canonical(said)


def _card(path: Path) -> dict[str, Any]:
    card: dict[str, Any] = read_json(path / CARD)
    return card


def _timing(path: Path) -> dict[str, Any]:
    timing: dict[str, Any] = read_json(path / TIMING)
    return timing
