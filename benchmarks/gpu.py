"""Everything that is to be measured on a GPU first, one after another, by one command.

    python benchmarks/gpu.py --data data/cifar10 --out gpu/ [--only training cifar] [--rounds 5]
    python benchmarks/gpu.py --data data/cifar10 --out /tmp/tried --device cpu --small     # tries every step in minutes

Each step is a benchmark of this folder, run in a process of its own, so that one is alive at a time and one that fails
leaves the others alone; it writes its JSON to `--out`, and `summary.md` there holds what was measured beside the goal,
with the card, the number of rounds and the date. `--data` is as for `cifar_robust_resnet18.py`. On a GPU it should take
an hour or two; nothing else should run there. `--small` makes every step as small as it can be: its figures mean
nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkout import ROOT

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Step:
    """A measurement, and how its result is read."""

    name: str
    goal: str
    script: str
    options: Sequence[str]
    small: Sequence[str]
    """More options under `--small`, which replace earlier ones."""
    read: Callable[[dict[str, Any]], str]
    rounds: bool = True
    """It has `--rounds`."""
    data: bool = False
    """It has `--data`."""


def speeds(content: dict[str, Any]) -> str:
    """Median ratios, and shares of peak, of a script that compares speeds."""
    lines = []
    for case in content["cases"]:
        ratios = ", ".join(f"{pair} {value}×" for pair, value in case["median_ratios"].items())
        share = case["notes"].get("share of bf16 peak")
        lines.append(f"{case['case']}: {ratios}" + (f", share of bf16 peak {share:.3f}" if share else ""))
    return "; ".join(lines)


def outcomes(content: dict[str, Any]) -> str:
    """Minutes and accuracies of a training from end to end."""
    return "; ".join(
        f"{name}: {one['minutes']:.2f} min, {one['clean']:.2f} % clean, {one['pgd']:.2f} % under PGD"
        for name, one in content["outcomes"].items()
    )


def seconds(content: dict[str, Any]) -> str:
    """How many times as fast as scikit-learn."""
    found = content["seconds"]
    return f"{found['scikit-learn'] / found['ours']:.1f}× ({found['ours']:.2f} s)"


def planned(content: dict[str, Any]) -> str:
    """A run beside its plan."""
    return f"planned {content['planned']:.0f} s, took {content['measured']:.0f} s: ratio {content['ratio']:.2f}"


STEPS = (
    Step(
        "training", "5× best with best, ResNet-18 and ResNet-50 at 224 px", "training_step.py",
        ("--case", "resnet8_w16-32", "resnet18-64", "resnet18-224", "resnet50-224"),
        ("--case", "resnet8_w16-32", "--batch", "4"), speeds,
    ),
    Step(
        "cifar", "under 5 minutes at 86.06 / 46.06 % (Linf 8/255)", "cifar_robust_resnet18.py",
        ("--protocol", "fast", "--epochs", "15"),
        ("--architecture", "resnet8_w4", "--epochs", "1", "--limit", "64", "--batch", "16"), outcomes,
        rounds=False, data=True,
    ),
    Step(
        "cifar_pgd3", "the library's accuracy in a fifth of its time", "cifar_robust_resnet18.py",
        ("--protocol", "pgd3", "--epochs", "30", "--theirs", "tf32"),
        ("--architecture", "resnet8_w4", "--epochs", "1", "--limit", "64", "--batch", "16"), outcomes,
        rounds=False, data=True,
    ),
    Step(
        "features", "90 % of the bare forward pass", "features.py", ("--images", "2048"),
        ("--case", "resnet8_w16-32", "--images", "64"), speeds,
    ),
    Step(
        "heads", "ten heads for the time of one", "parallel_heads.py", (),
        ("--case", "resnet8_w16-32", "--heads", "2"), speeds,
    ),
    Step(
        "probing", "50× scikit-learn", "probing.py", (),
        ("--images", "200", "--features", "8", "--classes", "3", "--strengths", "3"), seconds, rounds=False,
    ),
    Step(
        "plan", "a measured run within 1.5×", "planned_run.py", (), ("--small",), planned, rounds=False, data=True,
    ),
)  # fmt: skip


def main() -> None:
    """Run the steps, and write what they measured."""
    arguments = _arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for step in STEPS:
        if step.name in (arguments.only or [step.name]):
            rows.append(_measured(step, arguments))
            print(rows[-1], flush=True)
    head = "| what | goal | measured | on | rounds | seconds |\n|---|---|---|---|---|---|\n"
    (arguments.out / "summary.md").write_text(head + "\n".join(rows) + "\n")
    if any("failed" in row for row in rows):
        raise SystemExit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10: train.parquet and test.parquet")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is measured")
    parser.add_argument("--only", nargs="+", choices=[step.name for step in STEPS], help="only these steps")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="only try whether everything runs")
    return parser.parse_args()


def command(step: Step, arguments: argparse.Namespace) -> list[str]:
    """The command line of a step."""
    options = [*(step.small if arguments.small else step.options), "--device", arguments.device]
    if step.rounds:
        options += ["--rounds", "1" if arguments.small else str(arguments.rounds)]
    if step.data:
        options += ["--data", str(arguments.data.resolve())]
    return [sys.executable, str(HERE / step.script), *options, "--json", str(_json(step, arguments))]


def _json(step: Step, arguments: argparse.Namespace) -> Path:
    path: Path = arguments.out.resolve() / f"{step.name}.json"
    return path


def _measured(step: Step, arguments: argparse.Namespace) -> str:
    """A row of the summary."""
    start = time.monotonic()
    with open(arguments.out / f"{step.name}.log", "w") as log:
        done = subprocess.run(command(step, arguments), cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    took = time.monotonic() - start
    if done.returncode:
        return f"| {step.name} | {step.goal} | failed: see {step.name}.log | | | {took:.0f} |"
    content: dict[str, Any] = json.loads(_json(step, arguments).read_text())
    about: Mapping[str, Any] = content["about"]
    where = f"{about['device']}, torch {about['torch']}, {about.get('date', '')}".rstrip(", ")
    return f"| {step.name} | {step.goal} | {step.read(content)} | {where} | {_rounds(content)} | {took:.0f} |"


def _rounds(content: dict[str, Any]) -> str:
    counts = [len(rounds) for case in content.get("cases", ()) for rounds in case["images_per_second"].values()]
    return str(round(statistics.median(counts))) if counts else "1"


if __name__ == "__main__":
    main()
