"""What the training loop asks of an optimiser."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


class Optimiser(ABC):
    """Updates, in place, those of some parameters that require gradients."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]

    @abstractmethod
    def step(self, rate: float) -> None:
        """Update every parameter by its gradient; raises RuntimeError if one has none."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The whole state besides the parameters themselves, by name."""

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def gradients(self) -> list[Tensor]:
        """The gradients, in the order of parameters; missing ones are created as zeros."""
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self._parameters if parameter.grad is not None]

    def use_gradients(self, gradients: Sequence[Tensor]) -> None:
        """Have these as gradients, in the order of parameters."""
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient

    def _given_gradients(self) -> list[Tensor]:
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        if (missing := len(self._parameters) - len(gradients)) > 0:
            raise RuntimeError(f"{missing} of {len(self._parameters)} parameters have no gradient")
        return gradients
