"""The paper's published numbers as a results table that claims are tested on."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from robust_transfer.claims.lookup import CONFLICT
from robust_transfer.tables.key import BEST_ARCH
from robust_transfer.tables.published import RELEASED
from robust_transfer.tables.published_experiment import WIDTHS, paper
from robust_transfer.tables.published_results import published_rows, read_published
from robust_transfer.tables.published_texture import LABELS, STYLIZED, as_views
from robust_transfer.tables.results import RESULTS, as_results


def published_table() -> pd.DataFrame:
    """The numbers to draw beside ours, and those of networks trained on Stylized ImageNet (figure 8).

    As in an experiment's table, images of Stylized ImageNet are a view of the source, and training on them is a recipe.
    """
    every = read_published()
    rows = pd.concat([published_rows(), every.loc[every["source"] == STYLIZED, RESULTS.columns]], ignore_index=True)
    rows = as_views(rows[(rows["mode"] != CONFLICT) | (rows["recipe"] == RELEASED)])
    others = [arch for arch in rows["arch"].unique() if arch not in (*WIDTHS, BEST_ARCH)]
    info = replace(paper(), notice="", architectures=(*WIDTHS, *map(str, others)), released=(), norm=None)
    return as_results(rows, replace(info, texture_robust=LABELS, drawn_from="ours"))
