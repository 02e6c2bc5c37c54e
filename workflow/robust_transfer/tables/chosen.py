"""Chosen rows of the results table: best robust, best standard, and their differences, on clean or attacked images.

Networks are always chosen by clean accuracy, on validation or test images: an attack is met by the network that would
have been taken without knowing of it. Intervals: `statistics/selection.py`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from robust_transfer.configuration.eps import eps_value
from robust_transfer.statistics.candidates import Candidate, TransferRun
from robust_transfer.statistics.comparable import comparable
from robust_transfer.statistics.predictions import Predictions
from robust_transfer.statistics.selection import Bootstrap, Interval, Pick
from robust_transfer.store.attacked import ATTACKED, read_attacked
from robust_transfer.store.entry import Entry, open_entry, renewing
from robust_transfer.store.predictions import PREDICTIONS, read_predictions
from robust_transfer.tables.errors import TableError
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.flags import joined
from robust_transfer.tables.key import BEST_ARCH, BEST_ROBUST, Measurement, MeasurementKey, canonical
from robust_transfer.tables.results import DIFFERENCE, KEY, OUT_OF_BAG

UNCHOSEN = ("source", "cue-conflict", "gallery")
"""Modes of numbers by which no network is chosen."""

Record = dict[str, Any]
"""A row of the results table: a value for each column."""
Members = Sequence[tuple[Measurement, TransferRun]]


class Numbers:
    """The rows that entries measured, by measurement."""

    def __init__(self, measured: pd.DataFrame, models: pd.Series[Any]) -> None:
        """`measured` are rows of the results table, `models` the transfer whose model each is of, null for others."""
        own = measured[models.isna()]
        self._by_entry = dict(list(own.groupby("entry")))
        attacked = measured[models.notna()]
        self._by_model = dict(list(attacked.groupby([attacked["entry"], models[models.notna()]])))

    def of(self, measurement: Measurement) -> pd.DataFrame:
        """Those of one measurement."""
        if measurement.model is None:
            return self._by_entry[measurement.entry]
        return self._by_model[measurement.entry, measurement.model]


def shared_columns(experiment: str, key: MeasurementKey) -> Record:
    """The columns that all numbers of one key share."""
    radius = None if key.eps == BEST_ROBUST else eps_value(key.eps)
    return {"experiment": experiment, **asdict(key), "eps_value": radius}


def chosen_rows(
    info: ExperimentInfo, measurements: Iterable[Measurement], numbers: Numbers, store: Path
) -> Iterator[Record]:
    """The chosen rows of every target, mode, variant and selection, on clean images."""
    for key, members in _comparisons(one for one in measurements if one.model is None).items():
        # Predictions are read one comparison at a time: those of a whole experiment need not fit into memory.
        for selection in _selections(members, numbers):
            runs = [_run(one, open_entry(store / one.entry), numbers.of(one), selection) for one in members]
            rows = _chosen(info, key, list(zip(members, runs, strict=True)), selection, attack=None)
            yield from _with_what_is_behind(rows, members, numbers, selection)


def chosen_rows_under_attack(
    info: ExperimentInfo, measurements: Sequence[Measurement], numbers: Numbers, store: Path
) -> Iterator[Record]:
    """The same under every attack on transferred models, and the difference of each robust network to the standard one
    of its architecture.

    Where networks are chosen on test images only these differences are there: a choice on attacked images is none that
    anybody reports.
    """
    for key, members in _comparisons(one for one in measurements if one.stage == "robustness").items():
        for selection in _selections(members, numbers):
            of_members = [_attacked_runs(one, store, numbers.of(one), selection) for one in members]
            for attack in dict.fromkeys(attack for runs in of_members for attack in runs):
                there = [(one, runs[attack]) for one, runs in zip(members, of_members, strict=True) if attack in runs]
                rows = _chosen(info, key, there, selection, attack=attack) if selection != "test" else []
                known = {_key(row) for row in rows}
                rows += [row for row in _differences(info, key, there, selection, attack) if _key(row) not in known]
                yield from _with_what_is_behind(rows, [one for one, _ in there], numbers, selection)


def _comparisons(measurements: Iterable[Measurement]) -> dict[MeasurementKey, list[Measurement]]:
    """Measurements of transfers, by what those that are compared with each other share."""
    found: dict[MeasurementKey, list[Measurement]] = defaultdict(list)
    for one in measurements:
        if one.key.mode not in UNCHOSEN:
            found[one.key.of_choice(arch=BEST_ARCH, norm="", eps=BEST_ROBUST)].append(one)
    return found


def _selections(members: Iterable[Measurement], numbers: Numbers) -> list[str | None]:
    found = pd.concat([numbers.of(one)["selection"] for one in members]).unique()
    return [None if pd.isna(one) else str(one) for one in found]


def _with_what_is_behind(
    rows: Iterable[Record], members: Sequence[Measurement], numbers: Numbers, selection: str | None
) -> Iterator[Record]:
    for row in rows:
        flags = _flags_of_choice(row, members, numbers, selection)
        yield {**row, "flags": flags, "training": _training_of_choice(row, members, numbers)}


def _key(row: Record) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in KEY)


def _attacked_runs(
    measurement: Measurement, store: Path, numbers: pd.DataFrame, selection: str | None
) -> dict[str, TransferRun]:
    """By attack what a model's attacked images were taken for, beside the clean validation images that chose it."""
    assert measurement.model is not None
    entry, transfer = open_entry(store / measurement.entry), open_entry(store / measurement.model)
    chosen_on = {name: one for name, one in read_predictions(transfer, selection).items() if name == "validation"}
    found = {}
    for attack, attacked in read_attacked(entry, measurement.model).items():
        _check(entry, numbers[numbers["attack"] == attack], "test", attacked, ATTACKED)
        found[attack] = _transfer_run(measurement, entry, chosen_on | {"test": attacked})
    return found


