"""Gradients that pass through a network's last ReLU as if it were the identity.

Where the representation is what a ReLU gives, as in ResNets, a channel that is 0 on an image has no gradient there, so
that no search by gradients can bring it back. Engstrom et al. (2019) therefore pass the gradient on, as `fake_relu` of
the library robustness does. Values stay what they are. Networks without a ReLU keep their gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

RELUS = (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)
"""Functions by which networks apply a ReLU; nn.ReLU calls the first."""

Function = Callable[[Tensor], Tensor]


def passing_last_relu(function: Function, example: Tensor) -> Function:
    """The same function of a batch of images, whose gradient passes the last ReLU that is applied.

    `example` is a batch that it can take; the function must apply as many ReLUs to every batch.
    """
    with torch.no_grad(), _Relus() as counted:
        function(example)
    last = counted.calls

    def passing(images: Tensor) -> Tensor:
        with _Relus(last):
            return function(images)

    return passing


class _Relus(TorchFunctionMode):
    """Within the block ReLUs are counted, and the gradient passes the one with the number `passed`, from 1."""

    def __init__(self, passed: int = 0) -> None:
        super().__init__()
        self.calls, self.passed = 0, passed

    def __torch_function__(
        self, func: Any, types: Iterable[Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func not in RELUS:
            return func(*args, **(kwargs or {}))
        self.calls += 1
        if self.calls != self.passed:
            return func(*args, **(kwargs or {}))
        x = args[0] if args else (kwargs or {})["input"]
        return x + (torch.relu(x) - x).detach()
