"""Copies of the repository in which tests run the workflow itself, and edit code and configuration."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

import pyarrow.parquet as pq
import yaml
from robust_transfer.store.finished import FINISHED

from support.paths import ROOT


class Checkout:
    """A copy of what a run needs, and the experiment that runs in it."""

    def __init__(self, folder: Path, experiment: str) -> None:
        """Copy into an empty folder; the experiment, as YAML, is written to `experiment.yaml` there."""
        self.folder, self.experiment = folder, experiment
        for name in ("Snakefile", "config.yaml"):
            shutil.copy(ROOT / name, folder / name)
        for name in ("rules", "profiles", "envs", "experiments", "claims", "workflow"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "experiment.yaml").write_text(experiment)

    def copy(self, folder: Path) -> Self:
        """The checkout with all that it has made, once more, for a test that edits or deletes something."""
        shutil.copytree(self.folder, folder, symlinks=True)
        again = object.__new__(type(self))
        again.folder, again.experiment = folder, self.experiment
        return again

    @property
    def package(self) -> Path:
        """The package's folder."""
        return self.folder / "workflow" / "robust_transfer"

    def command(self, *arguments: str, overlay: str = "experiment.yaml") -> list[str]:
        """Snakemake's, on two cores."""
        return [sys.executable, "-m", "snakemake", "--cores", "2", *arguments, "--configfile", overlay]

    def snakemake(self, *arguments: str, overlay: str = "experiment.yaml") -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        command = self.command(*arguments, overlay=overlay)
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=500)

    def planned(self, *arguments: str, overlay: str = "experiment.yaml") -> dict[str, int]:
        """Jobs by rule that a dry run lists."""
        run = self.snakemake("-n", *arguments, overlay=overlay)
        assert run.returncode == 0, run.stderr + run.stdout
        table = (run.stdout + run.stderr).partition("Job stats:")[2].partition("total")[0]
        return {rule: int(count) for rule, count in re.findall(r"^(\w+)\s+(\d+)\s*$", table, re.M) if rule != "all"}

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One of the package's commands."""
        command = [sys.executable, "-m", "robust_transfer", *arguments]
        environment = os.environ | {"PYTHONPATH": "workflow"}
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=100)

    def overlay(self, name: str, **changes: object) -> str:
        """A variation of the experiment, written beside it."""
        configuration = yaml.safe_load(self.experiment)
        for key, value in changes.items():
            if isinstance(value, dict) and key in configuration:
                configuration[key].update(value)
            else:
                configuration[key] = value
        (self.folder / name).write_text(yaml.safe_dump(configuration))
        return name


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text that a file must have, once."""
    text = path.read_text()
    assert old in text, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new, 1))


def extend(path: Path) -> None:
    """Change what a module means."""
    path.write_text(path.read_text() + "\nSOMETHING = 1\n")


def finished_checkout(folder: Path, experiment: str) -> Checkout:
    """A checkout that has run its experiment."""
    checkout = Checkout(folder, experiment)
    run = checkout.snakemake()
    assert run.returncode == 0, run.stderr[-5000:]
    return checkout


def kept(checkout: Checkout) -> dict[str, int]:
    """What finished entries keep, by path below the store: which file it is on the disk."""
    store = checkout.folder / "store"
    found = {}
    for card in store.glob(f"*/*/{FINISHED}/card.json"):
        for path in card.parent.iterdir():
            found[str(path.relative_to(store))] = path.stat().st_ino
    return found


def lost(before: dict[str, int], checkout: Checkout) -> set[str]:
    """What was kept before and is gone, or was made again."""
    now = kept(checkout)
    return {path for path, number in before.items() if now.get(path) != number}


def results(checkout: Checkout) -> list[dict[str, object]]:
    return list(pq.read_table(checkout.folder / "results" / "small" / "results.parquet").to_pylist())
