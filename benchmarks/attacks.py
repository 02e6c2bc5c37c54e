"""Images per second of PGD alone: ours beside foolbox and torchattacks.

    python benchmarks/attacks.py [--norm l2] [--architecture resnet18 --side 64 --batch 64] [--device cuda] …

The same network, images, ball, steps and step size, no random start, and the last iterate; in alternating runs. Ours as
adversarial training calls it: BatchNorm folded, fp32 against fp32, and in bf16. fp32 is without TF32 on all sides.
tests/test_attacks_peers.py checks that all of them return the same images.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import checkout  # noqa: F401  # before robust_transfer
import torch
from robust_transfer.attacks import Threat, pgd, threat_model
from robust_transfer.configuration.training import Attack, Norm, Precision
from robust_transfer.machine.devices import autocast, prepare
from robust_transfer.networks.build import Network, build
from robust_transfer.networks.folding import Folded
from side_by_side import Contender, NetworkCase, command_line, describe, hardware, measure, show, use_tf32, write
from torch import Tensor

EPS = {"l2": "0.5", "linf": "4/255"}
COMPARED = [
    (ours, theirs) for theirs in ("foolbox, fp32", "torchattacks, fp32") for ours in ("ours, fp32", "ours, bf16")
]


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    about = hardware(arguments.device, arguments.threads) | {"alternating rounds": arguments.rounds}
    print(describe(about))
    measured = []
    for norm in arguments.norm:
        case = Case(
            arguments.architecture, arguments.side, arguments.batch, norm, arguments.steps, arguments.threads,
            arguments.device,
        )  # fmt: skip
        contenders = {
            "ours, bf16": Contender(ours, (case, "bf16")),
            "ours, fp32": Contender(ours, (case, "fp32")),
            "foolbox, fp32": Contender(foolbox_pgd, (case,)),
            "torchattacks, fp32": Contender(torchattacks_pgd, (case,)),
        }
        name = f"PGD, {norm}, {case.steps} steps, {case.architecture} at {case.side} px, batch {case.batch}"
        speeds = measure(
            name, contenders, images=case.batch, rounds=arguments.rounds, threads=case.threads, device=case.device
        )
        measured.append(speeds)
        show(measured[-1:], COMPARED)
    if arguments.json:
        write(arguments.json, measured, COMPARED, about)


def _arguments() -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--norm", nargs="+", choices=["l2", "linf"], default=["l2", "linf"])
    parser.add_argument("--architecture", default="resnet8_w16")
    parser.add_argument("--side", type=int, default=32, help="pixels")
    parser.add_argument("--batch", type=int, default=128, help="images")
    parser.add_argument("--steps", type=int, default=10)
    return parser.parse_args()


@dataclass(frozen=True)
class Case(NetworkCase):
    """A network, a batch of images and an attack."""

    batch: int
    norm: Norm
    steps: int
    threads: int
    device: str

    @property
    def threat(self) -> Threat:
        """The threat model: the ball of allowed perturbations."""
        return threat_model(self.norm, EPS[self.norm])

    def given(self) -> tuple[Network, Tensor, Tensor]:
        """The network, images and labels, the same for every contender."""
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(self.batch, 3, self.side, self.side, generator=generator)
        labels = torch.randint(0, 10, (self.batch,), generator=generator)
        use_tf32(False)  # ours sets it again, to the same
        network = build(self.architecture, 10, seed=0).eval()
        return network.to(self.device), images.to(self.device), labels.to(self.device)


def ours(case: Case, precision: Precision) -> Callable[[], object]:
    """The attack as `training.loop.Adversary` calls it."""
    on = prepare(case.device, case.threads, precision)
    network, images, labels = case.given()
    folded = Folded(network.to(memory_format=torch.channels_last))
    images = images.contiguous(memory_format=torch.channels_last)
    attack = Attack(steps=case.steps, use_best=False)

    def attacked() -> Tensor:
        folded.refresh()
        with autocast(precision, on):
            return pgd(folded, images, labels, case.threat, attack)

    return attacked


def foolbox_pgd(case: Case) -> Callable[[], object]:
    """foolbox, from the images in memory to the perturbed images, without its count of successes."""
    import foolbox

    network, images, labels = case.given()
    kinds = {
        "l2": foolbox.attacks.L2ProjectedGradientDescentAttack,
        "linf": foolbox.attacks.LinfProjectedGradientDescentAttack,
    }
    attack = kinds[case.norm](rel_stepsize=2 / case.steps, steps=case.steps, random_start=False)
    model, criterion = foolbox.PyTorchModel(network, bounds=(0, 1)), foolbox.criteria.Misclassification(labels)
    return lambda: attack.run(model, images, criterion, epsilon=case.threat.eps)


def torchattacks_pgd(case: Case) -> Callable[[], object]:
    """torchattacks, as its documentation calls it."""
    import torchattacks

    network, images, labels = case.given()
    kind, eps = torchattacks.PGDL2 if case.norm == "l2" else torchattacks.PGD, case.threat.eps
    attack = kind(network, eps=eps, alpha=2 * eps / case.steps, steps=case.steps, random_start=False)
    return lambda: attack(images, labels)


if __name__ == "__main__":
    main()
