"""Time and memory of planning: `snakemake -n` on the paper's grid beside Snakemake alone with as many empty rules.

    python benchmarks/planning.py --case 4x1 12x2 12x5 --rounds 3

A case is targets × seeds: 12x5 is the paper's grid with five seeds. Two workflows without any code of ours have the
same jobs and the same edges between them, which their rules read from a JSON file. `bare` declares nothing but one
output for each job. `declared` declares what our rules do: outputs, logs, resources, environments and parameters. The
first tells what the workflow costs beside the least that the engine can be asked; the second, what our own code
costs. Three plans: `new`, nothing is there; `same`, all is made and there is nothing to do; `eps`, all is made but
what one eps needs.

No network is run: the store is filled with cards and empty files. Wall-clock time, processor time and the most memory
of the process are measured, in turn, so that whatever else the machine does slows both.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import yaml
from checkout import ROOT
from robust_transfer.claims.writing import SUFFIXES
from robust_transfer.configuration.load import load
from robust_transfer.dag.about import about
from robust_transfer.dag.experiment_file import describe
from robust_transfer.dag.grid import Grid, plan
from robust_transfer.registry import FIGURES, STAGES
from robust_transfer.store.entry import sha256, write_json
from robust_transfer.store.fingerprint import fingerprint, module_fingerprints
from robust_transfer.store.finished import content
from robust_transfer.store.made import digest, digest_of_cards, digest_of_claims, page_made_from, write_made
from robust_transfer.store.provenance import versions

PLANS = ("new", "same", "eps")
CHANGED_EPS = "5"
"""The eps that the plan `eps` has no entries of."""
EMPTY = {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}

BARE = """
import json
EDGES = json.load(open("edges.json"))

rule all:
    input: {all}
"""
RULE = """
rule {name}:
    input: lambda wildcards: EDGES["{name}/" + wildcards.entry]
    output: "store/{name}/{{entry}}/card.json"
    shell: "touch {{output}}"
"""
DECLARED = """
import json
from pathlib import Path
EDGES = json.load(open("edges.json"))
STORE = Path("store")

def memory(megabytes):
    def scaled(wildcards, attempt):
        return megabytes * min(attempt, 2)
    return scaled

wildcard_constraints:
    entry="[^/]+",

rule all:
    input: {all}
"""
COLLECTED = """
rule {name}:
    input: {inputs}
    output: "{output}"
    shell: "touch {{output}}"
"""


@dataclass(frozen=True)
class Run:
    """What one dry run took."""

    seconds: float
    """By the clock."""
    processor_seconds: float
    megabytes: float
    """The most memory of the process."""
    jobs: int
    """That it lists."""


def experiment(folder: Path, targets: int, seeds: int) -> Grid:
    """The paper's experiment with the first so many targets and so many seeds of transfer, below `folder`."""
    described = yaml.safe_load((ROOT / "experiments" / "paper.yaml").read_text())
    described["targets"] = described["targets"][:targets]
    for part in described["grid"]:
        part["transfer_seeds"] = list(range(seeds))
        if "targets" in part:
            part["targets"] = [name for name in part["targets"] if name in described["targets"]]
            part |= {} if part["targets"] else {"targets": described["targets"][:1]}
    (folder / "experiment.yaml").write_text(yaml.safe_dump(described))
    os.chdir(folder)
    return plan(load([folder / "experiment.yaml"]))


def outputs(rule: str) -> list[str]:
    """Names of the files that a stage's rule declares."""
    text = (ROOT / "rules" / f"{rule}.smk").read_text().partition("output:")[2].partition("log:")[0]
    return re.findall(r'"\{entry\}" / "([^"]+)"', text)


def finish(grid: Grid, folder: Path) -> None:
    """Fill the store as if all had been made: cards as they are, with empty files."""
    store, made_with = folder / "store", versions()
    contents: dict[str, str] = {}
    for entry in grid.entries.values():
        path = store / entry.id
        path.mkdir(parents=True)
        names = [name for name in outputs(entry.stage) if name not in ("card.json", "timing.json")]
        card: dict[str, Any] = {"entry": entry.id, "files": dict.fromkeys(names, EMPTY), "facts": {"of": entry.id}}
        card |= {"code": fingerprint(entry.stage), "modules": module_fingerprints(entry.stage)}
        card |= {"inputs": {role: contents[one.id] for role, one in entry.inputs.items()}, "provenance": made_with}
        contents[entry.id] = content(card)
        for name in (*names, "timing.json"):
            (path / name).touch()
        (path / "entry.json").write_text(json.dumps(entry.described(), indent=1))
        (path / "card.json").write_text(json.dumps(card, indent=1))
    results = folder / "results" / "paper"
    (results / "figures").mkdir(parents=True)
    for name in ("results.parquet", "timings.parquet", "training.parquet", "backbones.csv", "flags.csv", "summary.txt"):
        (results / name).touch()
    write_json(results / "experiment.json", describe(grid))
    collected(grid, folder)


