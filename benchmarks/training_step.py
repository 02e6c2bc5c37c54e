"""Images per second of an adversarial training step: ours beside that of MadryLab's robustness library.

    python benchmarks/training_step.py [--case resnet18-64 …] [--device cuda] [--rounds 5] [--json FILE]

The same network, batch, attack (L2, three steps, no random start, the last iterate) and device, in alternating runs.
Ours is what `training.loop` does at every step: attack, forward, backward, SGD. Left out on both sides: loading and
augmentation. tests/benchmarks/test_benchmarks.py checks that both end with the same weights.

fp32 is compared with fp32, on a GPU TF32 with TF32, and the best of ours (bf16) with the best that the library offers,
which is fp32, there TF32 (see `madry_robustness.py`), and with the library wrapped in autocast by hand. Both sides have
the same TF32 setting, which the name says: "fp32" is without, in matrix products and in convolutions.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import checkout  # noqa: F401  # before robust_transfer
import madry_robustness
import torch
from robust_transfer.attacks import L2
from robust_transfer.configuration.training import Attack, Precision, Recipe
from robust_transfer.machine.devices import autocast, prepare
from robust_transfer.machine.distributed import ALONE
from robust_transfer.networks.build import Network, build
from robust_transfer.training.loop import Adversary, Training
from side_by_side import (
    Contender,
    NetworkCase,
    Speeds,
    command_line,
    describe,
    hardware,
    measure,
    show,
    use_tf32,
    write,
)
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

STEPS, LEARNING_RATE = 3, 1e-3
PRECISIONS = ("bf16", "fp32", "tf32")
OURS_BEST, OURS_FP32, OURS_TF32 = "ours, bf16", "ours, fp32", "ours, tf32"
THEIRS_FP32, THEIRS_TF32 = "robustness, fp32", "robustness, tf32"
THEIRS_BY_HAND = "robustness, bf16 by hand"
COMPARED = [
    (OURS_FP32, THEIRS_FP32), (OURS_TF32, THEIRS_TF32), (OURS_BEST, THEIRS_FP32), (OURS_BEST, THEIRS_TF32),
    (OURS_BEST, THEIRS_BY_HAND),
]  # fmt: skip
# Dense bf16 FLOP/s from the data sheets.
PEAK = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12}


@dataclass(frozen=True)
class Case(NetworkCase):
    """A network and a batch of images."""

    batch: int
    classes: int
    eps: float


ON_CPU = [
    Case("resnet8_w16", 32, 128, 10, 0.5),
    Case("resnet18", 64, 64, 200, 1.0),
    Case("resnet18", 224, 16, 1000, 3.0),
]
ON_CUDA = [
    Case("resnet8_w16", 32, 128, 10, 0.5),
    Case("resnet18", 64, 512, 200, 1.0),
    Case("resnet18", 224, 256, 1000, 3.0),
    Case("resnet50", 224, 256, 1000, 3.0),
]


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    cases = ON_CUDA if arguments.device == "cuda" else ON_CPU
    if arguments.case:
        known = {case.name: case for case in cases}
        cases = [known[name] for name in arguments.case]
    if arguments.batch:
        cases = [replace(case, batch=arguments.batch) for case in cases]
    about = hardware(arguments.device, arguments.threads) | {"alternating rounds": arguments.rounds}
    print(describe(about))
    measured = []
    for case in cases:
        measured.append(_measured(case, arguments))
        show(measured[-1:], COMPARED)
    if arguments.json:
        write(arguments.json, measured, COMPARED, about)


def _arguments() -> argparse.Namespace:
    parser = command_line(__doc__, ON_CPU + ON_CUDA)
    parser.add_argument("--batch", type=int, help="images a batch (default: by case)")
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS,
        help="of ours and theirs; on a GPU cuDNN takes minutes to choose its kernels for fp32",
    )  # fmt: skip
    return parser.parse_args()


def _measured(case: Case, arguments: argparse.Namespace) -> Speeds:
    device, threads = arguments.device, arguments.threads
    by_precision = {
        "bf16": {
            OURS_BEST: Contender(ours, (case, "bf16", threads, device)),
            THEIRS_BY_HAND: Contender(theirs, (case, "bf16", device)),
        },
        "fp32": {
            OURS_FP32: Contender(ours, (case, "fp32", threads, device)),
            THEIRS_FP32: Contender(theirs, (case, "fp32", device)),
        },
        "tf32": {
            OURS_TF32: Contender(ours, (case, "tf32", threads, device)),
            THEIRS_TF32: Contender(theirs, (case, "tf32", device)),
        },
    }
    if device == "cpu":
        del by_precision["tf32"]
    contenders = {
        name: contender
        for precision in arguments.precisions
        for name, contender in by_precision.get(precision, {}).items()
    }
    name = f"{case.architecture} at {case.side} px, batch {case.batch}, L2, {STEPS} steps"
    speeds = measure(name, contenders, images=case.batch, rounds=arguments.rounds, threads=threads, device=device)
    if OURS_BEST not in contenders:
        return speeds
    flops = flops_per_image(case)
    notes = {
        "GFLOP an image": flops / 1e9,
        "TFLOP/s, ours, bf16": flops * speeds.median(OURS_BEST) / 1e12,
        "share of bf16 peak": flops * speeds.median(OURS_BEST) / peak(device, threads),
    }
    return replace(speeds, notes=notes)


def ours(case: Case, precision: Precision, threads: int, device: str) -> Callable[[], None]:
    """A step of our training loop."""
    on = prepare(device, threads, precision)
    network, images, labels = given(case, on)
    network.train().to(memory_format=torch.channels_last)
    recipe = Recipe(batch_size=len(images), learning_rate=LEARNING_RATE, precision=precision)
    training = Training(network, recipe, 0, ALONE, LEARNING_RATE, on)
    adversary = Adversary(network, L2(case.eps), Attack(steps=STEPS, use_best=False), 0, case.side)
    images = images.contiguous(memory_format=torch.channels_last)
    indices = torch.arange(len(images), device=on)

    def step() -> None:
        with autocast(precision, on):
            perturbed = adversary(images, labels, 0, indices)
        training.learn(iter([(perturbed, labels)]), images=len(images), groups=1, rate=LEARNING_RATE)

    return step


def theirs(case: Case, precision: Precision, device: str) -> Callable[[], None]:
    """A step of the robustness library on the same network; in bf16 by torch's autocast around its loop."""
    use_tf32(precision == "tf32")
    torch.backends.cudnn.benchmark = True  # as ours does; its own training leaves torch's default
    network, images, labels = given(case, torch.device(device))
    trainer = madry_robustness.Trainer(
        network, eps=case.eps, steps=STEPS, learning_rate=LEARNING_RATE, device=device, by_hand=precision == "bf16"
    )
    return lambda: trainer.train([(images, labels)])


def given(case: Case, device: torch.device) -> tuple[Network, Tensor, Tensor]:
    """The network, images and labels, the same for every contender."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(case.batch, 3, case.side, case.side, generator=generator)
    labels = torch.randint(0, case.classes, (case.batch,), generator=generator)
    return build(case.architecture, case.classes, seed=0).to(device), images.to(device), labels.to(device)


def flops_per_image(case: Case) -> int:
    """Of a step: forward and backward to the image for each step of the attack, then forward and backward to weights
    and activations, each backward counted as one forward or two."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        build(case.architecture, case.classes).eval()(torch.zeros(1, 3, case.side, case.side))
    return (2 * STEPS + 3) * int(counter.get_total_flops())


def peak(device: str, threads: int) -> float:
    """FLOP/s in bf16: from the data sheet of a known GPU, else of a large matrix product, measured now."""
    if device == "cuda":
        name = torch.cuda.get_device_name()
        for model, stated in PEAK.items():
            if model in name:
                return stated
    torch.set_num_threads(threads)
    side = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    fastest = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        (a @ b)[0, 0].item()
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * side**3 / fastest


if __name__ == "__main__":
    main()
