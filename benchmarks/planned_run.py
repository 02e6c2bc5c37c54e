"""A run beside its plan: what `plan --calibrate` says an experiment takes on this machine, and what it then takes.

    python benchmarks/planned_run.py --data data/cifar10 [--device cuda] [--small] [--json FILE]

A robust and a standard ResNet-18 for 32 px from CIFAR-10 to a constructed set, in both modes, through Snakemake. On a
GPU, jobs are counted one after another, as on one card. The goal is a ratio within 1.5, either way.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from checkout import ROOT
from side_by_side import describe, hardware


def main() -> None:
    """Plan, run, compare."""
    arguments = _arguments()
    about = hardware(arguments.device, 1)
    print(describe(about))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "experiment.yaml"
        file.write_text(yaml.safe_dump(experiment(Path(folder), arguments.data, small=arguments.small)))
        planned = _planned(file, arguments.device, arguments.cores)
        start = time.monotonic()
        _run([sys.executable, "-m", "snakemake", "--cores", str(arguments.cores), "--configfile", str(file),
              "--workflow-profile", "profiles/default"], arguments.device)  # fmt: skip
        measured = time.monotonic() - start
    ratio = measured / planned
    print(f"planned {planned:.0f} s, took {measured:.0f} s: ratio {ratio:.2f}")
    if arguments.json:
        content = {"about": about, "planned": planned, "measured": measured, "ratio": ratio}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10: train.parquet and test.parquet")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--small", action="store_true", help="only try whether it runs")
    parser.add_argument("--json", type=Path, help="write the outcome here")
    return parser.parse_args()


def experiment(folder: Path, data: Path, *, small: bool) -> dict[str, Any]:
    """The experiment, below a folder of its own."""
    limits = {"train_limit": 100, "test_limit": 50} if small else {}
    training = {"batch_size": 128, "schedule": "one-cycle", "augmentation": "crop-flip", "precision": "bf16"}
    target = {"kind": "shapes", "task": "coarse", "train": 100 if small else 5000, "test": 50 if small else 1000}
    return {
        "experiment": "planned",
        "store": str(folder / "store"),
        "results": str(folder / "results"),
        "input_size": 32,
        "preprocessing": {"resize_ratio": 1.0},
        "datasets": {
            "cifar10": {"origin": {"kind": "parquet", "path": str(data.resolve())}, **limits},
            "coarse": {"origin": target},
        },
        "source": "cifar10",
        "targets": ["coarse"],
        "grid": [
            {
                "architectures": ["resnet8_w4" if small else "resnet18_cifar"],
                "eps": [0, 0.25],
                "modes": ["fixed-feature", "full-network"],
            }
        ],
        "pretraining": {
            "recipe": "short",
            "training": {"epochs": 1 if small else 10, "learning_rate": 0.2, **training},
            "attack": {"steps": 3, "use_best": False},
        },
        "features": {"precision": "bf16"},
        "finetuning": {"learning_rates": [0.01], "training": {"epochs": 1 if small else 10, **training}},
        "figures": {"draw": ["headline"], "widths": [], "fixed_eps": 0.25},
    }


def _planned(file: Path, device: str, cores: int) -> float:
    """Seconds that `plan` says, calibrated on this device now."""
    said = _run(
        [sys.executable, "-m", "robust_transfer", "plan", "--configfile", str(file), "--calibrate", "--device", device,
         "--cores", str(cores), "--json"],
        device,
    )  # fmt: skip
    content: dict[str, Any] = json.loads(said)
    if content["wall_hours"]:
        (hours,) = content["wall_hours"].values()
        return 3600 * float(hours)
    (found,) = content["total"]["hours"].values()
    return 3600 * (float(found["device"]) + float(found["processor"]) / cores)


def _run(command: list[str], device: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow")}
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"`{' '.join(command)}` failed")
    return done.stdout


if __name__ == "__main__":
    main()