def collected(grid: Grid, folder: Path) -> None:
    """Records of tables and figures, as if all had been made from the store as it is."""
    results = folder / "results" / "paper"
    tables = [
        results / name
        for name in ("results.parquet", "timings.parquet", "training.parquet", "backbones.csv", "flags.csv")
    ]
    made_from = {"code": fingerprint("results"), "experiment": digest(describe(grid))}
    write_made(results, "results", made_from | {"entries": digest_of_cards(folder / "store", grid.entries)}, tables)
    for name in grid.experiment.figures.draw:
        files = [results / "figures" / f"{name}.{suffix}" for suffix in FIGURES[name].suffixes]
        for file in files:
            file.touch()
        table = sha256(results / f"{FIGURES[name].table}.parquet")
        write_made(results, f"figure_{name}", {"code": fingerprint(f"figures/{name}"), "table": table}, files)
    made_from = {"code": fingerprint("report"), "results": sha256(tables[0]), "flags": sha256(tables[3])}
    write_made(results, "report", made_from, [results / "summary.txt"])
    claims = [results / f"claims.{suffix}" for suffix in SUFFIXES]
    for file in (*claims, results / "index.html"):
        file.touch()
    made_from = {"code": fingerprint("claims"), "results": sha256(tables[0]), "claims": digest_of_claims()}
    write_made(results, "claims", made_from, claims)
    write_made(results, "page", page_made_from(results, about(grid)), [results / "index.html"])


def needing(grid: Grid, eps: str) -> list[str]:
    """Entries of backbones with that L2 eps, and all that is made from them."""
    found: set[str] = set()
    for entry in grid.entries.values():
        own = getattr(entry.settings, "eps", None) == eps and getattr(entry.settings, "norm", None) == "l2"
        if own or any(one.id in found for one in entry.inputs.values()):
            found.add(entry.id)
    return [entry for entry in grid.entries if entry in found]


def products(grid: Grid) -> list[str]:
    """What is made from the tables."""
    return [*(f"figure_{name}" for name in grid.experiment.figures.draw), "claims", "report", "page"]


def bare(grid: Grid, folder: Path) -> None:
    """The same jobs in empty rules."""
    card = "store/{}/card.json".format
    edges = {entry.id: [card(one.id) for one in entry.inputs.values()] for entry in grid.entries.values()}
    (folder / "edges.json").write_text(json.dumps(edges))
    figures = [f"results/{name}" for name in products(grid)]
    rules = [RULE.format(name=name) for name in STAGES]
    cards = '[f"store/{entry}/card.json" for entry in EDGES]'
    rules.append(COLLECTED.format(name="results", inputs=cards, output="results/results"))
    rules += [COLLECTED.format(name=Path(one).name, inputs='"results/results"', output=one) for one in figures]
    (folder / "Snakefile").write_text(BARE.format(all=f"{figures}, {cards}") + "".join(rules))


def declared(grid: Grid, folder: Path) -> None:
    """The same jobs in empty rules that declare what ours declare."""
    bare(grid, folder)
    shutil.copytree(ROOT / "envs", folder / "envs")
    figures = [f"results/{name}" for name in products(grid)]
    measured = '[f"store/{entry}/{name}" for entry in EDGES for name in ("card.json", "timing.json")]'
    rules = [emptied((ROOT / "rules" / f"{name}.smk").read_text(), name) for name in STAGES]
    rules.append(COLLECTED.format(name="results", inputs=measured, output="results/results"))
    rules += [COLLECTED.format(name=Path(one).name, inputs='"results/results"', output=one) for one in figures]
    (folder / "Snakefile").write_text(DECLARED.format(all=f"{figures}, {measured}") + "".join(rules))


def emptied(rule: str, name: str) -> str:
    """A stage's rule with its inputs read from the edges and nothing to run."""
    rule, inputs = re.subn(
        r"    input:\n(?:        .*\n)+", f'    input: lambda wildcards: EDGES["{name}/" + wildcards.entry]\n', rule
    )
    rule = re.sub(r"threads: FEEDING\.threads\(.*\)", "threads: 1", rule)
    rule = re.sub(r'FEEDING\.memory\("\w+", (\d+)\)', r"memory(\1)", rule)
    rule, commands = re.subn(r"    shell:\n(?:        .*\n)+", '    shell: "touch {output}"\n', rule)
    if inputs > 1 or commands != 1 or re.search("WIRING|FEEDING", rule):
        raise ValueError(f"rules/{name}.smk is not of the form that this benchmark reads: {rule}")
    return rule.replace("../envs/", "envs/")


