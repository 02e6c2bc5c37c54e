"""The sanity flags that there are: what each means, what to do, and whether a flagged number still counts.

`sanity.py` raises those of trainings and evaluations, `transfer_sanity.py` those of transfers. A number carries the
names of the flags behind it in the column `flags` of the results table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Effect = Literal["fails", "warns", "costs"]
"""`fails`: what the number says was trained was not. It is marked (`DAGGER`) and counts for neither side.
`warns`: the number is of what it says, but could have been better, or is to be read with care; it counts.
`costs`: the number is not concerned, only the time it took."""
DAGGER = "†"
"""Marks a number behind which something failed."""


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
    """What a flag says, whether the number behind it counts, and what to do about it."""

    effect: Effect
    means: str
    fix: str


FLAGS = {
    "loss-not-finite": Meaning(
        "fails",
        "The loss is infinite or not a number: training diverged, and its weights are of no use. Of a transfer, every "
        "candidate of its search did, or the training after it; a head of zeros was measured, which guesses.",
        "lower the learning rate (of a search: add smaller ones), lengthen warmup_fraction, or train in fp32",
    ),
    "loss-near-chance": Meaning(
        "fails",
        "The loss of a training's last epoch, on perturbed images where it is adversarial, is above nine tenths of "
        "ln K, that of guessing among K classes: nothing, or next to nothing, was learned.",
        "lower the learning rate or the eps, lengthen warmup_fraction, or train for more epochs",
    ),
    "at-chance": Meaning(
        "fails",
        "Accuracy on clean images of a network or head that was trained by gradient steps is what guessing among the "
        "classes gives, within sampling noise, and there are images enough to tell: nothing was learned. (Where "
        "classes differ in size, guessing the largest gives a higher top-1 accuracy, and this flag stays silent.)",
        "train longer, or lower the learning rate or the eps",
    ),
    "refit-below-validation": Meaning(
        "fails",
        "Test accuracy is below the validation accuracy by which hyperparameters were chosen, by more than sampling "
        "noise and by more than a quarter of what validation had above guessing, and the second training, on training "
        "and validation images, is not known to have gone as the first: its last loss is higher by more than a tenth "
        "of what that of the search run had fallen below ln K, or is not recorded, or of linear heads trained at once "
        "another is right on far more test images. Near the largest learning rate that works a training may diverge.",
        "add smaller learning rates, lengthen warmup_fraction, or measure several transfer seeds",
    ),
    "cues-at-chance": Meaning(
        "fails",
        "Where shape and texture are of different classes, an image is decided for either no more often than guessing "
        "would: the network does not know these classes in these images, and its shape bias is noise around 50 %.",
        "look at the flags of the backbone and at the probe's accuracy in the entry's card, or measure a network that "
        "knows the classes",
    ),
    "test-below-validation": Meaning(
        "warns",
        "Test accuracy is below the validation accuracy by which hyperparameters were chosen, by as much, though the "
        "second training ended no worse than the first by its loss, or there was none that could go wrong (probes, "
        "nearest neighbours, a single fixed learning rate). So it is a result: test images differ from training images "
        "by more than these do from each other, as where they are frames of the same videos.",
        "keep images that belong together on one side of the split (give the dataset a validation set of its own)",
    ),
    "features-at-chance": Meaning(
        "warns",
        "A probe or the nearest neighbours on stored features are right as often as guessing: the features tell "
        "nothing of these classes, or training images were too few. Neither can fail to train, so it is a result.",
        "look at the flags of the backbone, and at the accuracy of other networks on this target",
    ),
    "collapsed-robustness": Meaning(
        "warns",
        "Robust accuracy on the check sample fell to less than half of its best so far, while accuracy under "
        "training's own attack did not fall: catastrophic overfitting to an attack that the network has learned to "
        "outwit. Wong, Rice and Kolter (2020), 'Fast is better than free'.",
        "set more attack.steps or attack.random_start: true, lower the learning rate, or train for fewer epochs",
    ),
    "robust-overfitting": Meaning(
        "warns",
        "Robust accuracy on test images is less than half of what it is on training images: the network knows its "
        "training images by heart, or withstands the check's attack and not the evaluation's. Rice, Wong and Kolter "
        "(2020), 'Overfitting in adversarially robust deep learning'.",
        "train for fewer epochs, with augmentation, on more images, or with average_decay",
    ),
    "still-learning": Meaning(
        "warns",
        "At a training's end more than a third of the loss of guessing, ln K, was left, and more than a tenth of it "
        "had gone in the last tenth of the epochs: training stopped too soon.",
        "train for more epochs",
    ),
    "at-edge": Meaning(
        "warns",
        "The best of several strengths, numbers of neighbours, learning rates or weight decays is the smallest or "
        "largest that was tried: a better one may lie beyond. Silent where the choice was right on all images, and at "
        "an end that nothing lies beyond (1 neighbour, weight decay 0).",
        "widen that grid at this end",
    ),
    "eps-implausible": Meaning(
        "warns",
        "The radius lets an attack move every pixel by more than 0.05 of its range (L2, spread evenly) or 32/255 "
        "(Linf): it may change what an image shows. A likely slip is an eps in other units.",
        "write the eps in units of pixels between 0 and 1 (for linf, 4/255 and not 4), or a smaller one",
    ),
    "unlike-published": Meaning(
        "warns",
        "An imported network's accuracy on the source's test images differs from the one that was published for it by "
        "more than half a point and more than sampling noise: the weights, the order of the classes or the way images "
        "are cropped and scaled may not be what they were.",
        "check which file was imported, the source's class order, input_size and preprocessing.resize_ratio",
    ),
    "candidate-diverged": Meaning(
        "costs",
        "Of the learning rates and weight decays that a transfer chooses from, some came to a loss that is not finite. "
        "They are not chosen while another is left, so that the number is not concerned.",
        "leave them out of the grid; where the best of the rest is its smallest, add smaller ones",
    ),
    "loader-bound": Meaning(
        "costs",
        "Images are decoded and augmented at less than nine tenths of the speed at which the network could take them: "
        "the device waits.",
        "give the job more threads or running.workers, raise running.resident_mb, or set the dataset's stored_side",
    ),
}
"""Those that fail first. Of those that warn: a network whose robustness collapsed was trained, its clean accuracy is
real and its robust accuracy stands beside it; a choice at the edge of its grid and a training cut short were measured
as the configuration says, which is a reason to change it and none to drop the number."""


def flag(name: str, says: str) -> Flag:
    """One of `FLAGS`, with the values that raised it and what to do."""
    return Flag(name, f"{says}; {FLAGS[name].fix}")


def failures(names: str | None) -> tuple[str, ...]:
    """Of the flags in a cell of the column `flags`, those by which the number counts for neither side."""
    return tuple(name for name in (names or "").split(",") if name in FLAGS and FLAGS[name].effect == "fails")


def joined(names: Iterable[object]) -> str | None:
    """The cell of a number made of several: the flags of all of them; None where those of none are known."""
    known = [name for name in names if isinstance(name, str)]  # pandas' null is neither a text nor None
    raised = {one for name in known for one in name.split(",")}
    return ",".join(name for name in FLAGS if name in raised) if known else None
