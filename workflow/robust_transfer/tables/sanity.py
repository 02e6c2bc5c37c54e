"""Sanity flags: signs that a training or an evaluation went wrong although every job succeeded.

A flag stops nothing. It is a name and a message with the values that raised it and what to do. Trainings keep theirs
in their card, or in `timing.json` where they depend on time; the results stage gathers them in `flags.csv`, and the
summary shows them. Pure functions on numbers: no torch, no files. What each flag means stands in `FLAGS`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from robust_transfer.configuration.eps import eps_value

DEVIATIONS = 3.0
"""Standard deviations of a count of independent images that pass for sampling noise: one alarm in 740 is false."""
HALF = 0.5
"""Share of robust accuracy whose loss is a collapse. Wong, Rice and Kolter (2020) saw it fall to nothing
within an epoch; what a rising learning rate costs for a while should be less than half."""
KEPT = 0.9
"""Share of accuracy under training's own attack that counts as not fallen: it rises where that attack is outwitted, and
falls with robust accuracy where training as such goes wrong."""
L2_BUDGET, LINF_BUDGET = 0.05, 32 / 255
"""Most that a plausible radius lets a pixel move, as a share of its range: for L2 if it is spread over all of them."""
SLACK = 0.9
"""Share of the network's speed that a loader may fall short of: measured speeds vary by some percent."""

PUBLISHED_SLACK = 0.5
"""Points by which an accuracy may differ from the published one: decoders and resizing differ by tenths."""


@dataclass(frozen=True)
class Flag:
    """Something that looks wrong: one of `FLAGS`, and a message with its values and the fix."""

    flag: str
    message: str

    def as_json(self) -> dict[str, str]:
        """As it stands in a card or in `timing.json`."""
        return {"flag": self.flag, "message": self.message}


@dataclass(frozen=True)
class Meaning:
    """What a flag says, and what to do about it."""

    means: str
    fix: str


FLAGS = {
    "loss-not-finite": Meaning(
        "The loss of an epoch is infinite or not a number: the weights are of no use.",
        "lower training.learning_rate, lengthen warmup_fraction, or train in precision: fp32",
    ),
    "at-chance": Meaning(
        "Accuracy on clean images is what guessing among the classes gives, within sampling noise: nothing was "
        "learned. (Where classes differ in size, guessing the largest gives more, and this flag stays silent.)",
        "train longer, or lower the learning rate or the eps",
    ),
    "collapsed-robustness": Meaning(
        "Robust accuracy on the check sample fell to less than half of its best so far, while accuracy under "
        "training's own attack did not fall: catastrophic overfitting to an attack that the network has learned to "
        "outwit. Wong, Rice and Kolter (2020), 'Fast is better than free'.",
        "set more attack.steps or attack.random_start: true, lower the learning rate, or train for fewer epochs",
    ),
    "robust-overfitting": Meaning(
        "Robust accuracy on test images is less than half of what it is on training images: the network knows its "
        "training images by heart, or withstands the check's attack and not the evaluation's. Rice, Wong and Kolter "
        "(2020), 'Overfitting in adversarially robust deep learning'.",
        "train for fewer epochs, with augmentation, on more images, or with average_decay",
    ),
    "eps-implausible": Meaning(
        "The radius lets an attack move every pixel by more than 0.05 of its range (L2, spread evenly) or 32/255 "
        "(Linf): it may change what an image shows. A likely slip is an eps in other units.",
        "write the eps in units of pixels between 0 and 1 (for linf, 4/255 and not 4), or a smaller one",
    ),
    "unlike-published": Meaning(
        "An imported network's accuracy on the source's test images differs from the one that was published for it by "
        "more than half a point and more than sampling noise: the weights, the order of the classes or the way images "
        "are cropped and scaled may not be what they were.",
        "check which file was imported, the source's class order, input_size and preprocessing.resize_ratio",
    ),
    "loader-bound": Meaning(
        "Images are decoded and augmented at less than nine tenths of the speed at which the network could take them: "
        "the device waits.",
        "give the job more threads or running.workers, raise running.resident_mb, or set the dataset's stored_side",
    ),
}


class EpochRecord(Protocol):
    """What flags look at in an epoch; accuracies in percent."""

    @property
    def epoch(self) -> int:
        """From 1."""

    @property
    def loss(self) -> float:
        """Mean over the training images as perturbed."""

    @property
    def train_accuracy(self) -> float:
        """On the training images as perturbed."""

    @property
    def clean_accuracy(self) -> float | None:
        """On the check sample, in eval mode; None where it was not checked."""

    @property
    def robust_accuracy(self) -> float | None:
        """The same under a stronger attack; None where it was not checked."""


def training_flags(
    epochs: Sequence[EpochRecord],
    *,
    classes: int,
    norm: str | None,
    eps: float | str,
    input_size: int,
    sample: int = 512,
) -> list[Flag]:
    """The flags of a training, from what its epochs came to.

    `norm` is None for eps 0; `eps` a radius in [0, 1] pixel units, or its text; `input_size` in pixels. `sample` is the
    number of images that were checked: the fewer, the more an accuracy must fall before it is more than noise.
    """
    found = [*_not_finite(epochs), *_collapsed(epochs, sample), *eps_flags(norm, eps, input_size)]
    if epochs:
        checked = [epoch.clean_accuracy for epoch in epochs if epoch.clean_accuracy is not None]
        found += _at_chance(checked[-1] if checked else epochs[-1].train_accuracy, classes, sample, "training")
    return found


