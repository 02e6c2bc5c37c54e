"""AdamW (Loshchilov and Hutter 2019) by torch's fused kernel, bit for bit what torch.optim.AdamW computes.

Creating an optimiser of torch.optim imports torch's compiler, which takes 4 s of CPU time (AMD EPYC, torch 2.15).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from robust_transfer.training.optimiser import Optimiser

EPSILON = 1e-8
"""Added to the root of the mean square, as torch does by default."""


class AdamW(Optimiser):
    """AdamW, which updates parameters in place; weights shrink by rate · weight_decay, apart from their gradients."""

    def __init__(self, parameters: Iterable[nn.Parameter], *, betas: tuple[float, float], weight_decay: float) -> None:
        super().__init__(parameters)
        self._betas, self._weight_decay = betas, weight_decay
        self._means = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in self._parameters]
        # One count for all parameters: the kernel reads it on the device, and all have had as many updates.
        device = self._parameters[0].device if self._parameters else None
        self._updates = torch.zeros((), dtype=torch.float32, device=device)

    def tensors(self) -> dict[str, Tensor]:
        """Means of gradients and of their squares, and the number of updates."""
        tensors = {f"mean.{i}": tensor for i, tensor in enumerate(self._means)}
        tensors |= {f"square.{i}": tensor for i, tensor in enumerate(self._squares)}
        return tensors | {"updates": self._updates}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Update every parameter by its gradient; raises RuntimeError if one has none."""
        gradients = self._given_gradients()
        self._updates += 1
        parameters: list[Tensor] = list(self._parameters)
        torch._fused_adamw_(
            parameters, gradients, self._means, self._squares, [], [self._updates] * len(parameters),
            lr=rate, beta1=self._betas[0], beta2=self._betas[1], weight_decay=self._weight_decay, eps=EPSILON,
            amsgrad=False, maximize=False,
        )  # fmt: skip
