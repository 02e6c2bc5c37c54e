"""The moving average of a network's weights over training steps (Polyak and Juditsky 1992; Izmailov et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Average:
    """The moving average of a network's parameters: average ← decay·average + (1 - decay)·parameter after each step.

    In the first steps the decay is at most (1 + step) / (10 + step), so that the initial weights are soon forgotten
    (the schedule of TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._parameters: list[Tensor] = list(network.parameters())
        self._decay = decay
        self.values = [parameter.detach().clone() for parameter in self._parameters]
        """The averages, one per parameter: the whole state."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the averages by the parameters after step `step`, counted from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, self._parameters, 1 - decay)

    @torch.no_grad()
    def install(self) -> None:
        """Copy the averages into the network. Its BatchNorm statistics still belong to the weights before."""
        torch._foreach_copy_(self._parameters, self.values)
