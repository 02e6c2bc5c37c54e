"""Images found by gradients: rebuilt from their representation, and those that a class's logit is large on.

After Engstrom et al. (2019), "Adversarial Robustness as a Prior for Learned Representations", and their released
notebooks (`image_inversion.ipynb`, `direct_feature_visualization.ipynb`): steps of a fixed Euclidean length along each
image's gradient, clamped to [0, 1], without any regulariser; gradients pass the last ReLU; the last iterate counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from robust_transfer import randomness
from robust_transfer.attacks import L2, attacked
from robust_transfer.networks.build import Network
from robust_transfer.networks.last_relu import passing_last_relu

NOISE = 0.05
"""Standard deviation of the grey noise around 0.5, a twentieth as published (`NOISE_SCALE = 20`)."""

Loss = Callable[[Tensor], Tensor]
"""Images float [N, 3, S, S] in [0, 1] to a loss for each: float [N]."""


def grey_noise(side: int, seed: int) -> Tensor:
    """The image from which others are found: float [1, 3, side, side] in [0, 1], the same for all."""
    values = randomness.per_image(seed, randomness.START, -1, torch.zeros(1, dtype=torch.int64), 4 * side * side)
    return (0.5 + NOISE * randomness.normal(values)[:, : 3 * side * side]).clamp(0, 1).float().view(1, 3, side, side)


def rebuilt(network: Network, images: Tensor, start: Tensor, *, steps: int, step_size: float) -> Tensor:
    """What is found when the representation of `images` is searched for from `start`.

    Minimises ‖r − r*‖/‖r*‖, where r* is the input of the head on an image.

    Parameters
    ----------
    network : its modules' modes and its parameters are left as they were.
    images : float [N, 3, S, S] in [0, 1].
    start : float [N, 3, S, S] in [0, 1].
    steps, step_size : how many steps, and their Euclidean length in pixel units.

    Returns
    -------
    Images, float [N, 3, S, S] in [0, 1].
    """
    with attacked(network):
        with torch.no_grad():
            wanted = network.features(images)
        features = passing_last_relu(network.features, images[:1])
        return _descended(lambda found: relative_distance(features(found), wanted), start, steps, step_size)


def visualised(network: Network, classes: Tensor, start: Tensor, *, steps: int, step_size: float) -> Tensor:
    """Images on which the logits of `classes` (int64 [N]) are large, found from `start`; otherwise as `rebuilt`."""
    rows = torch.arange(len(classes), device=classes.device)
    with attacked(network):
        logits = passing_last_relu(network, start[:1])
        return _descended(lambda found: -logits(found)[rows, classes], start, steps, step_size)


def relative_distance(features: Tensor, wanted: Tensor) -> Tensor:
    """‖r − r*‖/‖r*‖ of each image: float [N, D], float [N, D] to float [N]."""
    distance, norm = torch.linalg.vector_norm(features - wanted, dim=1), torch.linalg.vector_norm(wanted, dim=1)
    return torch.div(distance, norm.clamp_min(1e-12))


def _descended(loss: Loss, start: Tensor, steps: int, step_size: float) -> Tensor:
    ball, images = L2(math.inf), start
    for _ in range(steps):
        images = images.detach().requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(loss(images).sum(), images)
        images = (images.detach() - ball.step(gradient, step_size)).clamp_(0, 1)
    return images
