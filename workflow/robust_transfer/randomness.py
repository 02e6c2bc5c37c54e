"""Counter-based random numbers: each is a function of (seed, stream, epoch, image, …), never of what was drawn before.

Order, augmentation and random starts therefore do not depend on workers, batches, the resume point or the device. The
generator is SplitMix64 (Steele, Lea and Flood 2014) in int64 arithmetic, which overflows alike on all devices.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Constants of SplitMix64: the increment, and shift and factor of each mixing step.
_GAMMA = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_MASK = (1 << 64) - 1

# Streams: independent sequences under one seed, one for each purpose. A changed number changes every result.
ORDER, AUGMENTATION, START, LAYERS, COLOUR, LIGHTING, HEAD, STYLE = 1, 2, 3, 4, 5, 6, 7, 8


def key(*parts: int) -> int:
    """One 64-bit key from a few integers, such as seed, stream and epoch."""
    state = 0
    for part in parts:
        state = _mix_int((state + (part & _MASK) * _GAMMA + _GAMMA) & _MASK)
    return state


def bits(keys: int | Tensor, counters: Tensor) -> Tensor:
    """Random int64 numbers, uniform over all 64 bits.

    Args:
        keys: A key, or an int64 tensor of keys.
        counters: int64 tensor, which broadcasts with `keys`: the position in each key's sequence.
    """
    base = _signed(keys) if isinstance(keys, int) else keys
    return _mix(base + (counters + 1) * _signed(_GAMMA))


def uniform(keys: int | Tensor, counters: Tensor) -> Tensor:
    """Random float64 numbers, uniform in [0, 1) with 53 random bits; arguments as in `bits`."""
    return _shift(bits(keys, counters), 11).to(torch.float64) * 2.0**-53


def order(seed: int, epoch: int, n: int) -> Tensor:
    """The order of n images in an epoch: a permutation, int64 [n], on the CPU."""
    return torch.argsort(bits(key(seed, ORDER, epoch), torch.arange(n)), stable=True)


def per_image(seed: int, stream: int, epoch: int, indices: Tensor, columns: int) -> Tensor:
    """Random numbers for each image, uniform in [0, 1): float64 [B, columns].

    Args:
        seed: Seed of the training.
        stream: What the numbers are for: one of the constants above.
        epoch: Epoch, counted from 0; -1 for numbers outside all epochs.
        indices: Numbers of the images, int64 [B].
        columns: How many random numbers each image gets.
    """
    keys = bits(key(seed, stream, epoch), indices)
    return uniform(keys[:, None], torch.arange(columns, device=indices.device)[None])


def normal(numbers: Tensor) -> Tensor:
    """Independent standard normal numbers, float64 [B, 2n], from as many uniform ones in [0, 1), by Box and Muller."""
    first, second = numbers.chunk(2, dim=1)
    radius, angle = (-2 * torch.log1p(-first)).sqrt(), 2 * math.pi * second
    return torch.cat([radius * angle.cos(), radius * angle.sin()], 1)


def _mix(x: Tensor) -> Tensor:
    for shift, factor in _MIX:
        x = (x ^ _shift(x, shift)) * _signed(factor)
    return x ^ _shift(x, 31)


def _mix_int(x: int) -> int:
    for shift, factor in _MIX:
        x = ((x ^ (x >> shift)) * factor) & _MASK
    return x ^ (x >> 31)


def _shift(x: Tensor, by: int) -> Tensor:
    """Logical shift to the right; torch's own shift of int64 keeps the sign."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
