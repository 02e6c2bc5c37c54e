"""Compare two experiments: which of the numbers that both have differ beyond noise.

    robust-transfer compare shapes mine.yaml
    robust-transfer compare results/shapes results/mine --out differences.csv

Numbers are accuracies on clean test images by the target's metric, one for each network, target, mode, protocol and
view, means over seeds where there are several. Where both were measured on the same images
the difference is paired, from the predictions in both stores; else it is of two numbers, as if on images of their own.
P-values are adjusted by Holm's method for all numbers that are compared.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pandas as pd

from robust_transfer.statistics.candidates import Candidate, SelectionError, TransferRun
from robust_transfer.statistics.evidence import LEVEL, holm, one_sided
from robust_transfer.statistics.intervals import paired_difference_interval
from robust_transfer.statistics.selection import Bootstrap
from robust_transfer.store.entry import StoreError, open_entry
from robust_transfer.store.predictions import read_predictions
from robust_transfer.tables.experiment_info import ATTRIBUTE, ExperimentInfo
from robust_transfer.tables.measured import CELL, measured
from robust_transfer.tables.results import read_results

RESAMPLES = 200
KEY = (*CELL, "metric")
"""Columns that tell a number from others, whatever the experiment and the seeds."""
Key = tuple[str, ...]
"""Their values; empty for null."""


@dataclass(frozen=True)
class NumberDifference:
    """A number that both experiments have: the first one's, the second one's, and first less second."""

    key: Key
    first: float
    second: float
    difference: float
    ci_low: float = math.nan
    ci_high: float = math.nan
    ci_kind: str = ""
    n: int = 0
    paired: bool = False
    """On the same images, image by image."""
    same_entry: bool = False
    """Both are of the same entries of a store, so that there is one number and no difference."""
    p: float = math.nan
    p_adjusted: float = math.nan

    @property
    def differs(self) -> bool:
        """Beyond noise, among all numbers that are compared."""
        return self.p_adjusted <= LEVEL


@dataclass(frozen=True)
class ExperimentComparison:
    """What two experiments have in common, number by number."""

    first: str
    second: str
    numbers: Sequence[NumberDifference]
    only_first: int
    only_second: int
    """Numbers that one of both has alone."""


class _Experiment:
    """A results table with the numbers that are compared, and its store."""

    def __init__(self, table: Path) -> None:
        self.rows = read_results(table)
        self.about = ExperimentInfo.of(self.rows)
        # A relative store is below the working directory that the experiment ran in, as its results are.
        described, folder = self.rows.attrs[ATTRIBUTE], table.absolute().parent
        stores = [place / described.get("store", "store") for place in (folder, *folder.parents, Path.cwd())]
        self.store = next((store for store in stores if store.is_dir()), stores[0])
        every = {name: self._values(name) for name in ("protocol", "variant", "images_per_class", "training_images")}
        self.shown = {_key(row): row for row in _records(measured(self.rows, **every))}
        self.runs: dict[Key, list[Mapping[str, object]]] = defaultdict(list)
        single = self.rows[self.rows["entry"].notna() & self.rows["backbone_seed"].notna()]
        for row in _records(single[single["split"] == "test"]):
            self.runs[_key(row)].append(row)

    def _values(self, name: str) -> list[object]:
        return [None if pd.isna(value) else value for value in self.rows[name].unique()]

    def candidate(self, key: Key, name: str) -> Candidate | None:
        """The runs behind a number with their predictions; None where a store does not have them."""
        shown = self.shown[key]
        runs = []
        for row in self.runs[key]:
            if row["selection"] != shown["selection"]:
                continue
            try:
                selection = None if row["selection"] is None else str(row["selection"])
                entry = open_entry(self.store / str(row["entry"]))
                splits = {"test": read_predictions(entry, selection)["test"]}
            except (StoreError, KeyError, OSError):
                return None
            backbone_seed, transfer_seed = _seed(row["backbone_seed"]), _seed(row["transfer_seed"])
            runs.append(TransferRun(str(row["entry"]), str(row["backbone"]), backbone_seed, transfer_seed, splits))
        return Candidate(name, "", "", tuple(runs)) if runs else None

    def entries(self, key: Key) -> list[str]:
        """The entries behind a number, with their store."""
        return sorted(str((self.store / str(row["entry"])).resolve()) for row in self.runs[key])


def compare_experiments(first: Path, second: Path) -> ExperimentComparison:
    """Compare the results tables of two experiments. Raises TableError as `read_results` does."""
    one, other = _Experiment(first), _Experiment(second)
    shared = [key for key in one.shown if key in other.shown]
    found = [_compared(one, other, key) for key in shared]
    counted = [i for i, number in enumerate(found) if not math.isnan(number.p)]
    adjusted = dict(zip(counted, holm([found[i].p for i in counted]), strict=True))
    numbers = [replace(number, p_adjusted=adjusted.get(i, math.nan)) for i, number in enumerate(found)]
    return ExperimentComparison(
        one.about.experiment, other.about.experiment, numbers, len(one.shown) - len(shared),
        len(other.shown) - len(shared),
    )  # fmt: skip


def _compared(one: _Experiment, other: _Experiment, key: Key) -> NumberDifference:
    a, b = one.shown[key], other.shown[key]
    values = float(str(a["value"])), float(str(b["value"]))
    if one.entries(key) and one.entries(key) == other.entries(key):
        return NumberDifference(key, *values, values[0] - values[1], same_entry=True)
    paired = None if a["mode"] == "source" else _paired(one, other, key)
    value, low, high, kind, n = paired or _unpaired(a, b)
    p = min(1.0, 2 * min(one_sided(value, low, high, kind, n))) if kind else math.nan
    return NumberDifference(key, *values, value, low, high, kind, n, paired=paired is not None, p=p)


Interval = tuple[float, float, float, str, int]


def _paired(one: _Experiment, other: _Experiment, key: Key) -> Interval | None:
    """The difference on the same images; None where they are not the same, or there are no predictions."""
    candidates = one.candidate(key, "first"), other.candidate(key, "second")
    if candidates[0] is None or candidates[1] is None:
        return None
    try:
        bootstrap = Bootstrap([candidates[0], candidates[1]], key[-1], RESAMPLES, "test")
    except SelectionError:
        return None
    found = bootstrap.difference(bootstrap.pick([0]), bootstrap.pick([1]))
    return found.value, found.low, found.high, found.kind, found.n


def _unpaired(a: Mapping[str, object], b: Mapping[str, object]) -> Interval:
    one, other = _interval(a), _interval(b)
    n = min(int(str(a["n"])), int(str(b["n"])))
    if a["ci_kind"] != b["ci_kind"] or math.isnan(one[1] + other[1]):
        return one[0] - other[0], math.nan, math.nan, "", n
    return one[0] - other[0], *paired_difference_interval(one, other, 0.0), str(a["ci_kind"]), n


def _interval(row: Mapping[str, object]) -> tuple[float, float, float]:
    value, low, high = (float(str(row[name])) for name in ("value", "ci_low", "ci_high"))
    return value, low, high


def _seed(value: object) -> int | None:
    return None if value is None else int(str(value))


def _records(rows: pd.DataFrame) -> Iterator[Mapping[str, object]]:
    plain = rows.astype("object").where(rows.notna() | rows.columns.isin(["ci_low", "ci_high"]), None)
    for values in plain.itertuples(index=False, name=None):
        yield dict(zip(map(str, plain.columns), values, strict=True))


def _key(row: Mapping[str, object]) -> Key:
    return tuple("" if row[name] is None else str(row[name]) for name in KEY)


def write_comparison(path: Path, comparison: ExperimentComparison) -> None:
    """Write a CSV with a row for each number that both have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = [field.name for field in fields(NumberDifference)][1:]
        writer.writerow([*KEY, *names, "differs"])
        for number in comparison.numbers:
            values = [*number.key, *(getattr(number, name) for name in names), number.differs]
            writer.writerow([_text(one) for one in values])


def _text(value: object) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value
