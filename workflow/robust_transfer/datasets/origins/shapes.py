"""Synthetic images of shapes and textures, in which robustness matters by design: offline, at any size and seed.

An image is a smooth random outline on a background, both shaded, under a faint colour grating. The outline (the *shape*
cue) is large and can be recognised under perturbation; the grating (the *texture* cue) has 0.3 to 0.5 cycles per pixel
and so small a norm that a perturbation can hide it. In the source, `objects`, a class has an outline and, unless it is
one of the `plain` classes, a grating of its own orientation and frequency, so that wherever there is a grating it
identifies the class. Its amplitude rises from class to class: a network of some eps finds some textures usable and
others not. In every other task the grating is drawn for each image and says nothing of its class, except in `textures`,
where it is the label.

Two settings make robustness cost accuracy on the source. Of the images of classes with a grating, a share `misleading`
shows the outline of another class, so that only the texture tells their class. And a share `twins` of the classes comes
in pairs whose outlines differ in detail alone: a smaller perturbation hides that than what sets other outlines apart.

All of an image but its class is a function of (seed, task, split, index): position, size, rotation, colours, shading,
phase. Classes never depend on the seed.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from robust_transfer.configuration.datasets import ShapesOrigin, ShapesTask

Floats = NDArray[np.float32]
Outlines = NDArray[np.complex64]

OBJECTS = 20
"""Classes of the source, of which `classes` takes the first."""
CLASSES: dict[ShapesTask, tuple[str, ...]] = {
    "objects": tuple(f"object {i}" for i in range(1, OBJECTS + 1)),
    "coarse": tuple(f"shape {i}" for i in range(1, 11)),
    "fine": tuple(f"variant {i}" for i in range(1, 11)),
    "textures": tuple(f"texture {i}" for i in range(1, 11)),
    "counting": ("1 shape", "2 shapes", "3 shapes", "4 shapes", "5 shapes"),
}

# An outline is r(θ) = 1 + Re Σ c_k exp(ikθ), in units of its mean radius; k = 1 would only move it.
HARMONICS = (2, 3, 4, 5, 6, 7)
COARSE, DETAIL = (2, 3, 4, 5), (4, 5, 6, 7)
COARSE_WOBBLE, DETAIL_WOBBLE = 0.10, 0.025
"""Root mean square of what coarse and finer harmonics add to r, for the middle class of a task."""
TWIN_WOBBLE = 0.025
"""Root mean square of what sets either twin apart from the outline that both have in common."""
EASE = 1.7
"""The most pronounced class of a task has the middle wobble times this, the least pronounced divided by this."""
LIKENESS = 0.7
"""Classes of a task differ by at least this times the middle wobble, as a root mean square over the outline."""
RADIUS, SHIFT, ROTATION = (0.5, 0.7), 0.2, 0.2
"""Mean radius and largest shift of the centre along an axis, in half sides of the image; largest rotation, radians."""
CONTRAST_MAX, CHROMA, SHADING = 0.7, 0.12, 0.12
"""Largest grey difference of shape and ground; how far channels stray from grey; largest slope, centre to edge."""
FREQUENCIES = (0.3, 0.5)
"""Of the gratings, in cycles per pixel; 0.5 is the highest that pixels can show."""
AMPLITUDE_SPREAD = 0.3
"""An image's grating has its class's amplitude times 1 ± this."""

_TASK_KEY: dict[ShapesTask, int] = {"objects": 0, "coarse": 1, "fine": 2, "textures": 3, "counting": 4}
_STREAM_KEY = {"train": 0, "test": 1, "classes": 2}
_CHUNK = 512  # images drawn at once: about 60 MB of working memory at 32 pixels
_NUMBERS = 64  # random numbers that an image has; a step of Philox gives four


def generate(
    origin: ShapesOrigin, split: Literal["train", "test"], *, textures: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]:
    """Draw the images of a split: uint8 [N, side, side, 3], their labels int64 [N], the names of the classes.

    Image i does not depend on N: fewer images are the first of more. Labels go through the classes in turn. No image
    is in both splits. 5,000 images of 32 pixels take 0.8 s on one core of an AMD EPYC.

    Args:
        origin: What to draw.
        split: Which images.
        textures: Classes whose gratings images bear in place of their own, int64 [N]; every image then shows the
            outline of its label, also where `misleading` would give it another's. All else stays. For `objects` alone;
            ValueError for other tasks, where gratings are no cue, or the only one.
    """
    if textures is not None and origin.task != "objects":
        raise ValueError(f"task {origin.task}: no class has both an outline and a grating to be exchanged")
    count, names = origin.train if split == "train" else origin.test, classes_of(origin)
    images = np.empty((count, origin.side, origin.side, 3), np.uint8)
    labels = np.arange(count, dtype=np.int64) % len(names)
    for start in range(0, count, _CHUNK):
        part = slice(start, min(start + _CHUNK, count))
        numbers = _Numbers(_uniform(origin.seed, origin.task, split, start, part.stop - start))
        drawn = _draw(origin, labels[part], numbers, None if textures is None else textures[part])
        images[part] = np.rint(255 * np.clip(drawn, 0, 1)).astype(np.uint8)
    return images, labels, list(names)


def classes_of(origin: ShapesOrigin) -> tuple[str, ...]:
    """Names of the classes."""
    return CLASSES[origin.task][: origin.classes]


class _Numbers:
    """The random numbers of some images, [n, _NUMBERS] in [0, 1), handed out one quantity after the other."""

    def __init__(self, uniform: Floats) -> None:
        self._columns, self._from_the_end = iter(uniform.T), iter(uniform.T[::-1])

    def between(self, low: float | Floats, high: float) -> Floats:
        """One number an image: float32 [n]."""
        column: Floats = next(self._columns)
        return low + (high - low) * column

    def later(self) -> Floats:
        """One number an image, float32 [n] in [0, 1), from the end: other quantities keep theirs."""
        column: Floats = next(self._from_the_end)
        return column

    def several(self, count: int, low: float = 0, high: float = 1) -> Floats:
        """Several numbers an image: float32 [n, count]."""
        return np.stack([self.between(low, high) for _ in range(count)], axis=1)

    def wobbles(self, harmonics: int) -> Outlines:
        """Random coefficients whose sum of harmonics has a root mean square of 1: complex64 [n, harmonics]."""
        gaussian = np.sqrt(-2 * np.log1p(-self.several(harmonics))) * np.exp(2j * np.pi * self.several(harmonics))
        scaled: Outlines = gaussian * np.sqrt(2 / (np.abs(gaussian) ** 2).sum(axis=1, keepdims=True))
        return scaled.astype(np.complex64)


def _uniform(seed: int, task: ShapesTask, stream: str, start: int, count: int) -> Floats:
    """Random numbers in [0, 1) of the `count` images from number `start` on: float32 [count, _NUMBERS].

    Raw Philox output, which numpy promises never to change (NEP 19), at a counter that follows from the image's number.
    """
    key = np.array([seed, 16 * _TASK_KEY[task] + _STREAM_KEY[stream]], np.uint64)
    raw = np.random.Philox(key=key, counter=start * _NUMBERS // 4).random_raw(count * _NUMBERS)
    uniform: Floats = ((raw >> np.uint64(40)) * 2.0**-24).astype(np.float32)
    return uniform.reshape(count, _NUMBERS)


def _draw(
    origin: ShapesOrigin, labels: NDArray[np.int64], numbers: _Numbers, textures: NDArray[np.int64] | None
) -> Floats:
    """Images before rounding: float32 [n, side, side, 3], a few values outside [0, 1]."""
    ground, shape = _colours(origin, numbers)
    grating = _grating(origin, labels if textures is None else textures, numbers)
    if origin.task == "counting":
        cover = _several_shapes(origin.side, labels + 1, numbers)
    elif origin.task == "textures":
        outlines = COARSE_WOBBLE * numbers.wobbles(len(COARSE))
        cover = _one_shape(origin.side, _harmonics(outlines, COARSE), numbers)
    else:
        misled, other = numbers.later(), numbers.later()
        shown = shown_outlines(origin, labels, misled, other) if textures is None else labels
        cover = _one_shape(origin.side, class_outlines(origin.task, origin.classes, origin.twins)[shown], numbers)
    return ground + cover[..., None] * (shape - ground) + grating


def shown_outlines(origin: ShapesOrigin, labels: NDArray[np.int64], misled: Floats, other: Floats) -> NDArray[np.int64]:
    """The class whose outline each image shows, int64 [n]: its own, or of a share `misleading` any other.

    Args:
        origin: The task, its classes, and the shares `misleading` and `plain`.
        labels: int64 [n].
        misled: In [0, 1), float32 [n]: an image of a class with a grating misleads where this is below the share.
        other: In [0, 1), float32 [n], to choose among the other classes.
    """
    if not origin.misleading:
        return labels
    n = len(classes_of(origin))
    misleads = (misled < origin.misleading) & (class_strengths(origin.plain, n)[labels] > 0)
    another = (labels + 1 + (other * (n - 1)).astype(np.int64)) % n
    return np.where(misleads, another, labels)


def _colours(origin: ShapesOrigin, numbers: _Numbers) -> tuple[Floats, Floats]:
    """The ground's colours and the shape's, at every pixel: two float32 [n, side, side, 3]."""
    gap = numbers.between(origin.contrast, CONTRAST_MAX)
    dark = 0.08 + (0.84 - gap) * numbers.between(0, 1)
    inverted = numbers.between(0, 1) < 0.5
    x, y = _grid(origin.side)
    planes = []
    for grey in (np.where(inverted, dark + gap, dark), np.where(inverted, dark, dark + gap)):
        tint = CHROMA * numbers.several(3, -1, 1)
        colour = grey[:, None] + tint - tint.mean(axis=1, keepdims=True)
        direction, slope = _by_pixel(numbers.between(0, 2 * np.pi)), _by_pixel(numbers.between(0, SHADING))
        shading = slope * (x * np.cos(direction) + y * np.sin(direction))
        planes.append(colour[:, None, None, :] + shading[..., None])
    return planes[0], planes[1]


def _grating(origin: ShapesOrigin, labels: NDArray[np.int64], numbers: _Numbers) -> Floats:
    """What the texture adds to pixels, at random phase and colour: float32 [n, side, side, 3].

    `labels` are the classes whose gratings they are, for tasks whose classes have some.
    """
    frequency, orientation = numbers.between(*FREQUENCIES), numbers.between(0, np.pi)
    strength = numbers.between(0, 1)
    if origin.task in ("objects", "textures"):
        of_classes = class_gratings(origin.task, len(classes_of(origin)))
        frequency, orientation = (of_class[labels] for of_class in of_classes)
    if origin.task == "objects":
        strength = class_strengths(origin.plain, len(classes_of(origin)))[labels]
    elif origin.task == "textures":
        strength = 0.1 + 0.9 * strength
    else:
        strength = _strength(strength, origin.plain)
    strength = strength * numbers.between(1 - AMPLITUDE_SPREAD, 1 + AMPLITUDE_SPREAD)
    colour = numbers.several(3, -1, 1)
    colour /= np.sqrt((colour**2).mean(axis=1, keepdims=True))
    pixels = np.arange(origin.side, dtype=np.float32)
    cycles = _by_pixel(frequency * np.cos(orientation)) * pixels + _by_pixel(
        frequency * np.sin(orientation)
    ) * pixels.reshape(-1, 1)
    wave = np.sin(2 * np.pi * (cycles + _by_pixel(numbers.between(0, 1))))
    grating: Floats = wave[..., None] * (origin.amplitude * strength[:, None] * colour)[:, None, None, :]
    return grating


def _one_shape(side: int, outlines: Outlines, numbers: _Numbers) -> Floats:
    """How much of each pixel one shape of these outlines covers, in a random pose: float32 [n, side, side]."""
    x, y = numbers.between(-SHIFT, SHIFT), numbers.between(-SHIFT, SHIFT)
    return _cover(side, outlines, x, y, numbers.between(*RADIUS), numbers.between(-ROTATION, ROTATION))


def _several_shapes(side: int, counts: NDArray[np.int64], numbers: _Numbers) -> Floats:
    """As `_one_shape`, for `counts` (int64 [n]) small ellipses of one size, each in its own cell of a 3×3 grid."""
    cover = np.zeros((len(counts), side, side), np.float32)
    radius = numbers.between(0.17, 0.29)
    cells = numbers.several(9).argsort(axis=1)
    for number in range(len(CLASSES["counting"])):
        x, y = (0.62 * (cell - 1) + numbers.between(-0.05, 0.05) for cell in divmod(cells[:, number], 3))
        outline = 0.3 * np.exp(1j * numbers.between(0, 2 * np.pi))[:, None].astype(np.complex64)
        one = _cover(side, _harmonics(outline, (2,)), x, y, radius, np.zeros_like(radius))
        cover = np.maximum(cover, np.where((number < counts)[:, None, None], one, 0))
    return cover


def _cover(side: int, outlines: Outlines, x: Floats, y: Floats, radius: Floats, rotation: Floats) -> Floats:
    """Antialiased inside of outlines [n, harmonics] at a pose in half sides: float32 [n, side, side], 0 to 1.

    Distance to the outline is taken along the ray from the centre and corrected, to first order, for its slope.
    """
    grid_x, grid_y = _grid(side)
    ray = (grid_x - _by_pixel(x)) + 1j * (grid_y - _by_pixel(y))
    distance = np.maximum(np.abs(ray), 1 / side)
    ray = (ray / distance * np.exp(-1j * _by_pixel(rotation))).astype(np.complex64)
    power, r, slope = ray.copy(), np.ones_like(distance), np.zeros_like(distance)
    for k, coefficient in zip(HARMONICS, outlines.T, strict=True):
        power *= ray
        term = power * _by_pixel(coefficient)
        r += term.real
        slope -= k * term.imag
    inside = (_by_pixel(radius) * r - distance) / np.sqrt(1 + (slope / r) ** 2)
    covered: Floats = np.clip(0.5 + inside * side / 2, 0, 1)
    return covered


@functools.cache
def class_outlines(task: ShapesTask, count: int | None = None, twins: float = 0) -> Outlines:
    """Coefficients c_k of a task's classes, complex64 [classes, 6], no two alike under any rotation that occurs.

    Of the first `count` classes (default: all), as many pairs of neighbours as make up the share `twins` of them have
    one outline, the first one's, but for detail of opposite sign.
    """
    n = len(CLASSES[task])
    if task == "fine":
        base = _harmonics(COARSE_WOBBLE * _candidates(task, 1, COARSE), COARSE)
        return base + _harmonics(_distinct(task, n, DETAIL, DETAIL_WOBBLE), DETAIL)
    outlines = _harmonics(_distinct(task, n, COARSE, COARSE_WOBBLE), COARSE)[:count]
    pairs = round(twins * len(outlines) / 2)
    # Random numbers that `_distinct` is nowhere near: what twins there are changes no other outline.
    details = _harmonics(TWIN_WOBBLE * _candidates(task, 4096 + pairs, DETAIL)[4096:], DETAIL)
    for i, detail in enumerate(details):
        outlines[2 * i + 1] = outlines[2 * i] - detail
        outlines[2 * i] += detail
    return outlines


@functools.cache
def class_gratings(task: ShapesTask, n: int | None = None) -> tuple[Floats, Floats]:
    """Frequency in cycles a pixel and orientation in radians of a task's classes, or of n: two float32 [classes]."""
    n = n or len(CLASSES[task])
    i = np.arange(n)
    # Neighbours in orientation are apart in frequency: multiples of the golden ratio spread evenly over [0, 1).
    frequency = FREQUENCIES[0] + (FREQUENCIES[1] - FREQUENCIES[0]) * ((i + 0.5) * 0.618034 % 1)
    offset = 0 if task == "objects" else 0.37
    return frequency.astype(np.float32), (np.pi * (i + offset) / n).astype(np.float32)


