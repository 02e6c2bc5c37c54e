"""Stage results: every measured number of an experiment in one table, costs and trainings in others, and its flags.

    python -m robust_transfer results results/<name>/experiment.json \
        --results <parquet> --timings <parquet> --training <parquet> --flags <csv>

Reads `metrics.json`, `predictions.parquet`, `epochs.csv`, `timing.json` and `card.json` of the experiment's entries;
writes `results.parquet` (schema in `table.py`), `timings.parquet`, `training.parquet` and `flags.csv` (both in
`training_table.py`). Beside the rows that entries measured the results hold two kinds of summary:

- means over seeds (`seeds.py`): `backbone_seed` or `transfer_seed` is null;
- chosen rows, per target, mode, variant and selection: `eps` best-robust is the robust eps with the highest validation
  accuracy (selection `test`: test accuracy), `arch` best the architecture; the value is its test accuracy. Their
  difference to the standard network of the same choice is a row of its own, whose metric ends in `_difference`. Their
  intervals repeat the choice (`selection.py`).

One core of an AMD EPYC takes 15 s for 1,456 runs on 3,000 test and 3,000 validation images, with 250 MB.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from robust_transfer.configuration.eps import eps_value
from robust_transfer.statistics.selection import Bootstrap, Candidate, Pick, TransferRun, interval
from robust_transfer.store.entry import TIMING, Entry, StoreError, open_entry
from robust_transfer.store.predictions import read_predictions
from robust_transfer.tables.results import (
    BEST_ARCH,
    BEST_ROBUST,
    DIFFERENCE,
    ExperimentInfo,
    Row,
    TableError,
    canonical,
    write,
    write_parquet,
)
from robust_transfer.tables.seeds import seed_means
from robust_transfer.tables.training import Backbone, write_flags, write_training
from robust_transfer.tables.training_records import epoch_rows, flags_of_evaluations, recorded_flags

log = logging.getLogger("robust_transfer")

TIMINGS = pa.schema(
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
)


@dataclass(frozen=True)
class Listed:
    """One measuring entry as the experiment file lists it: where it lies, and the key of its rows."""

    entry: str
    stage: str
    backbone: str
    source: str
    target: str
    arch: str
    recipe: str
    norm: str
    eps: str
    backbone_seed: int
    transfer_seed: int | None
    mode: str
    protocol: str | None
    variant: dict[str, Any]
    images_per_class: int | None

    @property
    def contest(self) -> tuple[object, ...]:
        """Runs that are compared with each other share this."""
        variant = canonical(self.variant)
        return (self.source, self.target, self.recipe, self.mode, self.protocol, variant, self.images_per_class)


def collect(experiment_json: Path, store: Path, *, results: Path, timings: Path, training: Path, flags: Path) -> None:
    """Gather the entries that `experiment_json` lists from `store` into three tables and a list of sanity flags.

    Raises StoreError for an entry that is missing, unfinished or altered, TableError for two numbers with one key or
    metrics that contradict their predictions, SelectionError for runs that cannot be compared.
    """
    described = json.loads(experiment_json.read_text())
    listed = [Listed(**{name: entry[name] for name in Listed.__annotations__}) for entry in described.pop("entries")]
    costs = described.pop("costs")
    about = ExperimentInfo.from_json(described)
    measured = {item.entry: _measured(about.experiment, item, open_entry(store / item.entry)) for item in listed}
    _clean_once(listed, measured)
    rows = [row for numbers in measured.values() for row in numbers]
    rows += seed_means(rows)
    contests: dict[tuple[object, ...], list[Listed]] = defaultdict(list)
    for item in listed:
        if item.mode != "source":
            contests[item.contest].append(item)
    for items in contests.values():
        # Predictions are read a contest at a time: those of a whole experiment need not fit into memory.
        for selection in dict.fromkeys(row.selection for item in items for row in measured[item.entry]):
            runs = [
                (item, _run(item, open_entry(store / item.entry), measured[item.entry], selection)) for item in items
            ]
            rows += _chosen(about, runs, selection)
    epochs = [row for one in _backbones(listed) for row in epoch_rows(one, open_entry(store / one.entry))]
    raised = [flag for cost in costs for flag in recorded_flags(store / cost)]
    raised += flags_of_evaluations([row for row in rows if row.mode == "source"], epochs, store)
    write(results, rows, described)
    write_parquet(pa.Table.from_pylist([_cost(store / cost) for cost in costs], schema=TIMINGS), timings)
    write_training(training, epochs, described)
    write_flags(flags, raised)
    log.info("%s: %d numbers from %d entries, %d flags", results, len(rows), len(listed), len(raised))


def _backbones(listed: Iterable[Listed]) -> list[Backbone]:
    """The backbones behind these entries, each once."""
    found = [
        Backbone(item.backbone, item.source, item.arch, item.recipe, item.norm, item.eps, item.backbone_seed)
        for item in listed
    ]
    return list(dict.fromkeys(found))


def _measured(experiment: str, item: Listed, entry: Entry) -> list[Row]:
    """The rows of one entry's `metrics.json`."""
    measured = json.loads(entry.file("metrics.json").read_text())
    code = entry.card()["code"]
    return [
        Row(
            **_shared(experiment, item),
            arch=item.arch,
            norm=item.norm,
            eps=item.eps,
            eps_value=eps_value(item.eps),
            backbone_seed=item.backbone_seed,
            transfer_seed=item.transfer_seed,
            attack=None if number["attack"] is None else canonical(number["attack"]),
            hyperparameters=canonical(number["hyperparameters"]),
            **{name: number[name] for name in ("split", "selection", "metric", "n")},
            **{name: number[name] for name in ("value", "ci_low", "ci_high", "ci_kind")},
            backbone=item.backbone,
            entry=item.entry,
            code=code,
        )
        for number in measured
    ]


