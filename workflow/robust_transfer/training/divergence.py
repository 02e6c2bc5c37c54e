"""Trainings whose loss is no longer finite: at which step that began, and what stands in for the network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robust_transfer.networks.build import Network
from robust_transfer.training.progress import Epoch
from robust_transfer.training.schedules import TrainingError


class DivergedError(TrainingError):
    """The loss of a training, of parallel heads that of every head, is infinite or not a number."""

    def __init__(self, message: str, epochs: list[Epoch]) -> None:
        """`epochs` are those that were finished before."""
        super().__init__(message)
        self.epochs = epochs


class FiniteSteps:
    """How many steps the loss of each head has been finite, counted on the device, so that nothing waits for it.

    When a loss is looked at depends on the clock. This count does not, so that a training that was interrupted and
    one that was not say the same of it.
    """

    def __init__(self, heads: Sequence[int], device: torch.device) -> None:
        """`heads` is the shape of the losses: empty for one head, (H,) for H parallel ones."""
        self.counts = torch.zeros(tuple(heads), device=device, dtype=torch.int64)
        self.steps = 0

    def update(self, loss: Tensor) -> None:
        """Count a step if the loss ([] or [H], a sum over the epoch so far) is finite and always was."""
        self.counts += (self.counts == self.steps) & loss.isfinite()
        self.steps += 1

    def restore(self, steps: int, counts: Tensor | None) -> None:
        """Go on after so many steps with the counts of then; None: all were finite."""
        self.steps = steps
        self.counts.fill_(steps) if counts is None else self.counts.copy_(counts)

    def diverged_at(self) -> list[int | None]:
        """For each head the step, from 1, of its first loss that was not finite; None where all were."""
        counts: list[int] = self.counts.flatten().tolist()
        return [count + 1 if count < self.steps else None for count in counts]


def unsound_heads(network: Network) -> list[bool]:
    """For each head whether it, or the body, has a value that is not finite, as the last step of all may leave it."""
    body = all(bool(tensor.isfinite().all()) for tensor in network.body.state_dict().values())
    weight, bias = network.head.weight.detach(), network.head.bias.detach()
    finite = weight.isfinite().all(-1).all(-1) & bias.isfinite().all(-1)
    return [not (body and one) for one in finite.flatten().tolist()]


def guess(network: Network, which: Sequence[bool] | None = None) -> None:
    """Set the head to zeros, or of H parallel heads those that `which` marks: they give every image the first class.

    A diverged head has no weights of use, and which it has depends on when it was noticed.
    """
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter[... if which is None else torch.tensor(which, device=parameter.device)] = 0
