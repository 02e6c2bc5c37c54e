"""Sanity flags: signs that a training or an evaluation went wrong although every job succeeded.

A flag stops nothing. It is a name and a message with the values that raised it and what to do. Trainings keep theirs
in their card, or in `timing.json` where they depend on time; the results stage gathers them in `flags.csv`, and the
summary shows them. Pure functions on numbers: no torch, no files. What each flag means stands in `flags.py`, those of
transfers in `transfer_sanity.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from robust_transfer.configuration.eps import eps_value
from robust_transfer.tables.flags import Flag, flag

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

NEAR_CHANCE = 0.9
"""Share of ln K, the loss of guessing among K classes, above which a training came to nothing. Losses on perturbed
images that were learned are smaller, too. Of 35 trainings and fine-tunings of networks of 8 and 14 layers, 22 ended
below 0.74, one at 0.84 (27 % right, of ten classes) and 12 above 0.95, most of them as accurate as guessing."""
UNLEARNED, FALL, TAIL = 1 / 3, 0.1, 0.1
"""Shares of ln K that are left at the end, and that went in the last tenth of the epochs, where a training stopped too
soon. A one-cycle schedule makes every loss fall until the end, so a fall alone says nothing: 1.99 to 0.90 in the last
of five epochs (ln K = 3.0) gave a network that is right on 98 % of test images, 2.57 to 1.76 one that is on 58 %."""
INFORMATIVE = 0.2
"""Share of the way from guessing to perfection that the interval of an accuracy at chance may reach: where it is wider,
so few images cannot tell a network that learned from one that did not."""
QUANTILE = 1.96
"""Standard deviations on either side of a 95 % interval."""

PUBLISHED_SLACK = 0.5
"""Points by which an accuracy may differ from the published one: decoders and resizing differ by tenths."""


@dataclass(frozen=True)
class Loss:
    """All that flags of the loss look at in an epoch."""

    loss: float


class EpochLoss(Protocol):
    """An epoch's loss, and whatever else is known of it."""

    @property
    def loss(self) -> float:
        """Mean over the training images as perturbed."""


class EpochRecord(EpochLoss, Protocol):
    """What flags look at in an epoch; accuracies in percent."""

    @property
    def epoch(self) -> int:
        """From 1."""

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
        found += at_chance(checked[-1] if checked else epochs[-1].train_accuracy, classes, sample, "training")
    return found + loss_flags(epochs, classes)


def loss_flags(epochs: Sequence[EpochLoss], classes: int) -> list[Flag]:
    """`loss-near-chance` and `still-learning`, from the loss of each epoch of a training of so many classes."""
    if not epochs or classes < 2 or not math.isfinite(epochs[-1].loss):
        return []
    last, guessing = epochs[-1].loss, math.log(classes)
    if last > NEAR_CHANCE * guessing:
        says = f"the loss of the last epoch is {last:.3f}, and guessing among {classes} classes has {guessing:.3f}"
        return [flag("loss-near-chance", says)]
    tail = max(1, round(TAIL * len(epochs)))
    before = epochs[-1 - tail].loss if len(epochs) > tail else last
    if last <= UNLEARNED * guessing or before - last <= FALL * guessing:
        return []
    when = "epoch" if tail == 1 else f"{tail} epochs"
    says = f"the loss fell from {before:.3f} to {last:.3f} in the last {when} of {len(epochs)}"
    return [flag("still-learning", says)]


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
    return [flag("eps-implausible", says)]


def published_flags(accuracy: float, images: int, published: float | None) -> list[Flag]:
    """Of an imported network: its accuracy on so many test images and the one published for it, both in percent."""
    if published is None:
        return []
    noise = DEVIATIONS * math.sqrt(published * (100 - published) / images)
    if abs(accuracy - published) <= max(PUBLISHED_SLACK, noise):
        return []
    return [
        flag(
            "unlike-published", f"{accuracy:.2f} % of {images} test images are right, published were {published:.2f} %"
        )
    ]


def loader_flags(loader_rate: float | None, network_rate: float | None) -> list[Flag]:
    """`loader-bound` from images per second that the loader delivers and that the network can take; None: not known."""
    if loader_rate is None or network_rate is None or loader_rate >= SLACK * network_rate:
        return []
    says = f"the loader delivers {loader_rate:.0f} images/s, of {network_rate:.0f} that the network can take"
    return [flag("loader-bound", says)]