def _clean_once(listed: Iterable[Listed], measured: dict[str, list[Row]]) -> None:
    """Of a backbone that was attacked in two norms, each beside its clean accuracy, keep that accuracy once."""
    seen = set()
    for item in listed:
        if item.mode == "source" and item.backbone in seen:
            measured[item.entry] = [row for row in measured[item.entry] if row.attack is not None]
        elif item.mode == "source":
            seen.add(item.backbone)


def _shared(experiment: str, item: Listed) -> dict[str, Any]:
    """The columns that are the same for all runs that are compared with each other."""
    return {
        "experiment": experiment,
        "source": item.source,
        "target": item.target,
        "recipe": item.recipe,
        "mode": item.mode,
        "protocol": item.protocol,
        "variant": canonical(item.variant),
        "images_per_class": item.images_per_class,
    }


def _run(item: Listed, entry: Entry, measured: Iterable[Row], selection: str | None) -> TransferRun:
    """An entry's predictions under one selection, checked against the accuracy it reports there."""
    splits = read_predictions(entry, selection)
    for row in measured:
        found = 100 * float(splits[row.split].correct.mean()) if row.split in splits else row.value
        if row.selection == selection and row.metric == "top1" and abs(found - row.value) > 0.01:
            raise TableError(
                f"{entry.path}: metrics.json says {row.split} top1 = {row.value:.2f}, predictions.parquet says "
                f"{found:.2f}; move the entry aside and make it again"
            )
    return TransferRun(item.entry, item.backbone, item.backbone_seed, item.transfer_seed, splits)


