"""Stage results: every measured number of an experiment in one table, costs and trainings in others, and its flags.

    python -m robust_transfer results results/<name>/experiment.json \
        --results <parquet> --timings <parquet> --training <parquet> --flags <csv>

Reads `metrics.json`, `predictions.parquet`, `epochs.csv`, `timing.json` and `card.json` of the experiment's entries;
writes `results.parquet` (columns in `tables/results.py`), `timings.parquet`, and `training.parquet` and `flags.csv`
(columns in `tables/training.py`). Beside the rows that entries measured the results hold two kinds of summary:

- means over seeds (`seeds.py`): `backbone_seed` or `transfer_seed` is null;
- chosen rows, per target, mode, variant and selection: `eps` best-robust is the robust eps with the highest validation
  accuracy (selection `test`: test accuracy), `arch` best the architecture; the value is its test accuracy. They are
  chosen among networks of the same seeds of pretraining (`statistics/comparable.py`). Their
  difference to the standard network of the same choice is a row of its own, whose metric ends in `_difference`
  (intervals: `statistics/selection.py`). A choice on test images has no interval; a row whose metric ends in
  `_out_of_bag` says what it is worth on images that it did not see.

One core of an AMD EPYC takes 15 s for 1,456 runs on 3,000 test and 3,000 validation images, with 250 MB.
"""

from __future__ import annotations

import functools
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from robust_transfer.configuration.eps import eps_value
from robust_transfer.statistics.candidates import Candidate, TransferRun
from robust_transfer.statistics.comparable import comparable
from robust_transfer.statistics.intervals import exact_interval
from robust_transfer.statistics.metrics import effective_images
from robust_transfer.statistics.predictions import Predictions
from robust_transfer.statistics.selection import Bootstrap, Interval, Pick
from robust_transfer.store.entry import TIMING, Entry, StoreError, open_entry, renewing
from robust_transfer.store.finished import entry_name
from robust_transfer.store.predictions import PREDICTIONS, read_predictions
from robust_transfer.tables.errors import TableError
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.flags import joined
from robust_transfer.tables.key import BEST_ARCH, BEST_ROBUST, Measurement, MeasurementKey, canonical
from robust_transfer.tables.parquet import TableFormat
from robust_transfer.tables.results import DIFFERENCE, OUT_OF_BAG, RESULTS, write_results
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

UNCHOSEN = ("source", "cue-conflict", "gallery")
"""Modes of numbers by which no network is chosen."""

Record = dict[str, Any]
"""A row of the results table: a value for each column."""


def collect(experiment_json: Path, store: Path, *, results: Path, timings: Path, training: Path, flags: Path) -> None:
    """Gather the entries that `experiment_json` lists from `store` into three tables and a list of sanity flags.

    Raises StoreError for an entry that is missing, unfinished or altered, TableError for two numbers with one key or
    metrics that contradict their predictions, SelectionError for runs that cannot be compared.
    """
    described = json.loads(experiment_json.read_text())
    measurements = [Measurement.from_json(listed) for listed in described.pop("entries")]
    costs = described.pop("costs")
    info = ExperimentInfo.from_json(described)
    measured = _clean_once(
        RESULTS.frame(
            record for one in measurements for record in _measured(info.experiment, one, open_entry(store / one.entry))
        )
    )
    backbones = {one.backbone: one for one in measurements}
    opened = {name: open_entry(store / name) for name in backbones}
    trained = [epoch_rows(one, opened[name]) for name, one in backbones.items()]
    epochs = pd.concat([TRAINING.frame([]), *trained])
    recorded = [Raised(cost, flag) for cost in costs for flag in recorded_flags(store / cost)]
    raised = not_overruled(recorded, measured, store)
    raised += flags_of_trainings(epochs, store)
    raised += flags_of_evaluations(measured, epochs, store)
    raised += flags_of_transfers(measured, info, store)
    measured["flags"] = flags_by_row(measured, raised)
    trainings = {name: training_of(entry) for name, entry in opened.items()}
    measured["training"] = measured["backbone"].map(trainings).astype("string")
    rows = pd.concat([measured, seed_means(measured), RESULTS.frame(_chosen_rows(info, measurements, measured, store))])
    write_results(results, rows, described)
    TIMINGS.write(timings, TIMINGS.frame(_cost(store / cost) for cost in costs))
    TRAINING.write(training, epochs, described)
    write_flags(flags, as_flags(raised))
    log.info("%s: %d numbers from %d entries, %d flags", results, len(rows), len(measurements), len(raised))


