"""Many linear classifiers on one frozen network, which share each forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robust_transfer.networks.build import Network, fresh_head


class ParallelLinear(nn.Linear):
    """H linear layers on the same input: weight [H, K, D], bias [H, K]."""

    def __init__(self, heads: Sequence[nn.Linear]) -> None:
        """Copies the values of these heads, all of one shape [K, D]."""
        super().__init__(heads[0].in_features, heads[0].out_features, device="meta")
        self.weight = nn.Parameter(torch.stack([head.weight.detach() for head in heads]))
        self.bias = nn.Parameter(torch.stack([head.bias.detach() for head in heads]))

    def forward(self, features: Tensor) -> Tensor:
        """Logits [N, K, H] of features [N, D], in the parameters' precision, whatever autocast says."""
        with torch.autocast(features.device.type, enabled=False):
            heads, classes, dimension = self.weight.shape
            weight, bias = self.weight.view(-1, dimension), self.bias.view(-1)
            logits = nn.functional.linear(features.to(weight.dtype), weight, bias)  # one matrix product for all
            return logits.view(-1, heads, classes).transpose(1, 2)


class _Evaluating(nn.Module):
    """A body that stays in eval mode when the network around it trains."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body.eval()

    def train(self, mode: bool = True) -> _Evaluating:
        """Always to eval mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """The body's output."""
        features: Tensor = self.body(images)
        return features


def put_heads(network: Network, classes: int, seeds: Sequence[int], *, drifting: bool) -> None:
    """Freeze `network` and replace its head by new ones for `classes` classes, one per seed; equal seeds, equal heads.

    With `drifting`, layers before the head follow the network's mode: in train mode BatchNorm normalises by the batch
    and updates its running statistics, and dropout is active. Without it, they stay in eval mode.
    """
    device, features_n = network.head.weight.device, network.head.in_features
    network.body.requires_grad_(False)
    network.head = ParallelLinear([fresh_head(features_n, classes, seed) for seed in seeds]).to(device)
    if not drifting:
        network.body = _Evaluating(network.body)


def unwrap_body(network: Network) -> None:
    """Take away what holds the layers before the heads in eval mode; their parameters then have their usual names."""
    if isinstance(network.body, _Evaluating):
        network.body = network.body.body