def finish_plain(grid: Grid, folder: Path) -> None:
    """Fill the store of a workflow without code of ours."""
    for entry in grid.entries.values():
        path = folder / "store" / entry.id
        path.mkdir(parents=True)
        for name in outputs(entry.stage):
            (path / name).touch()
    (folder / "results").mkdir()
    for name in ("results", *products(grid)):
        (folder / "results" / name).touch()


PLAIN: dict[str, Callable[[Grid, Path], None]] = {"bare": bare, "declared": declared}
"""What writes each workflow that has no code of ours."""


def dry_run(folder: Path, *arguments: str) -> Run:
    """One `snakemake -n` in a process of its own."""
    command = [sys.executable, "-m", "snakemake", "-n", *arguments]
    # As on a user's machine: Python keeps byte code, and what was found out about our modules lies beside it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said, text=True, env=environment)
        used, jobs = ended(process, said)
    return Run(time.monotonic() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, jobs)


def ended(process: subprocess.Popen[Any], said: IO[str]) -> tuple[resource.struct_rusage, int]:
    """Wait for a Snakemake whose output goes to the file `said`: what it used, and how many jobs it listed.

    Raises RuntimeError where it failed.
    """
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    said.seek(0)
    text = said.read()
    if process.returncode:
        raise RuntimeError(f"{process.args!r}: {text[-3000:]}")
    total = re.search(r"^total\s+(\d+)", text, re.M)
    return used, int(total[1]) if total else 0


def prepared(folder: Path, targets: int, seeds: int) -> tuple[dict[str, Path], Grid]:
    """The three workflows in folders of their own, with nothing made."""
    folders = {name: folder / name for name in ("ours", *PLAIN)}
    for one in folders.values():
        one.mkdir()
        shutil.copytree(ROOT / "profiles", one / "profiles")
    ours = folders["ours"]
    for name in ("rules", "workflow", "envs", "claims", "published"):
        (one := ours / name).symlink_to(ROOT / name)
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(ROOT / name, ours / name)
    grid = experiment(ours, targets, seeds)
    for name, write in PLAIN.items():
        write(grid, folders[name])
    return folders, grid


def unfinish(grid: Grid, folders: Iterable[Path]) -> None:
    """Take away what one eps needs."""
    for entry in needing(grid, CHANGED_EPS):
        for folder in folders:
            shutil.rmtree(folder / "store" / entry)


def measure(targets: int, seeds: int, rounds: int, plans: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Dry runs of all three, in turn; one record for each plan."""
    with tempfile.TemporaryDirectory() as temporary:
        folders, grid = prepared(Path(temporary), targets, seeds)
        for state in PLANS:
            if state == "same":
                finish(grid, folders["ours"])
                for name in PLAIN:
                    finish_plain(grid, folders[name])
            if state == "eps":
                unfinish(grid, folders.values())
            if state not in plans:
                continue
            runs: dict[str, list[Run]] = {name: [] for name in folders}
            for number in range(rounds):
                for name in list(folders) if number % 2 == 0 else reversed(list(folders)):
                    arguments = ("--configfile", "experiment.yaml") if name == "ours" else ()
                    runs[name].append(dry_run(folders[name], *arguments))
            yield {
                "case": f"{targets}x{seeds}",
                "entries": len(grid.entries),
                "plan": state,
                **{name: [asdict(run) for run in found] for name, found in runs.items()},
            }


def line(found: dict[str, Any]) -> str:
    """One row of the table: medians, and ratios as median (lowest to highest round)."""
    cells = [found["case"], f"{found['entries']:,}", found["plan"], f"{found['ours'][0]['jobs']:,}"]
    for name in ("ours", *PLAIN):
        middle = {key: statistics.median(run[key] for run in found[name]) for key in found[name][0]}
        cells.append(f"{middle['seconds']:.1f} s, {middle['processor_seconds']:.1f} s, {middle['megabytes']:.0f} MB")
    for name, key in itertools.product(PLAIN, ("processor_seconds", "megabytes")):
        ratios = [one[key] / other[key] for one, other in zip(found["ours"], found[name], strict=True)]
        cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure the cases, print a table and, with `--json`, keep every run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", default=["4x1", "12x2", "12x5"], help="targets x seeds")
    parser.add_argument("--plan", nargs="+", choices=PLANS, default=PLANS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write every run here")
    args = parser.parse_args()
    out = args.json.absolute() if args.json else None
    found = []
    ratios = " | ".join(f"to {name}: processor | memory" for name in PLAIN)
    print(f"| case | entries | plan | jobs | ours: wall, processor, memory | {' | '.join(PLAIN)} | {ratios} |")
    print("|" + "---|" * 11)
    for case in args.case:
        targets, seeds = map(int, case.split("x"))
        for one in measure(targets, seeds, args.rounds, args.plan):
            found.append(one)
            print(line(one), flush=True)
    if out:
        out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
