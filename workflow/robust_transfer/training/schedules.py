"""What happens when in a training: learning rate, image side, and which images make a step. Pure functions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from robust_transfer.configuration.training import Recipe

if TYPE_CHECKING:  # plans ask for sides, and need no torch
    from torch import Tensor

SIDES = ((64, 32), (32, 16), (0, 4))
"""Sides grow in steps of the second number where `input_size` is at least twice the first."""


class TrainingError(RuntimeError):
    """Training cannot be done, or went wrong in a way that more epochs do not mend; the message says what to change."""


def learning_rate_at(recipe: Recipe, peak: float, step: int, steps_an_epoch: int) -> float:
    """The learning rate of a step, counted from 0 over all epochs; see `Recipe.schedule`. Never 0."""
    total = recipe.epochs * steps_an_epoch
    if recipe.schedule == "step":
        return peak / recipe.step_factor ** (step // steps_an_epoch // recipe.step_epochs)
    if recipe.schedule == "cosine":
        return peak * (1 + math.cos(math.pi * step / total)) / 2
    warmup = recipe.warmup_fraction * total
    up = (step + 1) / warmup if warmup else 1.0
    return peak * min(up, (total - step) / (total - warmup), 1.0)


def side_at(recipe: Recipe, epoch: int, input_size: int) -> int:
    """Side of an epoch's images in pixels: from `start_scale` of `input_size` up to it over `growing_fraction`.

    Sides are multiples of 32, of 16 below 128 pixels, of 4 below 64, as networks halve them several times.
    """
    growing = recipe.growing_fraction * recipe.epochs
    if recipe.start_scale == 1 or epoch >= growing:
        return input_size
    side = input_size * (recipe.start_scale + (1 - recipe.start_scale) * epoch / growing)
    multiple = next(multiple for least, multiple in SIDES if input_size >= 2 * least)
    return min(input_size, max(multiple, multiple * round(side / multiple)))


def batch_sizes(n: int, batch_size: int, group: int | None) -> list[int]:
    """Sizes of an epoch's batches of n images: full ones, then what is left.

    BatchNorm needs two images: a single one at the end, of the epoch or of its last group, is left out, another in
    every epoch. Raises TrainingError if nothing remains.
    """
    full, rest = divmod(n, batch_size)
    if rest % (group or batch_size) == 1 and batch_size > 1:
        rest -= 1
    sizes = [batch_size] * full + [rest] * (rest > 0)
    if not sizes:
        raise TrainingError(f"{n} training images: BatchNorm needs at least two in a batch")
    return sizes


def steps(order: Tensor, recipe: Recipe) -> list[tuple[Tensor, ...]]:
    """An epoch's order of images (int64 [N]) as steps, each of them as the groups that BatchNorm sees one by one."""
    import torch

    sizes = batch_sizes(len(order), recipe.batch_size, recipe.batchnorm_group)
    batches = torch.split(order[: sum(sizes)], sizes)
    return [torch.split(batch, recipe.batchnorm_group or recipe.batch_size) for batch in batches]
