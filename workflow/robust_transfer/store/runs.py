"""Finished transfer runs as their entries recorded them, and which of several is the best.

A run is one choice of hyperparameters, trained and measured. An entry of finetuning holds one, an entry of linear_heads
one for each point of its grid, told apart by `run`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from robust_transfer.store.entry import Entry
from robust_transfer.store.predictions import PREDICTIONS, selected


@dataclass(frozen=True)
class Run:
    """One run: its hyperparameters, its rows of `metrics.json`, and where its predictions lie."""

    hyperparameters: dict[str, Any]
    rows: list[dict[str, Any]]
    entry: Entry
    number: int
    """Among the runs of its entry."""
    is_diverged: bool = False
    """Its training came to a loss that was not finite, and what was measured guesses."""

    def accuracy(self, metric: str, eps: Collection[str] = ()) -> float:
        """In percent; `metric` is `top1` or `mean_per_class`.

        On images as they are, or the mean over these radii of the attack that the run was measured under; 0 are images
        as they are.
        """
        at = {(row.get("attack") or {}).get("eps", "0"): row["value"] for row in self.rows if row["metric"] == metric}
        return float(sum(at[radius] for radius in eps) / len(eps) if eps else at["0"])

    def rows_chosen_on(self, selection: str) -> list[dict[str, Any]]:
        """Its rows as the run that was chosen on that split's images."""
        return [
            {name: value for name, value in row.items() if name != "run"} | {"selection": selection}
            for row in self.rows
        ]

    def predictions(self, selection: str | None = None) -> pa.Table:
        """Its rows of `predictions.parquet`, marked with where the run was chosen, if that is given."""
        table = pq.read_table(self.entry.file(PREDICTIONS))
        if "run" in table.column_names:
            table = table.filter(pc.equal(table["run"], self.number)).drop_columns("run")
        return table if selection is None else selected(table, selection)


def runs_in(entry: Entry) -> list[Run]:
    """The runs that a finished entry holds, by number; raises StoreError where its files were altered."""
    by_number: dict[int, list[dict[str, Any]]] = {}
    for row in json.loads(entry.file("metrics.json").read_text()):
        by_number.setdefault(row.get("run", 0), []).append(row)
    diverged = _diverged(entry)
    return [
        Run(of, rows, entry, number, is_diverged=any(of.items() >= one.items() for one in diverged))
        for number, rows in by_number.items()
        for of in [rows[0]["hyperparameters"]]
    ]


def _diverged(entry: Entry) -> list[dict[str, Any]]:
    """Hyperparameters of the runs that diverged; cards were once written with their learning rates alone."""
    recorded = entry.facts().get("diverged", [])
    found = [one if isinstance(one, dict) else {"learning_rate": one} for one in recorded]
    return [{name: value for name, value in one.items() if name != "step"} for one in found]


def best(runs: Iterable[Run], metric: str, eps: Collection[str] = ()) -> Run:
    """The run of highest accuracy, under an attack of these radii if any are given.

    Of equal ones that of the smallest learning rate, then of the least weight decay. One that diverged is the best only
    where all did.
    """

    def order(run: Run) -> tuple[float, ...]:
        settings = run.hyperparameters
        return (
            run.is_diverged,
            -run.accuracy(metric, eps),
            settings.get("learning_rate", 0.0),
            settings.get("weight_decay", 0.0),
        )

    return min(runs, key=order)
