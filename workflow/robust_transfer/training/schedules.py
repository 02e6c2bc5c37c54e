"""Schedules of a training, as pure functions: learning rate, image side, and which images make a step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from robust_transfer.configuration.training import Recipe

if TYPE_CHECKING:  # planning calls `side_at` without torch
    from torch import Tensor

SIDES = ((64, 32), (32, 16), (0, 4))
"""(least, multiple): where `input_size` is at least twice `least`, sides grow in steps of `multiple`."""


class TrainingError(RuntimeError):
    """Training is impossible, or failed in a way that more epochs do not fix; the message says what to change."""


def learning_rate_at(recipe: Recipe, peak: float, step: int, steps_per_epoch: int) -> float:
    """Learning rate of one step, greater than 0; see `Recipe.schedule`.

    Args:
        recipe: Its epochs, schedule and the schedule's parameters count.
        peak: Highest learning rate.
        step: Step, counted from 0 over all epochs.
        steps_per_epoch: Number of steps in an epoch.
    """
    total = recipe.epochs * steps_per_epoch
    if recipe.schedule == "step":
        return peak / recipe.step_factor ** (step // steps_per_epoch // recipe.step_epochs)
    if recipe.schedule == "cosine":
        return peak * (1 + math.cos(math.pi * step / total)) / 2
    warmup = recipe.warmup_fraction * total
    up = (step + 1) / warmup if warmup else 1.0
    return peak * min(up, (total - step) / (total - warmup), 1.0)


def eps_share_at(done: float, ramp_start: float, ramp_end: float) -> float:
    """Share of eps that an attack has where `done`, a share of all steps in [0, 1), is behind: 0 up to `ramp_start`,
    then linear, 1 from `ramp_end`."""
    if done >= ramp_end:
        return 1.0
    return (done - ramp_start) / (ramp_end - ramp_start) if done > ramp_start else 0.0


def side_at(recipe: Recipe, epoch: int, input_size: int) -> int:
    """Side of an epoch's images, pixels: it grows from `start_scale · input_size` to `input_size`.

    That takes the share `growing_fraction` of the epochs. Sides are multiples of 32 for inputs of at least 128 pixels,
    of 16 from 64 pixels, else of 4, since networks halve them several times.
    """
    growing = recipe.growing_fraction * recipe.epochs
    if recipe.start_scale == 1 or epoch >= growing:
        return input_size
    side = input_size * (recipe.start_scale + (1 - recipe.start_scale) * epoch / growing)
    multiple = next(multiple for least, multiple in SIDES if input_size >= 2 * least)
    return min(input_size, max(multiple, multiple * round(side / multiple)))


def batch_sizes(n: int, batch_size: int, group: int | None) -> list[int]:
    """Sizes of the batches of an epoch of n images: full ones, then the rest.

    BatchNorm needs two images, so a last group of a single image is left out, which is a different image in every
    epoch. Raises TrainingError if nothing remains.
    """
    full, rest = divmod(n, batch_size)
    if rest % (group or batch_size) == 1 and batch_size > 1:
        rest -= 1
    sizes = [batch_size] * full + [rest] * (rest > 0)
    if not sizes:
        raise TrainingError(f"{n} training images: BatchNorm needs at least two in a batch")
    return sizes


def steps(order: Tensor, recipe: Recipe) -> list[tuple[Tensor, ...]]:
    """Divide an epoch's order of images (int64 [N]) into steps, and each step into its BatchNorm groups."""
    import torch

    sizes = batch_sizes(len(order), recipe.batch_size, recipe.batchnorm_group)
    batches = torch.split(order[: sum(sizes)], sizes)
    return [torch.split(batch, recipe.batchnorm_group or recipe.batch_size) for batch in batches]
