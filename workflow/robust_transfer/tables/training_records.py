"""What trainings left in the store beside their weights: one row per epoch, and the flags of every entry.

Entries made before a column or a flag was recorded lack it: it is not known there, which is no error.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from robust_transfer.store.entry import CARD, TIMING, Entry, StoreError, read_json
from robust_transfer.tables.results import Row
from robust_transfer.tables.sanity import evaluation_flags, published_flags
from robust_transfer.tables.training import Backbone, EpochRow, FlagRow

EPOCHS = "epochs.csv"


def epoch_rows(backbone: Backbone, entry: Entry) -> list[EpochRow]:
    """What each epoch of a backbone came to; none for one that was not trained here.

    Raises StoreError for an altered `epochs.csv`, or one without a column that there always was.
    """
    if EPOCHS not in entry.card()["files"]:
        return []
    costs = {int(cost["epoch"]): cost for cost in _timing(entry.path).get("epochs", [])}
    rows = []
    with open(entry.file(EPOCHS), newline="") as file:
        for line in csv.DictReader(file):
            try:
                epoch = int(line["epoch"])
                side = _number(line, "side")
                rows.append(
                    EpochRow(
                        **vars(backbone),
                        epoch=epoch,
                        side=None if side is None else int(side),
                        loss=float(line["loss"]),
                        train_accuracy=float(line["train_accuracy"]),
                        clean_accuracy=_number(line, "clean_accuracy"),
                        robust_accuracy=_number(line, "robust_accuracy"),
                        learning_rate=float(line["learning_rate"]),
                        images_per_second=_number(costs.get(epoch, {}), "images_per_second"),
                        seconds=_number(costs.get(epoch, {}), "seconds"),
                        peak_memory_mb=_number(costs.get(epoch, {}), "peak_memory_mb"),
                    )
                )
            except (KeyError, TypeError, ValueError) as error:
                raise StoreError(
                    f"{entry.path / EPOCHS}: row {len(rows) + 1} is not one of a training ({error!r}); "
                    f"move {entry.path} aside and make it again"
                ) from None
    return rows


def recorded_flags(path: Path) -> list[FlagRow]:
    """The flags that an entry's own stage raised, from its card and its `timing.json`."""
    recorded = [*_card(path).get("facts", {}).get("flags", []), *_timing(path).get("flags", [])]
    name, stage = f"{path.parent.name}/{path.name}", path.parent.name
    return [FlagRow(name, stage, str(flag["flag"]), str(flag["message"])) for flag in recorded]


def flags_of_evaluations(rows: Iterable[Row], epochs: Sequence[EpochRow], store: Path) -> list[FlagRow]:
    """The flags that a backbone's test accuracies raise, beside those of its training: a flag that both raise is one.

    `rows` are those that evaluations measured, `epochs` those of their backbones.
    """
    checked = {row.entry: row.robust_accuracy for row in epochs if row.robust_accuracy is not None}  # the last stays
    by_entry: dict[str, list[Row]] = {}
    for row in rows:
        if row.entry and row.mode == "source" and row.metric == "top1" and row.split == "test":
            by_entry.setdefault(row.entry, []).append(row)
    found = []
    for name, measured in by_entry.items():
        clean = next((row for row in measured if row.attack is None), None)
        if clean is None or clean.backbone is None:
            continue
        own = next((row.value for row in measured if _is_own(row)), None)
        backbone = store / clean.backbone
        facts = _card(backbone).get("facts", {})
        flags = evaluation_flags(
            classes=len(facts.get("classes", [])),
            images=clean.n,
            clean=clean.value,
            robust=own,
            train_robust=checked.get(clean.backbone),
        )
        flags += published_flags(clean.value, clean.n, facts.get("published_top1"))
        raised = {flag.flag for flag in recorded_flags(backbone)}
        stage = name.partition("/")[0]
        found += [FlagRow(name, stage, flag.flag, flag.message) for flag in flags if flag.flag not in raised]
    return found


def _is_own(row: Row) -> bool:
    """Accuracy under PGD at the backbone's own norm and eps."""
    attack = json.loads(row.attack) if row.attack else {"kind": "none"}
    return "kind" not in attack and (attack["norm"], attack["eps"]) == (row.norm, row.eps)


def _card(path: Path) -> dict[str, Any]:
    card: dict[str, Any] = read_json(path / CARD)
    return card


def _timing(path: Path) -> dict[str, Any]:
    timing: dict[str, Any] = read_json(path / TIMING)
    return timing


def _number(of: dict[str, Any], name: str) -> float | None:
    """A number that may be missing or empty."""
    value = of.get(name)
    return None if value in (None, "") else float(value)
