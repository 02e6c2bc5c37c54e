"""Two configuration files with one experiment's name, whose results share a folder: found out, and said.

A run records its configuration files in `results/<experiment>/.made/configuration.json`. A later run from other files
is told so, if those of the record still describe an experiment of this name, and another one. Whoever edits, moves or
renames a file is told nothing: then no other file describes the experiment any more.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from robust_transfer.configuration.experiment import Experiment
from robust_transfer.configuration.files import DEFAULT
from robust_transfer.configuration.load import ConfigurationError, load
from robust_transfer.registry import FIGURES
from robust_transfer.store.entry import sha256, write_json
from robust_transfer.store.made import MADE, made


def remember(results: Path, files: Sequence[Path]) -> None:
    """Record in the results folder which files describe the experiment; below the working directory relative to it."""
    (results / MADE).mkdir(parents=True, exist_ok=True)
    write_json(results / MADE / "configuration.json", {"files": _named(files)})


def namesake_notices(experiment: Experiment, results: Path, files: Sequence[Path]) -> list[str]:
    """One line if the results folder was made by another file, which still has an experiment of this name."""
    before = _remembered(results)
    now = _named(files)
    if not before or before == now:
        return []
    try:
        other = load([Path(file) for file in before])
    except ConfigurationError:
        return []
    if (other.experiment, other.results) != (experiment.experiment, experiment.results) or _same(other, experiment):
        return []
    first, second = " and ".join(before), " and ".join(now)
    return [
        f"experiment = {experiment.experiment}: {results} was made from {first}, which has this name too and describes "
        f"another experiment than {second}; what is made now takes the place of that. To keep both, write another name "
        "under `experiment` in one of them"
    ]


def leftover_notices(results: Path, drawn: Collection[str], is_stale: bool) -> list[str]:
    """One line if the folder has figures which are not drawn now and show other numbers than its tables have.

    `is_stale` says that the tables are to be made again.
    """
    left = []
    for name, figure in FIGURES.items():
        record = made(results, f"figure_{name}") if name not in drawn else None
        table = results / f"{figure.table}.parquet"
        if record and (is_stale or not table.exists() or record.get("table") != sha256(table)):
            left.append(name)
    if not left:
        return []
    return [
        f"{results / 'figures'}: {', '.join(left)}: left from an earlier run, with other numbers than the figures that "
        "are drawn now; delete them, or name them under figures.draw"
    ]


def _same(one: Experiment, other: Experiment) -> bool:
    """Whether two experiments measure and show the same; how jobs run makes no difference."""
    return one.model_dump(exclude={"running"}) == other.model_dump(exclude={"running"})


def _named(files: Sequence[Path]) -> list[str]:
    here = Path.cwd()
    paths = [Path(file).absolute() for file in files or [DEFAULT]]
    return [str(path.relative_to(here) if path.is_relative_to(here) else path) for path in paths]


def _remembered(results: Path) -> list[str]:
    try:
        return [str(file) for file in json.loads((results / MADE / "configuration.json").read_text())["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