def _measured(experiment: str, measurement: Measurement, entry: Entry) -> list[Record]:
    """The rows of one entry's `metrics.json`."""
    numbers = json.loads(entry.file("metrics.json").read_text())
    code = entry.card()["code"]

    @functools.cache
    def predictions(selection: str | None) -> dict[str, Predictions]:
        return read_predictions(entry, selection) if PREDICTIONS in entry.card()["files"] else {}

    return [
        {
            **_shared(experiment, _key_of(measurement.key, number)),
            **{name: number[name] for name in ("split", "selection", "metric", "value", "n")},
            **_interval(number, predictions),
            "attack": None if number["attack"] is None else canonical(number["attack"]),
            "hyperparameters": canonical(number["hyperparameters"]),
            "backbone": measurement.backbone,
            "entry": measurement.entry,
            "code": code,
        }
        for number in numbers
    ]


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


def _shared(experiment: str, key: MeasurementKey) -> Record:
    """The columns that all numbers of one key share."""
    radius = None if key.eps == BEST_ROBUST else eps_value(key.eps)
    return {"experiment": experiment, **asdict(key), "eps_value": radius}


def _clean_once(rows: pd.DataFrame) -> pd.DataFrame:
    """Of a backbone that was attacked in two norms, each beside its clean accuracy, keep that accuracy once."""
    on_source = rows[rows["mode"] == "source"]
    first = on_source.groupby(["backbone", "variant"])["entry"].transform("first")
    again = on_source["attack"].isna() & (on_source["entry"] != first)
    return rows.drop(index=on_source.index[again])


def _chosen_rows(
    info: ExperimentInfo, measurements: Iterable[Measurement], measured: pd.DataFrame, store: Path
) -> Iterator[Record]:
    """The chosen rows of every target, mode, variant and selection."""
    comparisons: dict[MeasurementKey, list[Measurement]] = defaultdict(list)
    for one in measurements:
        if one.key.mode not in UNCHOSEN:
            comparisons[one.key.of_choice(arch=BEST_ARCH, norm="", eps=BEST_ROBUST)].append(one)
    by_entry = dict(list(measured.groupby("entry")))
    for key, members in comparisons.items():
        # Predictions are read one comparison at a time: those of a whole experiment need not fit into memory.
        selections = pd.concat([by_entry[one.entry]["selection"] for one in members]).unique()
        for selection in (None if pd.isna(one) else str(one) for one in selections):
            runs = [_run(one, open_entry(store / one.entry), by_entry[one.entry], selection) for one in members]
            for row in _chosen(info, key, list(zip(members, runs, strict=True)), selection):
                flags = _flags_of_choice(row, members, by_entry, selection)
                yield {**row, "flags": flags, "training": _training_of_choice(row, members, by_entry)}


def _flags_of_choice(
    row: Record, members: Iterable[Measurement], by_entry: Mapping[Any, pd.DataFrame], selection: str | None
) -> str | None:
    """The flags of every run of the network that was chosen, and for a difference of the standard one beside it."""
    says = json.loads(row["hyperparameters"])
    networks = {(says["arch"], row["norm"], says["eps"]), (says.get("standard_arch"), "none", "0")}
    parts = [by_entry[one.entry] for one in members if (one.key.arch, one.key.norm, one.key.eps) in networks]
    flags = [numbers["flags"][(numbers["selection"] == selection) | numbers["selection"].isna()] for numbers in parts]
    return joined(pd.concat(flags))


def _training_of_choice(
    row: Record, members: Iterable[Measurement], by_entry: Mapping[Any, pd.DataFrame]
) -> str | None:
    """How the network that was chosen was trained; None for a difference, which is between two."""
    says = json.loads(row["hyperparameters"])
    network = (says["arch"], row["norm"], says["eps"])
    chosen = [by_entry[one.entry] for one in members if (one.key.arch, one.key.norm, one.key.eps) == network]
    found = {text for numbers in chosen for text in numbers["training"].dropna()}
    return found.pop() if len(found) == 1 and "standard_arch" not in says else None


def _run(measurement: Measurement, entry: Entry, numbers: pd.DataFrame, selection: str | None) -> TransferRun:
    """An entry's predictions under one selection, checked against the accuracy it reports there."""
    splits = read_predictions(entry, selection)
    chosen_so = numbers["selection"].isna() if selection is None else numbers["selection"] == selection
    reported = numbers[chosen_so & (numbers["metric"] == "top1") & numbers["split"].isin(list(splits))]
    for split, value in reported[["split", "value"]].itertuples(index=False, name=None):
        found = 100 * float(splits[split].correct.mean())
        if abs(found - value) > 0.01:
            raise TableError(
                f"{entry.path}: metrics.json says {split} top1 = {value:.2f}, predictions.parquet says {found:.2f}; "
                f"{renewing(entry.path)}"
            )
    key = measurement.key
    return TransferRun(
        measurement.entry, measurement.backbone, key.backbone_seed, key.transfer_seed, splits, str(entry.path)
    )


