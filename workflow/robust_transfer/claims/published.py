"""The paper's published numbers as a results table that claims are tested on."""

from __future__ import annotations

import pandas as pd

from robust_transfer.claims.ledger import PUBLISHED
from robust_transfer.claims.lookup import CONFLICT, TEXTURE_ROBUST
from robust_transfer.tables.experiment_info import ExperimentInfo, Target
from robust_transfer.tables.key import BEST_ARCH
from robust_transfer.tables.published import RELEASED
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
SOURCE, STYLIZED = "imagenet", "stylized_imagenet"


def published_table() -> pd.DataFrame:
    """The numbers to draw beside ours, and those of networks trained on Stylized ImageNet (figure 8).

    As in an experiment's table, images of Stylized ImageNet are a view of the source, and training on them is a recipe.
    """
    every = read_published()
    rows = pd.concat([published_rows(), every.loc[every["source"] == STYLIZED, RESULTS.columns]], ignore_index=True)
    rows = rows[(rows["mode"] != CONFLICT) | (rows["recipe"] == RELEASED)]
    trained_on, tested_on = rows["source"] == STYLIZED, rows["target"] == STYLIZED
    rows = rows.assign(
        source=rows["source"].where(~trained_on, SOURCE),
        recipe=rows["recipe"].where(~trained_on, f"{TEXTURE_ROBUST}stylized"),
        target=rows["target"].where(~tested_on, SOURCE),
        variant=rows["variant"].where(~tested_on, '{"stylized":"adain"}'),
    )
    metrics = rows[rows["target"].isin(list(TARGETS))].groupby("target")["metric"].first()
    others = [arch for arch in rows["arch"].unique() if arch not in (*WIDTHS, BEST_ARCH)]
    info = ExperimentInfo(
        experiment=PUBLISHED,
        title="Do adversarially robust ImageNet models transfer better? The published numbers",
        source=SOURCE,
        source_label="ImageNet",
        targets=tuple(Target(name, label, str(metrics[name])) for name, label in TARGETS.items()),
        architectures=(*WIDTHS, *map(str, others)),
        widths=WIDTHS,
        fixed_eps={"l2": "3"},
        selection="test",
        protocol="paper",
    )
    return as_results(rows, info)
