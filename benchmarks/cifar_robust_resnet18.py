"""End to end at CIFAR's scale: a robust ResNet-18, ours beside the robustness library.

    python benchmarks/cifar_robust_resnet18.py --data data/cifar10 --device cuda [--epochs 30] [--json FILE]
    python benchmarks/cifar_robust_resnet18.py --data data/cifar10 --device cuda --protocol fast --epochs 15

`--data` is a folder with train.parquet and test.parquet (columns image and label). Both sides start from the same
weights and see the same augmented images in the same order, at the same learning rates, and attack alike. `--protocol
pgd3`: L2 at 0.5, three steps, the last iterate. `--protocol fast`: Linf at 8/255, one step of 1.25 eps from a random
start (Wong, Rice and Kolter 2020, who published 86.06 %, and 46.06 % under PGD of 50 steps and 10 restarts, after 12
minutes of a 2080 Ti), measured as there. Ours runs through the stages `datasets`, `pretraining` and `evaluation` in
bf16; theirs is its own training loop in fp32, or with `--theirs tf32` in that (torch's own default is TF32 in
convolutions alone), on batches that ours has augmented. Both are then measured on all test images in fp32, or in
`--evaluation tf32`, clean and under the same PGD. Prints minutes of training and accuracies.
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
from robust_transfer.configuration.eps import eps_value
from robust_transfer.configuration.load import validate
from robust_transfer.configuration.running import Running
from robust_transfer.configuration.training import Attack, EvaluationSettings, Norm, PretrainingSettings
from robust_transfer.dag.grid import plan
from robust_transfer.dag.wiring import Wiring
from robust_transfer.datasets.arrow import open_split
from robust_transfer.datasets.resident import square_images
from robust_transfer.loading.loader import Loader, Subset, open_loader
from robust_transfer.networks.build import build
from robust_transfer.registry import STAGES
from robust_transfer.statistics.metrics import top1
from robust_transfer.store.entry import Entry, open_entry
from robust_transfer.training.attacking import attacked_predictions
from robust_transfer.training.inference import predict
from robust_transfer.training.schedules import learning_rate_at, steps
from side_by_side import describe, hardware, use_tf32
from torch import Tensor


@dataclass(frozen=True)
class Protocol:
    """A threat model, and how it is trained against and measured."""

    norm: Norm
    eps: str
    attack: Attack
    evaluation: Attack


PROTOCOLS = {
    "pgd3": Protocol(
        "l2", "0.5", Attack(steps=3, use_best=False), Attack(steps=20, relative_step_size=0.125, random_start=True)
    ),
    "fast": Protocol(
        "linf", "8/255",
        Attack(steps=1, relative_step_size=1.25, random_start=True, use_best=False),
        Attack(steps=50, relative_step_size=0.25, random_start=True, restarts=10),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """Time and accuracies of one training."""

    minutes: float
    images_per_second: float
    clean: float
    """Percent of test images."""
    pgd: float
    """Percent of test images classified correctly under the protocol's attack."""


def main() -> None:
    """Train with both libraries, measure both networks, print."""
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    about = hardware(arguments.device, arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        entries = _entries(arguments, Path(folder))
        outcomes = {"ours, bf16": ours(entries, arguments)}
        if not arguments.ours_alone:
            torch.cuda.empty_cache()  # nothing of ours is alive beside theirs
            outcomes[f"robustness, {arguments.theirs}"] = theirs(entries, arguments)
    print(describe(about))
    print(f"{'':20}{'minutes':>10}{'images/s':>12}{'clean %':>10}{'PGD %':>10}")
    for name, outcome in outcomes.items():
        print(
            f"{name:20}{outcome.minutes:10.2f}{outcome.images_per_second:12.1f}{outcome.clean:10.1f}{outcome.pgd:10.1f}"
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
    parser.add_argument("--protocol", choices=PROTOCOLS, default="pgd3")
    parser.add_argument("--ours-alone", action="store_true", help="without the library")
    parser.add_argument("--theirs", choices=["fp32", "tf32"], default="fp32", help="precision of the library")
    parser.add_argument("--evaluation", choices=["fp32", "tf32"], default="fp32", help="precision of the attacks")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU")
    parser.add_argument("--json", type=Path, help="write the outcome here")
    return parser.parse_args()


def _entries(arguments: argparse.Namespace, folder: Path) -> dict[str, Entry]:
    """The planned entries by stage; nothing is made yet."""
    protocol = PROTOCOLS[arguments.protocol]
    constructed = {"kind": "shapes", "task": "coarse", "train": 10, "test": 10}
    limits = {"train_limit": arguments.limit, "test_limit": arguments.limit}
    experiment = {
        "experiment": "cifar-robust",
        "store": str(folder / "store"),
        "results": str(folder / "results"),
        "input_size": 32,
        "preprocessing": {"resize_ratio": 1.0},
        "datasets": {
            "cifar10": {"origin": {"kind": "parquet", "path": arguments.data}, **limits},
            "any": {"origin": constructed},
        },
        "source": "cifar10",
        "targets": ["any"],  # there has to be one; nothing is transferred to it
        "grid": [
            {
                "architectures": [arguments.architecture], "norm": protocol.norm, "eps": [protocol.eps],
                "modes": [],
            }
        ],
        "evaluation": {"precision": arguments.evaluation, "attack": protocol.evaluation.model_dump()},
        "pretraining": {
            "recipe": "cifar",
            "training": {
                "epochs": arguments.epochs, "batch_size": arguments.batch, "learning_rate": 0.1, "weight_decay": 5e-4,
                "schedule": "one-cycle", "augmentation": "crop-flip", "precision": "bf16",
                "fp32_head": True,
            },
            "attack": protocol.attack.model_dump(),
            "check": {"every": arguments.epochs},
        },
    }  # fmt: skip
    wiring = Wiring(plan(validate(experiment)))
    wiring.write_entries()
    made = [entry for entry in wiring.grid.entries.values() if entry.name != "any"]
    paths = {entry.stage: wiring.store / entry.id for entry in made}
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
    device, protocol = torch.device(arguments.device), PROTOCOLS[arguments.protocol]
    use_tf32(arguments.theirs == "tf32")
    settings = PretrainingSettings.model_validate(entries["pretraining"].settings)
    recipe, dataset = settings.training, entries["datasets"]
    split = open_split(dataset, "train")
    network = build(settings.architecture, len(split.classes), seed=settings.seed).to(device)
    trainer = madry_robustness.Trainer(
        network, eps=eps_value(protocol.eps), steps=protocol.attack.steps, learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay, device=arguments.device, by_hand=False, norm=protocol.norm,
        relative_step_size=protocol.attack.step_size, random_start=protocol.attack.random_start,
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
    use_tf32(arguments.evaluation == "tf32")
    clean, threat = predict(network, pixels, arguments.evaluation), threat_model(protocol.norm, protocol.eps)
    attacked = attacked_predictions(
        network, pixels, labels, clean, threat, evaluation.attack, evaluation.seed, arguments.evaluation
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
