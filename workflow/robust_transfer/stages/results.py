"""Stage results: every measured number of an experiment in one table, costs and trainings in others, and its flags.

    python -m robust_transfer results results/<name>/experiment.json \
        --results <parquet> --timings <parquet> --training <parquet> --backbones <csv> --flags <csv>

Reads `metrics.json`, `predictions.parquet`, `epochs.csv`, `timing.json` and `card.json` of the experiment's entries;
writes `results.parquet` (columns in `tables/results.py`), `timings.parquet`, `backbones.csv` (`tables/backbones.py`),
and `training.parquet` and `flags.csv` (columns in `tables/training.py`). Beside the rows that entries measured the
results hold two kinds of summary:

- means over seeds (`seeds.py`): `backbone_seed` or `transfer_seed` is null;
- chosen rows (`tables/chosen.py`), per target, mode, variant and selection: `eps` best-robust is the robust eps with
  the highest validation accuracy (selection `test`: test accuracy), `arch` best the architecture; the value is its
  test accuracy. They are chosen among networks of the same seeds of pretraining (`statistics/comparable.py`). Their
  difference to the standard network of the same choice is a row of its own, whose metric ends in `_difference`
  (intervals: `statistics/selection.py`). A choice on test images has no interval; a row whose metric ends in
  `_out_of_bag` says what it is worth on images that it did not see. Under attacks on transferred models there are the
  same rows, of networks chosen on clean images, and the difference of every robust network to the standard one.

One core of an AMD EPYC takes 15 s for 1,456 runs on 3,000 test and 3,000 validation images, with 250 MB.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from robust_transfer.statistics.intervals import exact_interval
from robust_transfer.statistics.metrics import effective_images
from robust_transfer.statistics.predictions import Predictions
from robust_transfer.store.entry import TIMING, Entry, StoreError, open_entry, renewing
from robust_transfer.store.finished import entry_name
from robust_transfer.store.predictions import PREDICTIONS, read_predictions
from robust_transfer.tables.backbones import write_backbones
from robust_transfer.tables.chosen import Numbers, Record, chosen_rows, chosen_rows_under_attack, shared_columns
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.key import Measurement, MeasurementKey, canonical
from robust_transfer.tables.parquet import TableFormat
from robust_transfer.tables.results import RESULTS, as_results, write_results
from robust_transfer.tables.seeds import seed_means
from robust_transfer.tables.training import TRAINING, write_flags
from robust_transfer.tables.training_records import (
    Raised,
    as_flags,
    epoch_rows,
    flags_by_row,
    flags_of_evaluations,
    flags_of_trainings,
    not_overruled,
    recorded_flags,
    training_of,
)
from robust_transfer.tables.transfer_records import flags_of_transfers

log = logging.getLogger("robust_transfer")

TIMINGS = TableFormat(
    "table of costs",
    pa.schema(
        [
            ("entry", pa.string()),
            ("stage", pa.string()),
            ("seconds", pa.float64()),
            ("images", pa.int64()),
            ("images_per_second", pa.float64()),
            ("peak_memory_mb", pa.float64()),
            ("device", pa.string()),
            ("threads", pa.int32()),
            ("details", pa.string()),  # JSON of whatever else the stage recorded
        ]
    ),
    nullable=frozenset(("seconds", "images", "images_per_second", "peak_memory_mb", "device", "threads")),
)


def collect(
    experiment_json: Path, store: Path, *, results: Path, timings: Path, training: Path, backbones: Path, flags: Path
) -> None:
    """Gather the entries that `experiment_json` lists from `store` into four tables and a list of sanity flags.

    Raises StoreError for an entry that is missing, unfinished or altered, TableError for two numbers with one key or
    metrics that contradict their predictions, SelectionError for runs that cannot be compared.
    """
    described = json.loads(experiment_json.read_text())
    measurements = [Measurement.from_json(listed) for listed in described.pop("entries")]
    costs = described.pop("costs")
    info = ExperimentInfo.from_json(described)
    records = [(one, _measured(info.experiment, one, open_entry(store / one.entry))) for one in measurements]
    measured = _clean_once(RESULTS.frame(record for _, of_one in records for record in of_one))
    models = _models(records).loc[measured.index]
    by_backbone = {one.backbone: one for one in measurements}
    opened = {name: open_entry(store / name) for name in by_backbone}
    trained = [epoch_rows(one, opened[name]) for name, one in by_backbone.items()]
    epochs = pd.concat([TRAINING.frame([]), *trained])
    recorded = [Raised(cost, flag) for cost in costs for flag in recorded_flags(store / cost)]
    raised = not_overruled(recorded, measured, store)
    raised += flags_of_trainings(epochs, store)
    raised += flags_of_evaluations(measured, epochs, store)
    raised += flags_of_transfers(measured, info, store)
    transfers = measured["entry"].where(models.isna(), models)  # the flags of an attacked model are its transfer's
    measured["flags"] = flags_by_row(measured.assign(entry=transfers), raised)
    trainings = {name: training_of(entry) for name, entry in opened.items()}
    measured["training"] = measured["backbone"].map(trainings).astype("string")
    numbers = Numbers(measured, models)
    chosen = [
        *chosen_rows(info, measurements, numbers, store),
        *chosen_rows_under_attack(info, measurements, numbers, store),
    ]
    rows = pd.concat([measured, seed_means(measured), RESULTS.frame(chosen)])
    write_results(results, rows, described)
    TIMINGS.write(timings, TIMINGS.frame(_cost(store / cost) for cost in costs))
    TRAINING.write(training, epochs, described)
    write_backbones(backbones, as_results(rows, info))
    write_flags(flags, as_flags(raised))
    log.info("%s: %d numbers from %d entries, %d flags", results, len(rows), len(measurements), len(raised))


def _measured(experiment: str, measurement: Measurement, entry: Entry) -> list[Record]:
    """The rows of one entry's `metrics.json`; of an entry that attacks several models those of one."""
    numbers = json.loads(entry.file("metrics.json").read_text())
    code = entry.card()["code"]

    @functools.cache
    def predictions(selection: str | None) -> dict[str, Predictions]:
        return read_predictions(entry, selection) if PREDICTIONS in entry.card()["files"] else {}

    return [
        {
            **shared_columns(experiment, _key_of(measurement.key, number)),
            **{name: number[name] for name in ("split", "selection", "metric", "value", "n")},
            **_interval(number, predictions),
            "attack": None if number["attack"] is None else canonical(number["attack"]),
            "test_set": number.get("test_set"),
            "hyperparameters": canonical(number["hyperparameters"]),
            "backbone": measurement.backbone,
            "entry": measurement.entry,
            "code": code,
        }
        for number in numbers
        if number.get("model") == measurement.model
    ]


