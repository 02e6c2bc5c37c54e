"""The moving average of a network's weights over training steps (Polyak and Juditsky 1992; Izmailov et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Average:
    """Follows a network's parameters: average ← decay·average + (1 - decay)·parameter after every step.

    In the first steps the decay is smaller, (1 + step) / (10 + step), so that the start is forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._parameters: list[Tensor] = list(network.parameters())
        self._decay = decay
        self.values = [parameter.detach().clone() for parameter in self._parameters]
        """The averages, one for each parameter: all there is of state."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after step number `step`, counted from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, self._parameters, 1 - decay)

    @torch.no_grad()
    def install(self) -> None:
        """Put the averages in the parameters' place. BatchNorm's statistics are then those of other weights."""
        torch._foreach_copy_(self._parameters, self.values)