def evaluation_flags(
    *, classes: int, images: int, clean: float, robust: float | None, train_robust: float | None, sample: int = 512
) -> list[Flag]:
    """The flags of a backbone's evaluation on test images; accuracies in percent.

    `robust` is accuracy under PGD at the backbone's own eps, None for eps 0; `train_robust` the last robust accuracy on
    the `sample` training images that its training checked, None where there is none. `images`: of the test set.
    """
    found = at_chance(clean, classes, images, "test")
    if robust is None or train_robust is None:
        return found
    noise = DEVIATIONS * math.hypot(deviation(train_robust, sample), deviation(robust, images))
    if robust < HALF * train_robust and train_robust - robust > noise:
        says = f"robust accuracy is {robust:.1f} % on {images} test images, "
        says += f"{train_robust:.1f} % on {sample} training images"
        found.append(flag("robust-overfitting", says))
    return found


def _not_finite(epochs: Sequence[EpochRecord]) -> list[Flag]:
    for epoch in epochs:
        if not math.isfinite(epoch.loss):
            return [flag("loss-not-finite", f"the loss of epoch {epoch.epoch} is {epoch.loss}")]
    return []


def _collapsed(epochs: Sequence[EpochRecord], sample: int) -> list[Flag]:
    """`collapsed-robustness`, for the deepest fall: a network may recover, and its weights may be sound again."""
    checked = [(epoch, epoch.robust_accuracy) for epoch in epochs if epoch.robust_accuracy is not None]
    if not checked:
        return []
    (best, before), falls = checked[0], []
    for epoch, robust in checked:
        noise = DEVIATIONS * deviation(before, sample)
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
    return [flag("collapsed-robustness", says)]


def at_chance(accuracy: float, classes: int, images: int, split: str, name: str = "at-chance") -> list[Flag]:
    """`at-chance`, or another `name`, for an accuracy in percent over so many images of a split.

    Too few images raise none: 18 of 21 classes cannot tell 16 % from the 4.8 % of guessing, nor from 30 %.
    """
    if classes < 2:
        return []
    chance = 100 / classes
    low, high = _interval(accuracy, images)
    if is_above_chance(accuracy, classes, images) or high > chance + INFORMATIVE * (100 - chance):
        return []
    says = f"accuracy on {images} {split} images is {accuracy:.1f} % [{low:.1f}, {high:.1f}], "
    return [flag(name, f"{says}and guessing among {classes} classes gives {chance:.1f} %")]


def conflict_flags(decided: int, images: int, classes: int) -> list[Flag]:
    """`cues-at-chance`, where so many of the images were decided for their shape or their texture class.

    Guessing among K classes decides 2/K of them so, for either alike: a shape bias of 50 % that says nothing.
    """
    chance, share = 100 * min(1.0, 2 / classes), 100 * decided / images
    if share > chance + DEVIATIONS * deviation(chance, images):
        return []
    says = f"{share:.1f} % of {images} images with cues in conflict were decided for their shape or their texture, "
    return [flag("cues-at-chance", f"{says}and guessing among {classes} classes gives {chance:.1f} %")]


def is_above_chance(accuracy: float, classes: int, images: int) -> bool:
    """Whether an accuracy in percent over so many images is more than guessing, by more than sampling noise."""
    chance = 100 / classes
    return accuracy > chance + DEVIATIONS * deviation(chance, images)


def _interval(accuracy: float, images: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an accuracy over so many images, in percent."""
    share, squared = accuracy / 100, QUANTILE**2 / images
    half = QUANTILE * math.sqrt(share * (1 - share) / images + squared / (4 * images))
    low, high = (100 * (share + squared / 2 + side) / (1 + squared) for side in (-half, half))
    return max(0.0, low), min(100.0, high)


def deviation(accuracy: float, images: int) -> float:
    """Standard deviation in percentage points of an accuracy in percent over so many images."""
    share = min(max(accuracy / 100, 0.0), 1.0)
    return 100 * math.sqrt(share * (1 - share) / images)
