"""Selecting: of runs on one target that differ in hyperparameters alone, the best, on validation or on test images.

    python -m robust_transfer selecting store/selecting/<entry>

Reads its inputs `search0`, … (validation accuracies) and `final0`, … (test accuracies), which are runs of linear_heads
or of finetuning; a linear_heads run holds several. With selection `validation` the hyperparameters with the highest
validation accuracy (with `chosen_at` under an attack, the mean over its radii) are taken, and the final run at these is
what is reported. With selection `test` the final run with
the highest test accuracy is, as the paper did: what it says of new images is too high by as much as the choice was
lucky. A run that diverged is taken only where all did.

Writes `metrics.json` and `predictions.parquet`, a part each selection, and `runs.csv` (all runs, with the column
`diverged`: yes or no). Imports no torch.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from robust_transfer.configuration.transfer import SelectingSettings
from robust_transfer.store.entry import Entry, StoreError
from robust_transfer.store.predictions import PREDICTIONS, write_predictions
from robust_transfer.store.runs import Run, best, runs_in

log = logging.getLogger("robust_transfer")


def run(entry: Entry, *, threads: int, device: str) -> None:
    """Select as `entry` describes."""
    settings = SelectingSettings.model_validate(entry.settings)
    with entry.writing() as draft:
        searches, finals = _runs(entry, "search"), _runs(entry, "final")
        rows: list[dict[str, Any]] = []
        tables: list[pa.Table] = []
        for selection in settings.selections:
            chosen = choose(searches, finals, selection, settings, entry.path)
            for one in chosen:
                rows += one.rows_chosen_on(selection)
                tables.append(one.predictions(selection))
            draft.facts[selection] = chosen[0].hyperparameters
            if chosen[0].is_diverged:
                log.warning("chosen on %s: the run that is reported diverged, and guesses", selection)
            log.info(
                "chosen on %s: %s, test %.1f %%",
                selection,
                ", ".join(f"{name} {value}" for name, value in chosen[0].hyperparameters.items()),
                chosen[0].accuracy(settings.metric),
            )
        draft.write_json("metrics.json", rows)
        write_predictions(draft.file(PREDICTIONS), tables)
        _write_runs(draft.file("runs.csv"), searches, finals)


def choose(
    searches: Sequence[Run], finals: Sequence[Run], selection: str, settings: SelectingSettings, where: Path
) -> list[Run]:
    """The final run that `selection` takes, and for `validation` the search run that decided; of equal
    ones, that of the smallest learning rate.

    Raises StoreError, which names `where`, if no final run has the hyperparameters of the best search run.
    """
    if selection == "test":
        return [best(finals, settings.metric)]
    if not searches:
        raise StoreError(f"{where}: nothing to choose on validation images from: no input search0; write it again")
    decisive = best(searches, settings.metric, settings.chosen_at)
    for final in finals:
        if final.hyperparameters == decisive.hyperparameters:
            return [final, decisive]
    raise StoreError(
        f"{where}: no final run has {decisive.hyperparameters}, the best on validation images; write the entries again"
    )


def _runs(entry: Entry, purpose: str) -> list[Run]:
    """All runs of the inputs `<purpose>0`, `<purpose>1`, …, which must be that."""
    runs: list[Run] = []
    for role in sorted((r for r in entry.inputs if r.startswith(purpose)), key=lambda r: int(r[len(purpose) :])):
        made = entry.input(role)
        if made.settings["purpose"] != purpose:
            raise StoreError(f"{entry.path}: input {role} is {made.path}, a {made.settings['purpose']} run")
        runs += runs_in(made)
    return runs


def _write_runs(path: Path, searches: Sequence[Run], finals: Sequence[Run]) -> None:
    """Write every run's accuracies as CSV."""
    names = list(dict.fromkeys(name for one in (*searches, *finals) for name in one.hyperparameters))
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, "split", "top1", "mean_per_class", "diverged"])
        for one in (*searches, *finals):
            values = [one.hyperparameters.get(name) for name in names]
            accuracies = [one.accuracy(metric) for metric in ("top1", "mean_per_class")]
            writer.writerow([*values, one.rows[0]["split"], *accuracies, "yes" if one.is_diverged else "no"])
