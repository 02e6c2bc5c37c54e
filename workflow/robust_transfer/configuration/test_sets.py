"""Further test sets of a target's classes: the classifier that was trained on the target, tested on other images."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from robust_transfer.configuration.base import Model, Name
from robust_transfer.configuration.transfer import Selection

Classes = Annotated[dict[str, str], Field(min_length=1)]


class AlsoTestOn(Model):
    """Another dataset on whose test images the models transferred to a target are tested too."""

    dataset: Name
    """A dataset that `datasets` defines. Its test images are used, and none of its training images."""
    classes: Classes | None = None
    """Class of that dataset to the class of the target that it is: `{automobile: car}`. Test images of classes that \
are not named are left out. Default: all of its classes are classes of the target, by the same names."""


class TestedOn(Model):
    """One model on one test set."""

    __test__ = False  # for pytest, which collects classes of such a name

    model: str
    """Role of the input that is the transfer."""
    images: str
    """Role of the input that has the test images: of a model on stored features their features, else the dataset."""
    target: str
    """What the configuration calls the dataset that was transferred to."""
    test_set: str
    """What it calls the dataset of the test images."""
    classes: Classes | None = None
    """As in `AlsoTestOn`."""


class TestSetsSettings(Model):
    """Settings of an entry under `store/test_sets/`. Inputs: `backbone`; `model0`, …, the transfers whose models are
    tested, with `dataset0`, …, their targets; what their weights come from, `features0`, … or `final0_0`, …; and
    `images0`, …, the test images.
    """

    __test__ = False

    tests: tuple[TestedOn, ...]
    selection: Selection = "validation"
    """Where the hyperparameters of the models were chosen."""