def _chosen(
    info: ExperimentInfo,
    key: MeasurementKey,
    members: Sequence[tuple[Measurement, TransferRun]],
    selection: str | None,
) -> list[Record]:
    """The chosen rows of runs that are compared with each other: best robust, best standard, and their differences.

    `key` is what the runs share.
    """
    metric = info.metrics[key.target]
    every = _candidates(info, members)

    def bootstrap_of(candidates: list[Candidate]) -> Bootstrap:
        return Bootstrap(candidates, metric, info.bootstrap, selection or "validation")

    whole = bootstrap_of(every) if comparable(every) == every else None
    rows = []
    for arch in [*dict.fromkeys(candidate.arch for candidate in every), BEST_ARCH]:
        bootstrap = whole or bootstrap_of(comparable([one for one in every if arch in (one.arch, BEST_ARCH)]))
        rows += list(_choices(info, key, bootstrap, arch, metric))
    return rows


def _choices(
    info: ExperimentInfo, key: MeasurementKey, bootstrap: Bootstrap, arch: str, metric: str
) -> Iterator[Record]:
    """The chosen rows of one architecture, or with `best` of all."""
    candidates = bootstrap.candidates

    def chosen(pick: Pick, *, standard: Pick | None = None, **of: str) -> list[Record]:
        return _chosen_row_pair(_shared(info.experiment, key.of_choice(**of)), bootstrap, pick, metric, standard)

    inside = [i for i, candidate in enumerate(candidates) if arch in (candidate.arch, BEST_ARCH)]
    standard = [i for i in inside if candidates[i].eps == "0"]
    pick = bootstrap.pick(standard) if standard else None
    if pick and arch == BEST_ARCH:
        yield from chosen(pick, arch=arch, norm="none", eps="0")
    for norm in dict.fromkeys(candidates[i].norm for i in inside if candidates[i].eps != "0"):
        robust = [i for i in inside if candidates[i].norm == norm and candidates[i].eps != "0"]
        fixed = [i for i in robust if candidates[i].eps == info.fixed_eps.get(norm)]
        for eps, among in ((BEST_ROBUST, robust), (info.fixed_eps.get(norm, ""), fixed)):
            if not among:
                continue
            better = bootstrap.pick(among)
            if eps == BEST_ROBUST or arch == BEST_ARCH:  # one arch at one eps is there already, as measured
                yield from chosen(better, arch=arch, norm=norm, eps=eps)
            if pick:
                yield from chosen(better, standard=pick, arch=arch, norm=norm, eps=eps)


def _candidates(info: ExperimentInfo, members: Sequence[tuple[Measurement, TransferRun]]) -> list[Candidate]:
    """Runs by architecture and eps, in the order of architectures, then of growing eps."""
    runs: dict[tuple[str, str, str], list[TransferRun]] = defaultdict(list)
    for measurement, run in members:
        runs[measurement.key.arch, measurement.key.norm, measurement.key.eps].append(run)
    order = {arch: i for i, arch in enumerate(info.architectures)}
    keys = sorted(runs, key=lambda key: (order.get(key[0], len(order)), key[0], key[1], eps_value(key[2])))
    return [Candidate(*key, tuple(runs[key])) for key in keys]


def _chosen_row_pair(
    shared: Record, bootstrap: Bootstrap, pick: Pick, metric: str, standard: Pick | None
) -> list[Record]:
    """The row of a choice, or with `standard` of its paired difference to that one; and what it is worth on images
    that the choice did not see, where it was made on test images."""
    measured = bootstrap.difference(pick, standard) if standard else bootstrap.accuracy(pick)
    metric += DIFFERENCE if standard else ""
    rows = [_chosen_row(shared, bootstrap, pick, standard, metric, measured)]
    if honest := bootstrap.out_of_bag(pick, standard):
        rows.append(_chosen_row(shared, bootstrap, pick, standard, metric + OUT_OF_BAG, honest))
    return rows


def _chosen_row(
    shared: Record, bootstrap: Bootstrap, pick: Pick, standard: Pick | None, metric: str, measured: Interval
) -> Record:
    chosen = bootstrap.candidates[pick.picked[0]]
    seeds = sorted({run.backbone_seed for run in chosen.runs if run.backbone_seed is not None})
    says: dict[str, Any] = {"arch": chosen.arch, "eps": chosen.eps, "share_of_resamples": round(pick.share, 3)}
    says["backbone_seeds"] = seeds
    if standard:
        says["standard_arch"] = bootstrap.candidates[standard.picked[0]].arch
    only = chosen.runs[0] if len(chosen.runs) == 1 and not standard else None
    return {
        **shared,
        "attack": None,
        "split": "test",
        "selection": bootstrap.selection,
        "metric": metric,
        "value": measured.value,
        "ci_low": measured.low,
        "ci_high": measured.high,
        "ci_kind": measured.kind,
        "n": measured.n,
        "hyperparameters": canonical(says),
        "backbone": only.backbone if only else None,
        "entry": only.entry if only else None,
        "code": None,
    }


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