def _chosen(about: ExperimentInfo, members: Sequence[tuple[Listed, TransferRun]], selection: str | None) -> list[Row]:
    """The chosen rows of runs that are compared with each other: best robust, best standard, and their differences."""
    first = members[0][0]
    metric = {target.name: target.metric for target in about.targets}[first.target]
    contest = Bootstrap(_candidates(about, members), metric, about.bootstrap, selection or "validation")
    candidates = contest.candidates
    archs = list(dict.fromkeys(candidate.arch for candidate in candidates))
    rows = []
    for arch in [*archs, BEST_ARCH]:
        inside = [i for i, candidate in enumerate(candidates) if arch in (candidate.arch, BEST_ARCH)]
        standard = [i for i in inside if candidates[i].eps == "0"]
        pick = contest.pick(standard) if standard else None
        if pick and arch == BEST_ARCH:
            rows.append(_chosen_row(about, first, contest, pick, arch, "none", "0", metric))
        for norm in dict.fromkeys(candidates[i].norm for i in inside if candidates[i].eps != "0"):
            robust = [i for i in inside if candidates[i].norm == norm and candidates[i].eps != "0"]
            fixed = [i for i in robust if candidates[i].eps == about.fixed_eps.get(norm)]
            for eps, among in ((BEST_ROBUST, robust), (about.fixed_eps.get(norm, ""), fixed)):
                if not among:
                    continue
                better = contest.pick(among)
                if eps == BEST_ROBUST or arch == BEST_ARCH:  # one arch at one eps is there already, as measured
                    rows.append(_chosen_row(about, first, contest, better, arch, norm, eps, metric))
                if pick:
                    rows.append(_chosen_row(about, first, contest, better, arch, norm, eps, metric + DIFFERENCE, pick))
    return rows


def _candidates(about: ExperimentInfo, members: Sequence[tuple[Listed, TransferRun]]) -> list[Candidate]:
    """Runs by architecture and eps, in the order of architectures, then of growing eps."""
    runs: dict[tuple[str, str, str], list[TransferRun]] = defaultdict(list)
    for item, run in members:
        runs[item.arch, item.norm, item.eps].append(run)
    order = {arch: i for i, arch in enumerate(about.architectures)}
    keys = sorted(runs, key=lambda key: (order.get(key[0], len(order)), key[0], key[1], eps_value(key[2])))
    return [Candidate(*key, tuple(runs[key])) for key in keys]


def _chosen_row(
    about: ExperimentInfo,
    like: Listed,
    contest: Bootstrap,
    pick: Pick,
    arch: str,
    norm: str,
    eps: str,
    metric: str,
    standard: Pick | None = None,
) -> Row:
    """The row of a choice, or with `standard` of its paired difference to that one."""
    value, low, high = interval(pick.accuracies - standard.accuracies if standard else pick.accuracies)
    chosen = contest.candidates[pick.picked[0]]
    says = {"arch": chosen.arch, "eps": chosen.eps, "share_of_resamples": round(pick.share, 3)}
    says["backbone_seeds"] = sorted({run.backbone_seed for run in chosen.runs})
    if standard:
        says["standard_arch"] = contest.candidates[standard.picked[0]].arch
    only = chosen.runs[0] if len(chosen.runs) == 1 and not standard else None
    return Row(
        **_shared(about.experiment, like),
        arch=arch,
        norm=norm,
        eps=eps,
        eps_value=None if eps == BEST_ROBUST else eps_value(eps),
        backbone_seed=None,
        transfer_seed=None,
        attack=None,
        split="test",
        selection=contest.selection,
        metric=metric,
        value=value,
        ci_low=low,
        ci_high=high,
        ci_kind="images",
        n=contest.images,
        hyperparameters=canonical(says),
        backbone=only.backbone if only else None,
        entry=only.entry if only else None,
        code=None,
    )


def _cost(path: Path) -> dict[str, Any]:
    """One entry's `timing.json` as a row of the second table."""
    try:
        timing = json.loads((path / TIMING).read_text())
    except FileNotFoundError:
        raise StoreError(f"{path / TIMING}: missing; move {path} aside and make it again") from None
    known = {name: timing.pop(name, None) for name in TIMINGS.names if name not in ("entry", "stage", "details")}
    return {
        "entry": f"{path.parent.name}/{path.name}",
        "stage": path.parent.name,
        **known,
        "details": canonical(timing),
    }
