"""The paper's published numbers as a results table that claims are tested on."""

from __future__ import annotations

import pandas as pd

from robust_transfer.claims.ledger import PUBLISHED
from robust_transfer.tables.experiment_info import ExperimentInfo, Target
from robust_transfer.tables.published_results import published_rows, read_published
from robust_transfer.tables.results import RESULTS, as_results

WIDTHS = ("resnet18", "resnet50", "wide_resnet50_2", "wide_resnet50_4")
TARGETS = {
    "aircraft": "Aircraft",
    "birdsnap": "Birdsnap",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "caltech101": "Caltech-101",
    "caltech256": "Caltech-256",
    "cars": "Cars",
    "dtd": "DTD",
    "flowers": "Flowers",
    "food": "Food",
    "pets": "Pets",
    "sun397": "SUN397",
}
STYLIZED = "stylized_imagenet"


def published_table() -> pd.DataFrame:
    """The numbers to draw beside ours, and those of networks trained on Stylized ImageNet (figure 8)."""
    every = read_published()
    rows = pd.concat([published_rows(), every.loc[every["source"] == STYLIZED, RESULTS.columns]], ignore_index=True)
    metrics = rows[rows["target"].isin(list(TARGETS))].groupby("target")["metric"].first()
    others = [arch for arch in rows["arch"].unique() if arch not in (*WIDTHS, "best")]
    info = ExperimentInfo(
        experiment=PUBLISHED,
        title="Do adversarially robust ImageNet models transfer better? The published numbers",
        source="imagenet",
        source_label="ImageNet",
        targets=tuple(Target(name, label, str(metrics[name])) for name, label in TARGETS.items()),
        architectures=(*WIDTHS, *map(str, others)),
        widths=WIDTHS,
        fixed_eps={"l2": "3"},
        selection="test",
        protocol="paper",
    )
    return as_results(rows, info)
