"""Selecting: of runs on one target that differ in hyperparameters alone, the best, on validation or on test images.

    python -m robust_transfer selecting store/selecting/<entry>

Reads its inputs `search0`, … (validation accuracies) and `final0`, … (test accuracies), which are runs of linear_heads
or of finetuning; a linear_heads run holds several. With selection `validation` the hyperparameters with the highest
validation accuracy are taken, and the final run at these is what is reported. With selection `test` the final run with
the highest test accuracy is, as the paper did: what it says of new images is too high by as much as the choice was
lucky.

Writes `metrics.json` and `predictions.parquet`, a part each selection, and `runs.csv` (all runs). Imports no torch.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from robust_transfer.configuration.transfer import SelectingSettings
from robust_transfer.store.entry import Entry, StoreError
from robust_transfer.store.predictions import PREDICTIONS, selected, write_predictions

log = logging.getLogger("robust_transfer")


@dataclass(frozen=True)
class Run:
    """One run: its hyperparameters, its rows of `metrics.json`, and where its predictions lie."""

    hyperparameters: dict[str, Any]
    rows: list[dict[str, Any]]
    entry: Entry
    number: int
    """Among the runs of its entry."""

    def accuracy(self, metric: str) -> float:
        """Percent."""
        return float(next(row["value"] for row in self.rows if row["metric"] == metric))

    def predictions(self, selection: str) -> pa.Table:
        """Its part of `predictions.parquet`, marked with where it was chosen."""
        table = pq.read_table(self.entry.file(PREDICTIONS))
        if "run" in table.column_names:
            table = table.filter(pc.equal(table["run"], self.number)).drop_columns("run")
        return selected(table, selection)


def run(entry: Entry, *, threads: int, device: str) -> None:
    """Select as `entry` describes."""
    settings = SelectingSettings.model_validate(entry.settings)
    with entry.writing() as draft:
        searches, finals = _runs(entry, "search"), _runs(entry, "final")
        rows: list[dict[str, Any]] = []
        tables: list[pa.Table] = []
        for selection in settings.selections:
            chosen = choose(searches, finals, selection, settings.metric, entry.path)
            for one in chosen:
                rows += [_row(row, selection) for row in one.rows]
                tables.append(one.predictions(selection))
            draft.facts[selection] = chosen[0].hyperparameters
            log.info(
                "chosen on %s: %s, test %.1f %%",
                selection,
                ", ".join(f"{name} {value}" for name, value in chosen[0].hyperparameters.items()),
                chosen[0].accuracy(settings.metric),
            )
        draft.write_json("metrics.json", rows)
        write_predictions(draft.file(PREDICTIONS), tables)
        _write_runs(draft.file("runs.csv"), searches, finals)


def choose(searches: Sequence[Run], finals: Sequence[Run], selection: str, metric: str, where: Path) -> list[Run]:
    """The final run that `selection` takes, and for `validation` the search run that decided; of equals, the smallest.

    Raises StoreError, which names `where`, if no final run has the hyperparameters of the best search run.
    """
    if selection == "test":
        return [min(finals, key=lambda run: _order(run, metric))]
    if not searches:
        raise StoreError(f"{where}: nothing to choose on validation images from: no input search0; write it again")
    best = min(searches, key=lambda run: _order(run, metric))
    for final in finals:
        if final.hyperparameters == best.hyperparameters:
            return [final, best]
    raise StoreError(
        f"{where}: no final run has {best.hyperparameters}, the best on validation images; write the entries again"
    )


def _order(run: Run, metric: str) -> tuple[float, ...]:
    """Sorts by falling accuracy, equals by growing learning rate, then weight decay."""
    return -run.accuracy(metric), *(run.hyperparameters.get(name, 0.0) for name in ("learning_rate", "weight_decay"))


def _runs(entry: Entry, purpose: str) -> list[Run]:
    """All runs of the inputs `<purpose>0`, `<purpose>1`, …, which must be that."""
    found: list[Run] = []
    for role in sorted((r for r in entry.inputs if r.startswith(purpose)), key=lambda r: int(r[len(purpose) :])):
        made = entry.input(role)
        if made.settings["purpose"] != purpose:
            raise StoreError(f"{entry.path}: input {role} is {made.path}, a {made.settings['purpose']} run")
        by_number: dict[int, list[dict[str, Any]]] = {}
        for row in json.loads(made.file("metrics.json").read_text()):
            by_number.setdefault(row.get("run", 0), []).append(row)
        found += [Run(rows[0]["hyperparameters"], rows, made, number) for number, rows in by_number.items()]
    return found


def _row(row: dict[str, Any], selection: str) -> dict[str, Any]:
    """A run's row as the table wants it."""
    return {name: value for name, value in row.items() if name != "run"} | {"selection": selection}


def _write_runs(path: Path, searches: Sequence[Run], finals: Sequence[Run]) -> None:
    """Write every run's accuracies as CSV."""
    names = list(dict.fromkeys(name for one in (*searches, *finals) for name in one.hyperparameters))
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, "split", "top1", "mean_per_class"])
        for one in (*searches, *finals):
            values = [one.hyperparameters.get(name) for name in names]
            accuracies = [one.accuracy(metric) for metric in ("top1", "mean_per_class")]
            writer.writerow([*values, one.rows[0]["split"], *accuracies])
