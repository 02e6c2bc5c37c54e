"""What transfers left in the store beside their numbers, and the flags that it raises."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from robust_transfer.store.entry import Entry, finished, open_entry
from robust_transfer.store.predictions import PREDICTIONS
from robust_transfer.store.runs import runs_in
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.flags import Flag, flag
from robust_transfer.tables.sanity import Loss, at_chance, loss_flags
from robust_transfer.tables.training_records import EPOCHS, Raised
from robust_transfer.tables.transfer_sanity import LastLosses, edge_flags, fell, refit_flags

GRIDS = {"lambda": "strengths", "k": "neighbours", "learning_rate": "learning_rates"}
"""Hyperparameters, and the setting of their stage that lists the values tried."""
UNTRAINED = ("probing", "knn")
"""Stages that solve a convex problem or none, and so cannot fail to train."""
LAST = {"k": 1.0, "weight_decay": 0.0}
"""Values that nothing lies beyond."""


def flags_of_transfers(rows: pd.DataFrame, info: ExperimentInfo, store: Path) -> list[Raised]:
    """The flags of every transfer that an entry measured, by the accuracy that its target is judged by.

    `rows` are of the results table. Raises StoreError for an entry that was altered.
    """
    metrics = info.metrics
    clean = (rows["mode"] != "source") & rows["attack"].isna()
    judged = rows[clean & (rows["metric"] == rows["target"].map(metrics))]
    found = []
    for (name, selection), numbers in judged.groupby(["entry", "selection"], sort=False, dropna=False):
        chosen_on = selection if isinstance(selection, str) else None
        by_split = {row["split"]: row for _, row in numbers.iterrows()}
        flags = _flags(open_entry(store / str(name)), chosen_on, by_split)
        found += [Raised(str(name), flag, chosen_on) for flag in flags]
    return found


def _flags(entry: Entry, selection: str | None, by_split: dict[str, pd.Series[Any]]) -> Iterator[Flag]:
    """The flags of one transfer under one selection, from its row of the results table for each split."""
    test, decided = by_split.get("test"), by_split.get(selection or "")
    if test is None:
        return
    classes, chosen = _classes(entry), json.loads(test["hyperparameters"])
    if _is_diverged(entry, chosen):
        at = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in chosen.items())
        yield flag("loss-not-finite", f"training diverged at {at}")
        return
    untrained = entry.stage in UNTRAINED
    chance = "features-at-chance" if untrained else "at-chance"
    yield from at_chance(float(test["value"]), classes, int(test["n"]), "test", chance)
    yield from loss_flags(_losses(entry, chosen), classes)
    if decided is None:
        return
    if selection == "validation":
        again = not untrained and entry.settings.get("purpose") != "fixed"
        yield from refit_flags(
            test=float(test["value"]), images=int(test["n"]),
            validation=float(decided["value"]), held=int(decided["n"]), classes=classes,
            trained_again=again, losses=_last_losses(entry, chosen, test, classes) if again else None,
        )  # fmt: skip
    for name, tried in _grid(entry, chosen).items():
        yield from edge_flags(name, float(chosen[name]), tried, float(decided["value"]), last=LAST.get(name))


def _classes(entry: Entry) -> int:
    """How many classes a transfer tells apart: those of its dataset, or where that is gone, of the images predicted."""
    for role in ("dataset", "features", "final0"):
        path = entry.path.parent.parent / entry.inputs.get(role, "none")
        if role in entry.inputs and finished(path):
            made = open_entry(path)
            return len(made.facts().get("classes", [])) or _classes(made)
    return len(pq.read_table(entry.file(PREDICTIONS), columns=["label"])["label"].unique())


def _is_diverged(entry: Entry, chosen: dict[str, Any]) -> bool:
    """Whether the training behind what a transfer reports came to a loss that was not finite."""
    if entry.stage in UNTRAINED:
        return False
    trained = _finals(entry) if entry.stage == "selecting" else [entry]
    some = [one for one in trained if "diverged" in one.facts()]
    return any(run.is_diverged and run.hyperparameters == chosen for one in some for run in runs_in(one))


def _finals(entry: Entry) -> list[Entry]:
    """The final runs that a selecting entry chose from, as far as they are still there."""
    roles = (role for role in entry.inputs if role.startswith("final"))
    return [entry.input(role) for role in roles if finished(entry.path.parent.parent / entry.inputs[role])]


def _losses(entry: Entry, chosen: dict[str, Any]) -> list[Loss]:
    """The losses of the full-network training behind a transfer; none for linear heads, which train many at once."""
    if entry.stage == "selecting":
        finals = (entry.input(role) for role in entry.inputs if role.startswith("final"))
        entry = next((one for one in finals if one.facts().get("learning_rate") == chosen["learning_rate"]), entry)
    return _course(entry) if entry.stage == "finetuning" else []


def _course(entry: Entry) -> list[Loss]:
    """The loss of every epoch of a training; of linear heads that of the best head; empty where none were recorded."""
    if EPOCHS not in entry.card()["files"]:
        return []
    with open(entry.file(EPOCHS), newline="") as file:
        return [Loss(float(row["loss"])) for row in csv.DictReader(file)]


def _last_losses(entry: Entry, chosen: dict[str, Any], test: pd.Series[Any], classes: int) -> LastLosses | None:
    """How the search run that was chosen and the refit that was tested ended; None where either is not known.

    `test` is the refit's row of the results table. Linear heads that are trained at once left the loss of the best one.
    It stands for the chosen one too, unless this is right on far fewer test images than another of them.
    """
    search = _run_of(entry, "search", chosen)
    refit = entry if entry.stage == "finetuning" else _run_of(entry, "final", chosen)
    if search is None or refit is None:
        return None
    images, metric = int(test["n"]), str(test["metric"])
    if refit.stage == "linear_heads":
        best = max(run.accuracy(metric) for run in runs_in(refit))
        if fell(to=float(test["value"]), images=images, before=best, held=images, classes=classes):
            return None
    searched, refitted = _course(search), _course(refit)
    return LastLosses(searched[-1].loss, refitted[-1].loss) if searched and refitted else None


def _run_of(entry: Entry, purpose: str, chosen: dict[str, Any]) -> Entry | None:
    """The input `<purpose>0`, `<purpose>1`, … that trained with the hyperparameters chosen; None if it is gone."""
    store = entry.path.parent.parent
    made = [store / name for role, name in entry.inputs.items() if role.startswith(purpose)]
    entries = (open_entry(path) for path in made if finished(path))
    return next((one for one in entries if any(run.hyperparameters == chosen for run in runs_in(one))), None)


def _grid(entry: Entry, chosen: dict[str, Any]) -> dict[str, set[float]]:
    """The values tried of every hyperparameter that was chosen."""
    if entry.stage == "selecting":
        with open(entry.file("runs.csv"), newline="") as file:
            runs = list(csv.DictReader(file))
        return {name: {float(run[name]) for run in runs} for name in chosen if name in runs[0]}
    settings = {name: entry.settings.get(grid, []) for name, grid in GRIDS.items() if name in chosen}
    return {name: set(map(float, tried)) for name, tried in settings.items()}