def class_strengths(plain: float, n: int = OBJECTS) -> Floats:
    """Amplitudes of the gratings of the source's first n classes relative to the strongest, float32 [n]; 0: none."""
    order = _turns(OBJECTS, 7)[:n].argsort().argsort()
    return _strength((order / (n - 1)).astype(np.float32), plain)


def _strength(level: Floats, plain: float) -> Floats:
    """0 for the share `plain` of levels in [0, 1], then rising to 1."""
    strength: Floats = np.maximum(0, (level - plain) / (1 - plain)).astype(np.float32)
    return strength


def _turns(n: int, stride: int) -> Floats:
    """The levels 0 to 1 in n even steps, in an order that has nothing to do with that of the classes."""
    levels: Floats = ((np.arange(n) * stride + 3) % n / (n - 1)).astype(np.float32)
    return levels


def _distinct(task: ShapesTask, n: int, harmonics: tuple[int, ...], wobble: float) -> Outlines:
    """Outlines of n classes, complex64 [n, len(harmonics)]: random ones, less those too like an earlier one."""
    ease = EASE ** (2 * _turns(n, 3) - 1)
    rotations = np.exp(1j * np.outer(np.linspace(-2 * ROTATION, 2 * ROTATION, 9), harmonics))
    chosen: list[NDArray[np.complex64]] = []
    for candidate in _candidates(task, 4096, harmonics)[1:]:
        outline = candidate * wobble * ease[len(chosen)]
        apart = (np.linalg.norm(outline - other * rotations, axis=1).min() / np.sqrt(2) for other in chosen)
        if all(distance > LIKENESS * wobble for distance in apart):
            chosen.append(outline)
        if len(chosen) == n:
            break
    return np.stack(chosen)


def _candidates(task: ShapesTask, n: int, harmonics: tuple[int, ...]) -> Outlines:
    """n random outlines with a wobble of 1."""
    return _Numbers(_uniform(0, task, "classes", 0, n)).wobbles(len(harmonics))


def _harmonics(coefficients: Outlines, of: tuple[int, ...]) -> Outlines:
    """Coefficients of some harmonics, [n, len(of)], among zeros for the others: complex64 [n, 6]."""
    all_of_them = np.zeros((len(coefficients), len(HARMONICS)), np.complex64)
    all_of_them[:, [HARMONICS.index(k) for k in of]] = coefficients
    return all_of_them


def _grid(side: int) -> tuple[Floats, Floats]:
    """Pixel centres in half sides from the centre: x as float32 [1, side], y as float32 [side, 1]."""
    centres = ((2 * np.arange(side) + 1) / side - 1).astype(np.float32)
    return centres.reshape(1, -1), centres.reshape(-1, 1)


def _by_pixel(quantity: NDArray[Any]) -> NDArray[Any]:
    """[n] to [n, 1, 1], to combine with pixels."""
    return quantity.reshape(-1, 1, 1)
