"""A head of given parameters, and the linear layer that a fitted probe amounts to."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from robust_transfer.statistics.logistic_regression import Fit

NEVER = -1e6
"""Bias of a class that the probe was not fitted to, so that it is never predicted; infinite logits would have no
gradient."""


def linear_head(weight: Tensor, bias: Tensor) -> nn.Linear:
    """The layer with these parameters, [K, D] and [K]; `Network.logits` computes it in their precision."""
    head = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    head.weight, head.bias = nn.Parameter(weight), nn.Parameter(bias)
    return head


def probe_head(fit: Fit, classes: int) -> nn.Linear:
    """The probe's logits of features as the network gives them: its standardisation is folded into the layer.

    W·(f - mean) / deviation + b = (W / deviation)·f + (b - W / deviation·mean). `classes` is K; those that had no
    training images are never predicted, as by the probe.
    """
    mean, deviation, weights, biases = (
        np.asarray(array, np.float64) for array in (fit.scaling.mean, fit.scaling.deviation, fit.weights, fit.biases)
    )
    weight, bias = np.zeros((classes, len(mean))), np.full(classes, NEVER)
    weight[fit.classes] = weights / deviation
    bias[fit.classes] = biases - weight[fit.classes] @ mean
    return linear_head(torch.from_numpy(weight).float(), torch.from_numpy(bias).float())
