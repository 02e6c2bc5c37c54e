"""The paper's fixed-feature protocol: all learning rates in one pass, beside one run per learning rate.

    python benchmarks/parallel_heads.py [--case resnet18-64 …] [--heads 10] [--device cuda] [--rounds 5] [--json FILE]

Images per second of training a head, summed over heads: `--heads` heads that share each forward pass of the frozen
network, and one head alone. If heads cost nothing, the ratio would be their number. BatchNorm is in train mode, as in
the released code; loading and augmentation, which are shared as well, are left out. tests/stages/test_linear_heads.py
checks that every head ends with the weights that it has when trained alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import checkout  # noqa: F401  # before robust_transfer
import torch
from robust_transfer.configuration.training import Precision
from robust_transfer.configuration.transfer import LinearHeadsSettings
from robust_transfer.machine.devices import prepare
from robust_transfer.machine.distributed import ALONE
from robust_transfer.networks.build import build
from robust_transfer.stages import linear_heads as heads
from robust_transfer.training.loop import Training
from side_by_side import Contender, NetworkCase, Speeds, command_line, describe, hardware, measure, show, write


@dataclass(frozen=True)
class Case(NetworkCase):
    """A network and a batch of images."""

    batch: int
    classes: int
    precision: Precision


CASES = [
    Case("resnet8_w16", 32, 64, 100, "bf16"),
    Case("resnet18", 64, 64, 100, "bf16"),
    Case("resnet18", 224, 64, 100, "bf16"),
    Case("resnet50", 224, 64, 100, "bf16"),
]
STEPS = 2
"""Steps a timed call."""


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    known = {case.name: case for case in CASES}
    about = hardware(arguments.device, arguments.threads) | {"alternating rounds": arguments.rounds}
    print(describe(about))
    together, alone = f"{arguments.heads} heads in one pass", "a run for each head"
    measured: list[Speeds] = []
    for case in [known[name] for name in arguments.case or known]:
        common = (case, arguments.threads, arguments.device)
        contenders = {
            together: Contender(trained, (arguments.heads, *common)),
            alone: Contender(trained, (1, *common)),
        }
        name = f"{case.architecture} at {case.side} px, batch {case.batch}, {case.classes} classes, {case.precision}"
        # What is counted: images × heads. The single head does a part of them in a call, and so of the time.
        speeds = measure(
            name, contenders, images=case.batch * STEPS, rounds=arguments.rounds, threads=arguments.threads,
            device=arguments.device,
        )  # fmt: skip
        speeds.images_per_second[together] = [arguments.heads * speed for speed in speeds.images_per_second[together]]
        measured.append(speeds)
        show(measured[-1:], [(together, alone)])
    if arguments.json:
        write(arguments.json, measured, [(together, alone)], about)


def _arguments() -> argparse.Namespace:
    parser = command_line(__doc__, CASES)
    parser.add_argument("--heads", type=int, default=10)
    return parser.parse_args()


def trained(n_heads: int, case: Case, threads: int, device: str) -> Callable[[], None]:
    """Some steps of so many heads, as the stage `linear_heads` trains them."""
    on = prepare(device, threads, case.precision)
    rates = [0.1 * 0.7**i for i in range(n_heads)]
    settings = LinearHeadsSettings.model_validate(
        {
            "purpose": "final",
            "learning_rates": rates,
            "weight_decays": [5e-4],
            "training": {"batch_size": case.batch, "precision": case.precision},
            "batchnorm": "drift",
            "normalisation": None,
        }
    )
    network = build(case.architecture, 1000, seed=0).to(on)
    optimiser = heads.put_on(network, case.classes, [(rate, 5e-4) for rate in rates], settings)
    network.train().to(memory_format=torch.channels_last)
    training = Training(network, settings.training, 0, ALONE, rates[0], on, optimiser)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(case.batch, 3, case.side, case.side, generator=generator).to(on)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, case.classes, (case.batch,), generator=generator).to(on)

    def steps() -> None:
        for _ in range(STEPS):
            training.learn(iter([(images, labels)]), images=case.batch, groups=1, rate=rates[0])

    return steps


if __name__ == "__main__":
    main()