def _models(records: Sequence[tuple[Measurement, Sequence[Record]]]) -> pd.Series[Any]:
    """The transfer whose model each record is of; null for those that are not of attacked models."""
    return pd.Series([one.model for one, of_one in records for _ in of_one], dtype="string")


def _key_of(key: MeasurementKey, number: Record) -> MeasurementKey:
    """The key of one number of an entry, whose `variant` may say more than that of the entry."""
    if not number.get("variant"):
        return key
    return replace(key, variant=canonical({**json.loads(key.variant), **number["variant"]}))


def _interval(number: Record, predictions: Callable[[str | None], dict[str, Predictions]]) -> Record:
    """The interval of a single accuracy, over images.

    An entry made before `effective_n` was recorded has it from its predictions, or takes the number of images for it.
    """
    if "interval" in number:  # of no binomial share: what measured it has made the interval too
        low, high = number["interval"]
        return {"ci_low": low, "ci_high": high, "ci_kind": "images"}
    effective = number.get("effective_n")
    if effective is None:
        split = predictions(number["selection"]).get(number["split"])
        effective = number["n"] if split is None else effective_images(split.correct, split.labels, number["metric"])
    low, high = exact_interval(number["value"], effective)
    return {"ci_low": low, "ci_high": high, "ci_kind": "images"}


def _clean_once(rows: pd.DataFrame) -> pd.DataFrame:
    """Of a backbone that was attacked in two norms, each beside its clean accuracy, keep that accuracy once."""
    on_source = rows[rows["mode"] == "source"]
    first = on_source.groupby(["backbone", "variant"])["entry"].transform("first")
    again = on_source["attack"].isna() & (on_source["entry"] != first)
    return rows.drop(index=on_source.index[again])


def _cost(path: Path) -> dict[str, Any]:
    """One entry's `timing.json` as a row of the second table."""
    try:
        timing = json.loads((path / TIMING).read_text())
    except FileNotFoundError:
        raise StoreError(f"{path / TIMING}: missing; {renewing(path)}") from None
    known = {name: timing.pop(name, None) for name in TIMINGS.columns if name not in ("entry", "stage", "details")}
    return {
        "entry": entry_name(path),
        "stage": path.parent.name,
        **known,
        "details": canonical(timing),
    }