def eps_flags(norm: str | None, eps: float | str, input_size: int) -> list[Flag]:
    """`eps-implausible` for a radius in [0, 1] pixel units (or its text), at images of `input_size` pixels a side."""
    radius = eps_value(eps) if isinstance(eps, str) else eps
    budget, most = radius, LINF_BUDGET
    if norm != "linf":
        budget, most = radius / math.sqrt(3 * input_size**2), L2_BUDGET
    if not radius or budget <= most:
        return []
    written = eps if isinstance(eps, str) else f"{eps:g}"
    says = (
        f"eps {written} ({norm or 'l2'}) at {input_size} px lets every pixel move by {budget:.3g} of its range "
        f"({255 * budget:.0f}/255), more than {most:.3g}"
    )
    return [_flag("eps-implausible", says)]


def published_flags(accuracy: float, images: int, published: float | None) -> list[Flag]:
    """Of an imported network: its accuracy on so many test images and the one published for it, both in percent."""
    if published is None:
        return []
    noise = DEVIATIONS * math.sqrt(published * (100 - published) / images)
    if abs(accuracy - published) <= max(PUBLISHED_SLACK, noise):
        return []
    return [
        _flag(
            "unlike-published", f"{accuracy:.2f} % of {images} test images are right, published were {published:.2f} %"
        )
    ]


def loader_flags(loader_rate: float | None, network_rate: float | None) -> list[Flag]:
    """`loader-bound` from images per second that the loader delivers and that the network can take; None: not known."""
    if loader_rate is None or network_rate is None or loader_rate >= SLACK * network_rate:
        return []
    says = f"the loader delivers {loader_rate:.0f} images/s, of {network_rate:.0f} that the network can take"
    return [_flag("loader-bound", says)]


def evaluation_flags(
    *, classes: int, images: int, clean: float, robust: float | None, train_robust: float | None, sample: int = 512
) -> list[Flag]:
    """The flags of a backbone's evaluation on test images; accuracies in percent.

    `robust` is accuracy under PGD at the backbone's own eps, None for eps 0; `train_robust` the last robust accuracy on
    the `sample` training images that its training checked, None where there is none. `images`: of the test set.
    """
    found = _at_chance(clean, classes, images, "test")
    if robust is None or train_robust is None:
        return found
    noise = DEVIATIONS * math.hypot(_deviation(train_robust, sample), _deviation(robust, images))
    if robust < HALF * train_robust and train_robust - robust > noise:
        says = f"robust accuracy is {robust:.1f} % on test images, {train_robust:.1f} % on training images"
        found.append(_flag("robust-overfitting", says))
    return found


def _not_finite(epochs: Sequence[EpochRecord]) -> list[Flag]:
    for epoch in epochs:
        if not math.isfinite(epoch.loss):
            return [_flag("loss-not-finite", f"the loss of epoch {epoch.epoch} is {epoch.loss}")]
    return []


def _collapsed(epochs: Sequence[EpochRecord], sample: int) -> list[Flag]:
    """`collapsed-robustness`, for the deepest fall: a network may recover, and its weights may be sound again."""
    checked = [(epoch, epoch.robust_accuracy) for epoch in epochs if epoch.robust_accuracy is not None]
    if not checked:
        return []
    (best, before), falls = checked[0], []
    for epoch, robust in checked:
        noise = DEVIATIONS * _deviation(before, sample)
        kept = epoch.train_accuracy >= KEPT * best.train_accuracy
        if robust > before:
            best, before = epoch, robust
        elif robust < HALF * before and before - robust > noise and kept:
            falls.append((robust, epoch.epoch, before, best.epoch))
    if not falls:
        return []
    robust, at, before, of = min(falls)
    says = f"robust accuracy fell from {before:.1f} % (epoch {of}) to {robust:.1f} % (epoch {at})"
    end, last = checked[-1]
    if end.epoch != at:
        says += f" and ended at {last:.1f} %"
    return [_flag("collapsed-robustness", says)]


def _at_chance(accuracy: float, classes: int, images: int, split: str) -> list[Flag]:
    if classes < 2:
        return []
    chance = 100 / classes
    if accuracy > chance + DEVIATIONS * _deviation(chance, images):
        return []
    says = f"accuracy on {split} images is {accuracy:.1f} %, and guessing among {classes} classes gives {chance:.1f} %"
    return [_flag("at-chance", says)]


def _deviation(accuracy: float, images: int) -> float:
    """Standard deviation in percentage points of an accuracy in percent over so many images."""
    share = min(max(accuracy / 100, 0.0), 1.0)
    return 100 * math.sqrt(share * (1 - share) / images)


def _flag(name: str, says: str) -> Flag:
    return Flag(name, f"{says}; {FLAGS[name].fix}")
