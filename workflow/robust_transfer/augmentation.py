"""Batched augmentation of images that are resident on the device, as functions of (seed, epoch, image index)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robust_transfer import randomness
from robust_transfer.configuration.training import Augmentation
from robust_transfer.datasets.arrow import Split
from robust_transfer.datasets.resident import square_images

AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of square-resized-crop-flip, as torchvision's RandomResizedCrop has them


def resident_images(
    split: Split, augmentation: Augmentation, input_size: int, resize_ratio: float, *, threads: int = 1
) -> Tensor:
    """All images of a split as an Augmenter takes them: uint8 [N, side, side, 3].

    For `square-resized-crop-flip` the whole centre square, at twice the input's side since parts of it are enlarged;
    otherwise what the network would see of the image untouched, at the input's side.
    """
    if augmentation == "square-resized-crop-flip":
        return torch.from_numpy(square_images(split, 2 * input_size, 1.0, threads=threads))
    return torch.from_numpy(square_images(split, input_size, resize_ratio, threads=threads))


class Augmenter:
    """Draws augmented batches from images held in memory.

    `pixels` is uint8 [N, side, side, 3] from `resident_images`, on the device that batches are to be on.
    """

    def __init__(self, pixels: Tensor, augmentation: Augmentation, input_size: int, seed: int) -> None:
        self._pixels, self._kind, self._size, self._seed = pixels, augmentation, input_size, seed
        self._pad = round(input_size / 8) if augmentation == "crop-flip" else 0
        if self._pad:  # once, so that a crop is a plain lookup
            n, side = len(pixels), input_size + 2 * self._pad
            self._pixels = pixels.new_zeros(n, side, side, 3)
            self._pixels[:, self._pad : -self._pad, self._pad : -self._pad] = pixels

    def batch(self, indices: Tensor, epoch: int) -> Tensor:
        """The images of these numbers (int64 [B]) as that epoch shows them: float32 [B, 3, size, size] in [0, 1],
        channels last."""
        if self._kind == "none":
            return as_images(self._pixels[indices])
        numbers = randomness.per_image(self._seed, randomness.AUGMENTATION, epoch, indices, 6)
        flip = numbers[:, 0] < 0.5
        if self._kind == "square-resized-crop-flip":
            return _resized_crops(self._pixels[indices], numbers, flip, self._size)
        top, left = (numbers[:, 1:3] * (2 * self._pad + 1)).long().unbind(1)
        span = torch.arange(self._size, device=indices.device)
        columns = torch.where(flip[:, None], self._size - 1 - span, span) + left[:, None]
        rows = span + top[:, None]
        return as_images(self._pixels[indices[:, None, None], rows[:, :, None], columns[:, None, :]])


def as_images(pixels: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] to float32 [B, 3, H, W] in [0, 1], channels last."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255)


def _resized_crops(pixels: Tensor, numbers: Tensor, flip: Tensor, size: int) -> Tensor:
    """A random part of each square image, resized by antialiased bilinear interpolation: two matrix products."""
    side = pixels.shape[1]
    area = side**2 * (AREA[0] + (AREA[1] - AREA[0]) * numbers[:, 1])
    ratio = torch.exp(math.log(RATIO[0]) + (math.log(RATIO[1]) - math.log(RATIO[0])) * numbers[:, 2])
    # A part that sticks out of the square is cut at its side, where torchvision draws again up to ten times.
    width, height = (area * ratio).sqrt().clamp_max(side), (area / ratio).sqrt().clamp_max(side)
    left, top = numbers[:, 3] * (side - width), numbers[:, 4] * (side - height)
    across = _resizing(left, width, side, size)
    across = torch.where(flip[:, None, None], across.flip(1), across)
    images = torch.einsum("bih,bhwc->biwc", _resizing(top, height, side, size), pixels.to(torch.float32).div_(255))
    return torch.einsum("bjw,biwc->bijc", across, images).clamp_(0, 1).permute(0, 3, 1, 2)


def _resizing(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """Matrices [B, size, side] that resample the stretch [start, start + length) of `side` pixels to `size` pixels."""
    scale = (length / size)[:, None, None]
    centres = start[:, None, None] + (torch.arange(size, device=start.device)[:, None] + 0.5) * scale
    distance = (torch.arange(side, device=start.device) + 0.5 - centres).abs()
    weights = (1 - distance / scale.clamp_min(1)).clamp_min(0)
    return (weights / weights.sum(2, keepdim=True)).to(torch.float32)
