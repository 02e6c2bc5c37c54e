"""Figure 8's published numbers, brought to the form in which our own results have them.

`published/stylized.csv` calls Stylized ImageNet a dataset, `stylized_imagenet`: as a target, where networks are tested
on it or transferred to it, and as a source, where they were trained on it. Here it is a view of ImageNet: such a target
is ImageNet under the variant `stylized`, and networks trained on it are ImageNet's, of a texture-robust recipe.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from robust_transfer.configuration.catalogue.datasets import catalogued
from robust_transfer.configuration.training import TEXTURE_ROBUST
from robust_transfer.tables.experiment_info import ExperimentInfo, Target
from robust_transfer.tables.key import canonical
from robust_transfer.tables.published import FOLDER, PUBLISHED
from robust_transfer.tables.published_results import published_rows
from robust_transfer.tables.results import as_results

EDITION = "submission, figure 8"
STYLIZED, NATIVE = "stylized_imagenet", "imagenet"
METHOD = "adain"
"""How the images of Stylized ImageNet were stylized."""
RECIPE = TEXTURE_ROBUST["stylized"]
"""How the networks that were trained on Stylized ImageNet were trained is not known; that it was on it alone is."""
LABELS = {RECIPE: "texture-robust, Stylized ImageNet"}
"""What legends call it."""


def as_views(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of published numbers in which Stylized ImageNet is a view of ImageNet; others stay as they are."""
    on_it, from_it = rows["target"].astype("string") == STYLIZED, rows["source"].astype("string") == STYLIZED
    variant = canonical({"stylized": METHOD})
    return rows.assign(
        target=rows["target"].astype("string").mask(on_it, NATIVE),
        variant=rows["variant"].mask(on_it, variant),
        source=rows["source"].mask(from_it, NATIVE),
        recipe=rows["recipe"].mask(from_it, RECIPE),
    )


def published_texture(folder: Path = FOLDER) -> pd.DataFrame:
    """The numbers of Figure 8 as `read_results` gives a table, which the figure `texture` draws."""
    rows = as_views(published_rows(edition=EDITION, folder=folder))
    of_targets = rows[rows["target"] != NATIVE].drop_duplicates("target")
    targets = [
        Target(name, catalogued(name).label, metric)
        for name, metric in zip(of_targets["target"], of_targets["metric"], strict=True)
    ]
    info = ExperimentInfo(
        experiment=PUBLISHED,
        source=NATIVE,
        source_label=catalogued(NATIVE).label,
        targets=tuple(targets),
        architectures=tuple(rows["arch"].drop_duplicates()),
        selection="test",
        protocol="paper",
        texture_robust=LABELS,
    )
    return as_results(rows, info)
