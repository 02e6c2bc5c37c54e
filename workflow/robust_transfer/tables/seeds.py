"""Means over seeds: what a network measured under several seeds is worth.

The interval is Student's over seeds, widened by the error over test images, which all seeds share
(`intervals.seeds_interval`); of two seeds it is wide, since two seeds say little. It stays between 0 and 100.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from robust_transfer.statistics.intervals import TAIL
from robust_transfer.tables.flags import joined
from robust_transfer.tables.key import canonical
from robust_transfer.tables.results import KEY, RESULTS


def seed_means(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for every number measured under several seeds: over transfer seeds, then over backbone seeds.

    Takes and gives the columns of the results table; no rows where every number has one seed.
    """
    over_transfer = _means(rows, "transfer_seed")
    over_backbone = _means(over_transfer, "backbone_seed")
    return RESULTS.frame(pd.concat([means[means["runs"] > 1] for means in (over_transfer, over_backbone)]))


def _means(rows: pd.DataFrame, seed: str) -> pd.DataFrame:
    """Means of rows that differ in this seed alone, and `runs`, how many they are: one where there is a single seed."""
    same = [name for name in KEY if name != seed]
    means = (
        rows.groupby(same, sort=False, dropna=False, observed=True)
        .agg(
            eps_value=("eps_value", "first"),
            value=("value", "mean"),
            spread=("value", "std"),
            ci_low=("ci_low", "mean"),
            ci_high=("ci_high", "mean"),
            ci_kind=("ci_kind", "first"),
            n=("n", "first"),
            seeds=(seed, list),
            runs=("value", "size"),
            flags=("flags", joined),
            training=("training", "first"),
        )
        .reset_index()
    )
    means["hyperparameters"] = [_says(seed, seeds) for seeds in means["seeds"]]
    means = means.assign(**{seed: None}, backbone=None, entry=None, code=None)
    several = means["runs"] > 1
    if several.any():
        from scipy.special import stdtrit

        runs, mean = means.loc[several, "runs"], means.loc[several, "value"]
        # The interval over images of a single run is 2 Z standard errors wide.
        over_images = (means.loc[several, "ci_high"] - means.loc[several, "ci_low"]) / 2
        over_seeds = stdtrit(runs - 1, 1 - TAIL) * means.loc[several, "spread"] / runs**0.5
        half = np.hypot(over_seeds, over_images)
        means.loc[several, ["ci_low", "ci_high", "ci_kind", "n"]] = pd.DataFrame(
            {"ci_low": (mean - half).clip(0), "ci_high": (mean + half).clip(upper=100), "ci_kind": "seeds", "n": runs}
        )
    return means


def _says(seed: str, seeds: list[int]) -> str:
    """What stands in the place of hyperparameters; a single seed may be null, and is no mean."""
    return canonical({"mean_over": seed, "seeds": sorted(map(int, seeds))} if len(seeds) > 1 else {})
