"""Experiments as commands name them: by name, by folder of results, by configuration file, or by their table."""

from __future__ import annotations

import difflib
import json
from pathlib import Path

from robust_transfer.configuration.experiment import Experiment
from robust_transfer.configuration.load import ConfigurationError, load

RESULTS = "results.parquet"
FORMS = "its name, its folder of results, or its configuration file"


def results_table(named: str, folder: Path = Path("results")) -> Path:
    """The results table of the experiment that is named so; `folder` is where names are looked up.

    Raises ConfigurationError if there is no such experiment, or it has no results yet.
    """
    path = Path(named)
    if path.suffix in (".yaml", ".yml"):
        experiment = load([path])
        path = Path(experiment.results) / experiment.experiment
    elif path.suffix != ".parquet" and not path.is_dir():
        path = folder / named
    table = path if path.suffix == ".parquet" else path / RESULTS
    if table.is_file():
        return table
    there = sorted(one.parent.name for one in folder.glob(f"*/{RESULTS}"))
    near = difflib.get_close_matches(named, there, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    listed = f"{folder} has {', '.join(there)}" if there else f"{folder} has none"
    raise ConfigurationError(
        f"{named}: no results at {table}{hint}; an experiment is named by {FORMS}; of finished ones {listed}"
    )


def configuration_of(named: str, table: Path) -> Experiment | None:
    """The configuration of an experiment that has been run, as its files say now; None where they are not known.

    `table` is its results table, beside which a run records its files.
    """
    path = Path(named)
    if path.suffix in (".yaml", ".yml"):
        return load([path])
    try:
        files = json.loads((table.parent / ".made" / "configuration.json").read_text())["files"]
    except (OSError, ValueError, KeyError):
        return None
    for folder in (Path.cwd(), *table.absolute().parents):
        paths = [folder / file for file in files]
        if all(path.is_file() for path in paths):
            return load(paths)
    return None


def is_experiment(named: str, folder: Path = Path("results")) -> bool:
    """Whether this names an experiment, and not an entry of the store."""
    path = Path(named)
    return path.suffix in (".yaml", ".yml", ".parquet") or any(
        (place / RESULTS).is_file() for place in (path, folder / named)
    )
