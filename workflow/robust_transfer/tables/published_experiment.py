"""The paper as an experiment: its published numbers as a results table, alone or beside those of another experiment."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pandas as pd

from robust_transfer.configuration.catalogue.datasets import catalogued
from robust_transfer.tables.experiment_info import ExperimentInfo, Target
from robust_transfer.tables.published import PUBLISHED, RELEASED
from robust_transfer.tables.published_results import few_images_rows, published_rows, unreleased_rows
from robust_transfer.tables.results import as_results

WIDTHS = ("resnet18", "resnet50", "wide_resnet50_2", "wide_resnet50_4")
"""The paper's main networks, by width."""
OTHERS = ("densenet161", "mnasnet1_0", "mobilenet_v2", "resnext50_32x4d", "shufflenet_v2_x1_0", "vgg16_bn")
"""Those that were transferred at eps 0 and 3 alone."""
SOURCE = "imagenet"
TARGETS = {
    "aircraft": "mean_per_class",
    "birdsnap": "top1",
    "cifar10": "top1",
    "cifar100": "top1",
    "caltech101": "mean_per_class",
    "caltech256": "mean_per_class",
    "cars": "top1",
    "dtd": "top1",
    "flowers": "mean_per_class",
    "food": "top1",
    "pets": "mean_per_class",
    "sun397": "top1",
}
"""The twelve targets in the paper's order, each with the metric of its published numbers."""
OTHER_TARGETS = {"svhn": "top1", "fmnist": "top1", "kmnist": "top1", "mnist": "top1"}
"""Targets of published numbers that are not the paper's (`published_few_images`)."""


def paper() -> ExperimentInfo:
    """What figures need to know of the paper. Figures of one norm show L2 networks, as the paper's do."""
    labels = {name: catalogued(name).label for name in (SOURCE, *TARGETS)}
    return ExperimentInfo(
        experiment=PUBLISHED,
        title="Do adversarially robust ImageNet models transfer better? The published numbers",
        notice=(
            "Read from the tables and figures of Salman et al. (2020): nothing was trained or measured here. Means "
            "without intervals; hyperparameters, eps and architecture were chosen on test images."
        ),
        source=SOURCE,
        source_label=labels[SOURCE],
        targets=tuple(Target(name, labels[name], metric) for name, metric in TARGETS.items()),
        architectures=(*WIDTHS, *OTHERS),
        widths=WIDTHS,
        fixed_eps={"l2": "3"},
        selection="test",
        protocol="paper",
        released=(RELEASED,),
        norm="l2",
        drawn_from="published",
    )


def published_results() -> pd.DataFrame:
    """The published numbers that figures show, as `read_results` gives a table: one for each cell.

    Beside those to draw beside ours it has the L∞ tables' own standard networks, of recipe `unreleased`: at eps 0 with
    the norm `linf`, so that they stand with L∞ networks alone, where all others stand with the released ones.
    """
    rows = [published_rows(), unreleased_rows().assign(norm="linf")]
    return as_results(pd.concat(rows, ignore_index=True), paper())


def published_few_images() -> pd.DataFrame:
    """Utrera et al. (2020), as a table: accuracy by how many training images there were in total."""
    targets = {name: catalogued(name).label for name in ("cifar10", "cifar100")}
    targets |= {"svhn": "SVHN", "fmnist": "Fashion-MNIST", "kmnist": "KMNIST", "mnist": "MNIST"}
    about = replace(
        paper(),
        title="Adversarially-trained deep nets transfer better: the published numbers",
        notice=(
            "Read from the repository of Utrera et al. (2020): nothing was trained or measured here. Means over seeds, "
            "without intervals, of ResNet-50 whose last three blocks were fine-tuned."
        ),
        targets=tuple(Target(name, label, "top1") for name, label in targets.items()),
        architectures=("resnet50",),
        widths=("resnet50",),
        released=(),
        norm=None,
    )
    return as_results(few_images_rows(), about)


def beside_published(results: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """The rows of a results table, and after them the published ones that can stand beside them.

    Those are of the same source, by name, and of the twelve targets those of the same name and metric; none where the
    source is another, since numbers of another source are no reproduction of these.
    """
    info = ExperimentInfo.of(results)
    shared = [target.name for target in paper_beside(info).targets]
    other = published["target"].isin(list(TARGETS)) & ~published["target"].isin(shared)
    here = published[~other] if info.source == SOURCE else published.head(0)
    return as_results(pd.concat([results, here], ignore_index=True), info)


def paper_beside(info: ExperimentInfo, published: Collection[str] = ()) -> ExperimentInfo:
    """The paper as it stands beside another experiment: with the targets of both, in the other's order and words.

    `published` are those that there are published numbers of, of which some are not the paper's. Without targets where
    the other has another source.
    """
    metrics = TARGETS | {name: metric for name, metric in OTHER_TARGETS.items() if name in published}
    shared = [target for target in info.targets if metrics.get(target.name) == target.metric]
    return replace(paper(), targets=tuple(shared if info.source == SOURCE else ()))