def _differences(
    info: ExperimentInfo, key: MeasurementKey, members: Members, selection: str | None, attack: str
) -> Iterator[Record]:
    """Every robust network less the standard one of its architecture, paired over images."""
    every = _candidates(info, members)
    standard = {one.arch: one for one in every if one.eps == "0"}
    for robust in every:
        if robust.eps == "0" or robust.arch not in standard:
            continue
        pair = comparable([standard[robust.arch], robust])
        # Nothing is chosen between two, so that their validation images are not asked for.
        bootstrap = Bootstrap(pair, info.metrics[key.target], info.bootstrap, "test")
        of = key.of_choice(arch=robust.arch, norm=robust.norm, eps=robust.eps)
        shared = {**shared_columns(info.experiment, of), "attack": attack}
        one, other = bootstrap.pick([1]), bootstrap.pick([0])
        metric = info.metrics[key.target] + DIFFERENCE
        row = _chosen_row(shared, bootstrap, one, other, metric, bootstrap.difference(one, other))
        yield {**row, "selection": selection}


def _flags_of_choice(
    row: Record, members: Iterable[Measurement], numbers: Numbers, selection: str | None
) -> str | None:
    """The flags of every run of the network that was chosen, and for a difference of the standard one beside it."""
    says = json.loads(row["hyperparameters"])
    networks = {(says["arch"], row["norm"], says["eps"]), (says.get("standard_arch"), "none", "0")}
    parts = [numbers.of(one) for one in members if (one.key.arch, one.key.norm, one.key.eps) in networks]
    flags = [part["flags"][(part["selection"] == selection) | part["selection"].isna()] for part in parts]
    return joined(pd.concat(flags))


def _training_of_choice(row: Record, members: Iterable[Measurement], numbers: Numbers) -> str | None:
    """How the network that was chosen was trained; None for a difference, which is between two."""
    says = json.loads(row["hyperparameters"])
    network = (says["arch"], row["norm"], says["eps"])
    chosen = [numbers.of(one) for one in members if (one.key.arch, one.key.norm, one.key.eps) == network]
    found = {text for part in chosen for text in part["training"].dropna()}
    return found.pop() if len(found) == 1 and "standard_arch" not in says else None


def _run(measurement: Measurement, entry: Entry, numbers: pd.DataFrame, selection: str | None) -> TransferRun:
    """An entry's predictions under one selection, checked against the accuracy it reports there."""
    splits = read_predictions(entry, selection)
    chosen_so = numbers["selection"].isna() if selection is None else numbers["selection"] == selection
    for split, predictions in splits.items():
        _check(entry, numbers[chosen_so & numbers["attack"].isna()], split, predictions, PREDICTIONS)
    return _transfer_run(measurement, entry, splits)


def _check(entry: Entry, numbers: pd.DataFrame, split: str, predictions: Predictions, file: str) -> None:
    """Raise TableError unless the top-1 accuracies of a split are those of its predictions, which are in that file."""
    found = 100 * float(predictions.correct.mean())
    for value in numbers.loc[(numbers["metric"] == "top1") & (numbers["split"] == split), "value"]:
        if abs(found - value) > 0.01:
            raise TableError(
                f"{entry.path}: metrics.json says {split} top1 = {value:.2f}, {file} says {found:.2f}; "
                f"{renewing(entry.path)}"
            )


def _transfer_run(measurement: Measurement, entry: Entry, splits: dict[str, Predictions]) -> TransferRun:
    key = measurement.key
    return TransferRun(
        measurement.entry, measurement.backbone, key.backbone_seed, key.transfer_seed, splits, str(entry.path)
    )


def _chosen(
    info: ExperimentInfo,
    key: MeasurementKey,
    members: Members,
    selection: str | None,
    *,
    attack: str | None,
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
        rows += list(_choices(info, key, bootstrap, arch, metric, attack))
    return rows


def _choices(
    info: ExperimentInfo, key: MeasurementKey, bootstrap: Bootstrap, arch: str, metric: str, attack: str | None
) -> Iterator[Record]:
    """The chosen rows of one architecture, or with `best` of all."""
    candidates = bootstrap.candidates

    def chosen(pick: Pick, *, standard: Pick | None = None, **of: str) -> list[Record]:
        shared = {**shared_columns(info.experiment, key.of_choice(**of)), "attack": attack}
        return _chosen_row_pair(shared, bootstrap, pick, metric, standard)

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


def _candidates(info: ExperimentInfo, members: Members) -> list[Candidate]:
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
