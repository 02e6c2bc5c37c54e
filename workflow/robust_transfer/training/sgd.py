"""Stochastic gradient descent with momentum and weight decay, as torch.optim.SGD computes it.

Creating an optimiser of torch.optim imports torch's compiler, which takes 3 to 6 s of CPU time (AMD EPYC, torch 2.15),
a third of a short fine-tuning job. These thirty lines do not.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from robust_transfer.training.optimiser import Optimiser


class SGD(Optimiser):
    """SGD, which updates parameters in place: v ← momentum·v + (gradient + weight_decay·w), w ← w - rate·v.

    With `nesterov`, w ← w - rate·(gradient + weight_decay·w + momentum·v). v starts at 0, without dampening.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], *, momentum: float, weight_decay: float, nesterov: bool
    ) -> None:
        super().__init__(parameters)
        self._momentum, self._weight_decay, self._nesterov = momentum, weight_decay, nesterov
        self.velocities = [torch.zeros_like(parameter) for parameter in self._parameters] if momentum else []
        """One per parameter; the whole state besides the parameters themselves."""

    def tensors(self) -> dict[str, Tensor]:
        """The velocities."""
        return {f"velocity.{i}": tensor for i, tensor in enumerate(self.velocities)}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Update every parameter by its gradient; raises RuntimeError if one has none."""
        parameters: list[Tensor] = list(self._parameters)
        gradients = self._given_gradients()
        # One call for all parameters: a GPU runs it as a few kernels.
        if self._weight_decay:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=self._weight_decay))
        if self._momentum:
            torch._foreach_mul_(self.velocities, self._momentum)
            torch._foreach_add_(self.velocities, gradients)
            if self._nesterov:
                gradients = list(torch._foreach_add(gradients, self.velocities, alpha=self._momentum))
            else:
                gradients = self.velocities
        torch._foreach_add_(parameters, gradients, alpha=-rate)


class ParallelSGD(SGD):
    """SGD for many models in parallel: index h of every parameter's first dimension belongs to model h.

    Each model has its own learning rate, relative to that of `step`, and its own weight decay. Models do not influence
    each other: each ends with the weights that it would have alone.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        rates: Tensor,
        weight_decays: Tensor,
        momentum: float,
        nesterov: bool,
    ) -> None:
        """`rates` and `weight_decays` are float [H], on the parameters' device."""
        super().__init__(parameters, momentum=momentum, weight_decay=0.0, nesterov=nesterov)
        self._rates = [_by_model(rates, parameter) for parameter in self._parameters]
        self._decays = [_by_model(weight_decays, parameter) for parameter in self._parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Update every model by its gradient at its share of `rate`; raises RuntimeError if one has none."""
        gradients = self._given_gradients()
        for i, parameter in enumerate(self._parameters):
            change = torch.addcmul(gradients[i], parameter, self._decays[i])
            if self._momentum:
                velocity = self.velocities[i].mul_(self._momentum).add_(change)
                change = change.add_(velocity, alpha=self._momentum) if self._nesterov else velocity
            parameter.addcmul_(change, self._rates[i], value=-rate)


def _by_model(values: Tensor, parameter: nn.Parameter) -> Tensor:
    return values.to(parameter.dtype).view(-1, *[1] * (parameter.ndim - 1))
