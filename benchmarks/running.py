"""What Snakemake itself costs while jobs run: empty jobs a second through our rules, and through a bare workflow.

    python benchmarks/running.py --backbones 50 250 --timespan 300/3s 6000/60s

Backbones are trained and each is transferred to three targets under five seeds: 50 of them have about 1,000 entries,
and 250 about 5,000. Our rules are as they are, but each touches its outputs in place of its command. The bare workflow
has the same jobs, the same edges between them and one output file for each (see `planning.py`). `--timespan` is
Snakemake's `--max-jobs-per-timespan`, which says how often it wakes for the timers of jobs that have ended.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from checkout import ROOT
from planning import bare, ended
from robust_transfer.configuration.load import load
from robust_transfer.dag.grid import Grid, plan

SEEDS, EPS, TARGETS = 5, ("0", "0.25", "0.5", "1", "2"), ("coarse", "fine", "textures")
COMMAND = re.compile(r"^( +)shell:\n.*", re.MULTILINE | re.DOTALL)
"""That of a rule stands last in its file."""


@dataclass(frozen=True)
class Run:
    """What one run took."""

    jobs: int
    seconds: float
    """By the clock, with planning and Snakemake's start and end."""
    processor_seconds: float
    """Of Snakemake alone."""
    children_seconds: float
    """Processor time of its jobs: a shell and `touch` each."""
    megabytes: float
    """The most memory of Snakemake's process."""


def experiment(backbones: int) -> dict[str, Any]:
    """An experiment with so many backbones, at five eps and as many seeds as that takes."""
    part = {"architectures": ["resnet8_w4"], "eps": list(EPS), "seeds": list(range(backbones // len(EPS)))}
    part |= {"modes": ["fixed-feature"], "transfer_seeds": list(range(SEEDS))}
    figures = {"draw": ["headline"], "widths": [], "fixed_eps": None}
    sections = {"targets": list(TARGETS), "cue_conflict": None, "grid": [part], "figures": figures}
    return {"extends": "default", "experiment": "empty"} | sections


def prepared(folder: Path, backbones: int) -> tuple[Path, Path, Grid]:
    """Both workflows in folders of their own, with nothing made."""
    ours, theirs = folder / "ours", folder / "bare"
    for one in (ours, theirs):
        one.mkdir(parents=True)
        shutil.copytree(ROOT / "profiles", one / "profiles")
    shutil.copytree(ROOT / "rules", ours / "rules")
    for rule in (ours / "rules").glob("*.smk"):
        text, found = COMMAND.subn(r'\1shell:\n\1    "touch {output:q}"\n', rule.read_text())
        assert found == 1, rule
        rule.write_text(text)
    for name in ("workflow", "envs"):
        (ours / name).symlink_to(ROOT / name)
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(ROOT / name, ours / name)
    (ours / "experiment.yaml").write_text(yaml.safe_dump(experiment(backbones)))
    grid = plan(load([ours / "experiment.yaml"]))
    bare(grid, theirs)
    return ours, theirs, grid


def run(folder: Path, *arguments: str) -> Run:
    """One `snakemake` to its end, on two cores."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    start = time.monotonic()
    with (folder / "said.txt").open("w+") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said)
        own = 0.0
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            own = _own_seconds(process.pid) or own
            time.sleep(0.2)
        used, jobs = ended(process, said)
        seconds = time.monotonic() - start
    return Run(jobs, seconds, own, used.ru_utime + used.ru_stime - own, used.ru_maxrss / 1024)


def _own_seconds(process: int) -> float:
    """Processor time of a process without that of its children; 0 once it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(backbones: int, timespans: list[str]) -> Iterator[dict[str, Any]]:
    """Runs of both under every timespan; one record for each."""
    for timespan in timespans:
        with tempfile.TemporaryDirectory() as temporary:
            ours, theirs, grid = prepared(Path(temporary), backbones)
            options = ("--max-jobs-per-timespan", timespan)
            found = {"ours": run(ours, *options, "--configfile", "experiment.yaml"), "bare": run(theirs, *options)}
            entries, runs = len(grid.entries), {name: asdict(one) for name, one in found.items()}
            yield {"backbones": backbones, "entries": entries, "timespan": timespan, **runs}


def line(found: dict[str, Any]) -> str:
    """One row of the table."""
    cells = [f"{found['entries']:,}", found["timespan"]]
    for name in ("ours", "bare"):
        one = found[name]
        rate = one["jobs"] / one["seconds"]
        cells.append(f"{one['seconds']:.0f} s, {rate:.1f} jobs/s, {one['processor_seconds']:.0f} s")
    for key in ("seconds", "processor_seconds"):
        cells.append(f"{found['ours'][key] / found['bare'][key]:.2f}×")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Run the cases, print a table and, with `--json`, keep every run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", type=int, nargs="+", default=[50, 250], help="multiples of 5")
    parser.add_argument("--timespan", nargs="+", default=["300/3s", "6000/60s"], help="--max-jobs-per-timespan")
    parser.add_argument("--json", type=Path, help="write every run here")
    args = parser.parse_args()
    found = []
    print("| entries | timespan | ours: wall, rate, processor time of Snakemake | bare | wall | processor |")
    print("|---|---|---|---|---|---|")
    for backbones in args.backbones:
        for one in measure(backbones, args.timespan):
            found.append(one)
            print(line(one), flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
