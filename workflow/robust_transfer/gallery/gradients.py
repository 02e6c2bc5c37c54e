"""Gradients of the loss with respect to images, and how much of them is of low frequency.

Tsipras et al. (2019), "Robustness May Be at Odds with Accuracy", show that gradients of robust networks follow what an
image shows, and those of standard ones look like noise. As a number for that stands the share of a gradient's energy
in low frequencies: Yin et al. (2019), "A Fourier Perspective on Model Robustness in Computer Vision", find that
training on perturbed images moves a network's sensitivity from high frequencies to low ones. It needs no image to
compare with, and white noise has a known value (`noise_share`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robust_transfer.attacks import attacked

LOW = 0.125
"""Cycles per pixel up to which a frequency is low: a quarter of the highest that a row of pixels has."""
DEVIATIONS = 3.0
"""Gradients are shown between so many of their standard deviations, as by Tsipras et al."""


def loss_gradients(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The gradient of the cross-entropy with respect to each image: float [N, 3, S, S], int64 [N] to [N, 3, S, S]."""
    with attacked(network):
        images = images.detach().requires_grad_(True)
        loss = F.cross_entropy(network(images).float(), labels, reduction="sum")  # each image's own gradient
        gradient: Tensor = torch.autograd.grad(loss, images)[0]
    return gradient


def low_frequency_share(gradients: Tensor) -> Tensor:
    """Share of each gradient's energy in frequencies up to `LOW`, over all channels: float [N, 3, S, S] to [N].

    NaN for a gradient of zeros.
    """
    energy: Tensor = torch.fft.fft2(gradients.double(), norm="ortho").abs().square().sum(1)
    low: Tensor = energy * _low(gradients.shape[-1], gradients.device)
    share: Tensor = low.sum((1, 2)) / energy.sum((1, 2))
    return share


def noise_share(side: int) -> float:
    """The share that white noise has, which is that of the frequencies: 5 % of an image with a side of 24 pixels."""
    return float(_low(side, torch.device("cpu")).double().mean())


def shown(gradients: Tensor) -> Tensor:
    """Gradients as images: float [N, 3, S, S] in [0, 1], grey where they are 0."""
    deviation = gradients.std(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
    return (0.5 + gradients / (2 * DEVIATIONS * deviation)).clamp(0, 1)


def _low(side: int, device: torch.device) -> Tensor:
    """Which frequencies of a square image are low: bool [side, side]."""
    frequencies: Tensor = torch.fft.fftfreq(side, device=device)
    return frequencies[:, None].square() + frequencies[None].square() <= LOW**2
