"""End to end at CIFAR's scale: a robust ResNet-18 (L2, eps 0.5), ours beside the robustness library.

    python benchmarks/cifar_robust_resnet18.py --data data/cifar10 --device cuda [--epochs 30] [--json FILE]

`--data` is a folder with train.parquet and test.parquet (columns image and label). Both sides start from the same
weights and see the same augmented images in the same order, at the same learning rates; both attack by three steps of
PGD and keep the last iterate. Ours runs through the stages `datasets`, `pretraining` and `evaluation` in bf16; theirs
is its own training loop in fp32, on batches that ours has augmented. Both are then measured on all test images, clean
and under the same PGD of 20 steps with a random start. Prints minutes of training and accuracies.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import checkout  # noqa: F401  # before robust_transfer
import madry_robustness
import numpy as np
import torch
from robust_transfer import randomness
from robust_transfer.attacks import threat_model
from robust_transfer.configuration.load import validate
from robust_transfer.configuration.running import Running
from robust_transfer.configuration.training import EvaluationSettings, PretrainingSettings
from robust_transfer.dag.grid import plan
from robust_transfer.dag.wiring import Wiring
from robust_transfer.datasets.arrow import open_split
from robust_transfer.datasets.resident import square_images
from robust_transfer.loading.loader import Loader, Subset, open_loader
from robust_transfer.networks.build import build
from robust_transfer.registry import STAGES
from robust_transfer.stages.evaluation import attacked_predictions
from robust_transfer.statistics.metrics import top1
from robust_transfer.store.entry import Entry, open_entry
from robust_transfer.training.inference import predict
from robust_transfer.training.schedules import learning_rate_at, steps
from side_by_side import describe, hardware
from torch import Tensor

EPS = "0.5"


@dataclass(frozen=True)
class Outcome:
    """Time and accuracies of one training."""

    minutes: float
    images_per_second: float
    clean: float
    """Percent of test images."""
    pgd20: float
    """Percent of test images classified correctly under PGD of 20 steps."""


def main() -> None:
    """Train with both libraries, measure both networks, print."""
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    about = hardware(arguments.device, arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        entries = _entries(arguments, Path(folder))
        outcomes = {"ours, bf16": ours(entries, arguments)}
        outcomes["robustness, fp32"] = theirs(entries, arguments)
    print(describe(about))
    print(f"{'':20}{'minutes':>10}{'images/s':>12}{'clean %':>10}{'PGD-20 %':>10}")
    for name, outcome in outcomes.items():
        print(
            f"{name:20}{outcome.minutes:10.2f}{outcome.images_per_second:12.1f}{outcome.clean:10.1f}{outcome.pgd20:10.1f}"
        )
    if arguments.json:
        as_json = {name: asdict(outcome) for name, outcome in outcomes.items()}
        arguments.json.write_text(json.dumps({"about": about, "outcomes": as_json}, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--architecture", default="resnet18_cifar")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--limit", type=int, help="at most this many training and test images, to try it out")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU")
    parser.add_argument("--json", type=Path, help="write the outcome here")
    return parser.parse_args()


def _entries(arguments: argparse.Namespace, folder: Path) -> dict[str, Entry]:
    """The planned entries by stage; nothing is made yet."""
    limits = {"train_limit": arguments.limit, "test_limit": arguments.limit}
    experiment = {
        "experiment": "cifar-robust",
        "store": str(folder / "store"),
        "results": str(folder / "results"),
        "input_size": 32,
        "preprocessing": {"resize_ratio": 1.0},
        "datasets": {"cifar10": {"origin": {"kind": "parquet", "path": arguments.data}, **limits}},
        "source": "cifar10",
        "targets": ["cifar10"],
        "grid": [{"architectures": [arguments.architecture], "eps": [EPS], "modes": ["fixed-feature"]}],
        "pretraining": {
            "recipe": "cifar",
            "training": {
                "epochs": arguments.epochs, "batch_size": arguments.batch, "learning_rate": 0.1, "weight_decay": 5e-4,
                "schedule": "one-cycle", "augmentation": "crop-flip", "precision": "bf16",
            },
            "attack": {"steps": 3, "use_best": False},
            "check": {"every": arguments.epochs},
        },
    }  # fmt: skip
    wiring = Wiring(plan(validate(experiment)))
    wiring.write_entries()
    paths = {entry.stage: wiring.store / entry.id for entry in wiring.grid.entries.values()}
    return {stage: open_entry(path) for stage, path in paths.items()}


def ours(entries: dict[str, Entry], arguments: argparse.Namespace) -> Outcome:
    """Train and evaluate through the stages, as the workflow runs them."""
    for stage in ("datasets", "pretraining", "evaluation"):
        run = importlib.import_module(STAGES[stage].module).run
        run(entries[stage], threads=arguments.threads, device=arguments.device)
    timing: dict[str, Any] = json.loads((entries["pretraining"].path / "timing.json").read_text())
    rows = json.loads((entries["evaluation"].path / "metrics.json").read_text())
    clean, attacked = (row["value"] for row in rows if row["metric"] == "top1")
    seconds = sum(epoch["seconds"] for epoch in timing["epochs"])
    return Outcome(seconds / 60, timing["images"] / seconds, clean, attacked)


def theirs(entries: dict[str, Entry], arguments: argparse.Namespace) -> Outcome:
    """Train by the library's loop, from the same initial weights as ours."""
    device = torch.device(arguments.device)
    settings = PretrainingSettings.model_validate(entries["pretraining"].settings)
    recipe, dataset = settings.training, entries["datasets"]
    split = open_split(dataset, "train")
    network = build(settings.architecture, len(split.classes), seed=settings.seed).to(device)
    trainer = madry_robustness.Trainer(
        network, eps=float(EPS), steps=3, learning_rate=recipe.learning_rate, weight_decay=recipe.weight_decay,
        device=arguments.device, by_hand=False,
    )  # fmt: skip
    loader = open_loader(
        [Subset(split, np.arange(len(split)))], recipe, input_size=settings.input_size, resize_ratio=1.0,
        seed=settings.seed, device=device, threads=arguments.threads, running=Running(),
    )  # fmt: skip
    start, images = time.monotonic(), 0
    with closing(loader):
        for epoch in range(recipe.epochs):
            batches = _Batches(loader, settings, epoch, trainer)
            trainer.train(batches)
            images += sum(map(len, batches.groups))
    seconds = time.monotonic() - start
    test = open_split(dataset, "test")
    pixels = torch.from_numpy(square_images(test, settings.input_size, 1.0, threads=arguments.threads)).to(device)
    labels = torch.tensor(test.labels, device=device)
    evaluation = EvaluationSettings.model_validate(entries["evaluation"].settings)
    clean, threat = predict(network, pixels, "fp32"), threat_model("l2", EPS)
    attacked = attacked_predictions(
        network, pixels, labels, clean, threat, evaluation.attack, evaluation.seed, "fp32"
    )  # fmt: skip
    return Outcome(seconds / 60, images / seconds, top1(test.labels, clean), top1(test.labels, attacked))


class _Batches:
    """The batches of an epoch as ours makes them; each sets the learning rate of its step."""

    def __init__(
        self, loader: Loader, settings: PretrainingSettings, epoch: int, trainer: madry_robustness.Trainer
    ) -> None:
        self._loader, self._settings, self._epoch, self._trainer = loader, settings, epoch, trainer
        order = randomness.order(settings.seed, epoch, len(loader.labels))
        self.groups = [group for groups in steps(order, settings.training) for group in groups]

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        recipe, labels = self._settings.training, self._loader.labels
        images = self._loader.batches(self._epoch, self.groups, self._settings.input_size)
        for number, group in enumerate(self.groups, start=self._epoch * len(self)):
            self._trainer.rate = learning_rate_at(recipe, recipe.learning_rate, number, len(self))
            yield next(images).contiguous(), labels[group.to(labels.device)]


if __name__ == "__main__":
    main()
