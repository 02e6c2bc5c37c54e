"""Which entries of a store no experiment of some configuration files refers to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from robust_transfer.configuration.load import ConfigurationError, load
from robust_transfer.dag.grid import plan
from robust_transfer.store.finished import entry_name
from robust_transfer.store.upkeep import entries_in

SUFFIXES = (".yaml", ".yml")


def configurations(paths: Iterable[Path]) -> list[Path]:
    """The configuration files among these paths, and those below the folders among them.

    Raises ConfigurationError for a folder without any, and for what is not there.
    """
    found: dict[Path, None] = {}
    for path in paths:
        files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES) if path.is_dir() else [path]
        if not files or not all(file.is_file() for file in files):
            raise ConfigurationError(f"{path}: neither a configuration file nor a folder with some")
        found |= dict.fromkeys(files)
    return list(found)


def unused(store: Path, files: Sequence[Path]) -> list[Path]:
    """Entries of the store that none of these experiments refers to, those moved aside among them.

    Datasets that a machine lacks count as referred to. Raises ConfigurationError if one of the files is no experiment
    by itself: what it refers to cannot be known.
    """
    referred = {entry for file in files for entry in plan(load([file])).entries}
    return [path for path in entries_in([store]) if entry_name(path) not in referred]
