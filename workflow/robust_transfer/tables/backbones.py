"""Properties of backbones: what is known of each network before it is transferred, from the rows of the results table.

`backbones.csv` beside the results table has one row per backbone and one column per property; the figure `predictors`
asks which of them go along with transfer accuracy. Nothing is measured for it: what an experiment did not measure of a
backbone is empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from robust_transfer.configuration.eps import eps_name
from robust_transfer.store.entry import write_text
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.flags import joined
from robust_transfer.tables.results import from_most_images

BACKBONE = ("source", "arch", "recipe", "norm", "eps", "backbone_seed")
"""Columns of the results table that name a backbone."""
PROPERTIES = (
    "source_accuracy",
    "robust_accuracy",
    "shape_bias",
    "inversion_distance",
    "gradient_low_frequency",
    "knn_accuracy",
)
"""Properties that every table of backbones has a column for."""
DETAILS = ("shape_decisions", "texture_decisions", "inversion_pixels", "inversion_moved", "inversion_ssim")
"""Further numbers of cue-conflict images and galleries, where an experiment has them."""
ROBUST_ACCURACY_AT = "robust_accuracy_"
"""Begins the name of an accuracy under an attack at one radius: `robust_accuracy_l2_eps0.4`."""
SOURCE_ACCURACY_ON = "source_accuracy_"
"""Begins the name of an accuracy on shifted images of the source: `source_accuracy_stylized`, `source_accuracy_9px`."""


def backbone_table(results: pd.DataFrame) -> pd.DataFrame:
    """One row per backbone, one column per property, as `backbones.csv` has them; NaN: not measured.

    backbone                    entry of the backbone in the store
    source, arch, recipe, norm, eps, seed
                                as in the results table (`seed` is its `backbone_seed`)
    source_accuracy             top-1 accuracy on test images of the source
    robust_accuracy             the same under the attack at the backbone's own norm and eps, of several attacks under
                                the one that leaves least; empty for eps 0
    shape_bias                  share of decisions for the shape among those for the shape or the texture
    inversion_distance          inversion error: distance left in the representation, percent of its norm
    gradient_low_frequency      gradient smoothness: share of the loss gradient's energy at low frequencies
    knn_accuracy                mean over targets of the knn protocol's accuracy, for backbones that have all of them
    source_accuracy_<view>      accuracy on shifted images of the source: `stylized`, or downscaled to `<n>px`
    robust_accuracy_<norm>_eps<radius>
                                accuracy under the attack at one radius, where networks of several eps were attacked
                                at it
    shape_decisions, texture_decisions, inversion_pixels, inversion_moved, inversion_ssim
                                as metrics of the results table
    flags                       names of the sanity flags behind any of these numbers, comma-separated

    Values are in percent, of single backbones (no means over seeds). `results` are as `read_results` gives them.
    """
    measured = properties(results)
    backbones = _backbones(results)
    found = backbones.drop_duplicates(list(BACKBONE))[[*BACKBONE, "backbone"]].astype(dict.fromkeys(BACKBONE, "object"))
    names = measured["property"].unique().tolist()
    columns = [*PROPERTIES, *sorted(set(names) - {*PROPERTIES, *DETAILS}), *(one for one in DETAILS if one in names)]
    for name in columns:
        values = measured.loc[measured["property"] == name, [*BACKBONE, "value"]]
        found = found.merge(values.rename(columns={"value": name}), "left", list(BACKBONE))
    flags = measured.groupby(list(BACKBONE), dropna=False, sort=False)["flags"].agg(joined).reset_index()
    found = found.merge(flags, "left", list(BACKBONE)).rename(columns={"backbone_seed": "seed"})
    return found[["backbone", *(name for name in found if name != "backbone")]]


def write_backbones(path: Path, results: pd.DataFrame) -> None:
    """Write `backbone_table` as CSV, numbers to four decimals; what was not measured is empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, backbone_table(results).to_csv(index=False, lineterminator="\n", float_format="%.4f"))


def properties(results: pd.DataFrame) -> pd.DataFrame:
    """What was measured of every backbone, one row per property: `BACKBONE`, `property`, `value` (percent), `flags`."""
    rows = _backbones(results)
    found = pd.concat([*_on_source(rows), _beside_source(rows), _nearest_neighbours(results)])
    return found[[*BACKBONE, "property", "value", "flags"]].reset_index(drop=True)


def transfers(results: pd.DataFrame) -> pd.DataFrame:
    """The transfer accuracy of every single backbone, one row per way of measuring and target: the mean over its seeds
    of transfer.

    On clean test images as they are, by the target's metric, from all training images (or for a mode and target the
    most that there are), with hyperparameters chosen as the experiment says. Columns: `BACKBONE`, `mode`, `protocol`,
    `variant`, `images_per_class`, `training_images`, `target`, `value` in percent and `flags`.
    """
    about = ExperimentInfo.of(results)
    every = results[(results["split"] == "test") & results["attack"].isna()]
    every.attrs = {}
    every = every[from_most_images(every)]
    metric = every["target"].astype("string").map(about.metrics)
    chosen = every["selection"]
    selections = chosen.dropna().unique().tolist()
    shown = about.selection if about.selection in selections else next(iter(selections), "")
    native = every["variant"].map({text: _is_native(text) for text in every["variant"].unique()}).astype(bool)
    rows = _backbones(every[(every["metric"] == metric) & (chosen == shown).fillna(False).astype(bool) & native])
    how = [*BACKBONE, "mode", "protocol", "variant", "images_per_class", "training_images", "target"]
    return (
        rows.groupby(how, dropna=False, sort=False).agg(value=("value", "mean"), flags=("flags", joined)).reset_index()
    )


def _backbones(results: pd.DataFrame) -> pd.DataFrame:
    """The rows of single backbones: of no means over seeds, and of none that was chosen."""
    rows = results[results["backbone"].notna() & results["backbone_seed"].notna()]
    rows.attrs = {}  # pandas copies them deeply in every operation
    return rows.astype(dict.fromkeys([*BACKBONE, "target", "mode", "protocol"], "object"))


def _on_source(rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Accuracies on the source: on images as they are and on shifted ones, and under attack."""
    rows = rows[(rows["mode"] == "source") & (rows["metric"] == "top1") & (rows["split"] == "test")]
    rows = rows.assign(property=[_of_view(text) for text in rows["variant"]])
    yield rows[rows["attack"].isna()].drop_duplicates([*BACKBONE, "property"])
    attacked = rows[rows["attack"].notna() & (rows["property"] == "source_accuracy")]
    said = [json.loads(text) for text in attacked["attack"]]
    attacked = attacked.assign(
        at_norm=[one.get("norm") for one in said], at_eps=[str(one.get("eps")) for one in said]
    ).sort_values("value", kind="stable")
    attacked = attacked.drop_duplicates([*BACKBONE, "at_norm", "at_eps"])
    own = attacked[(attacked["at_norm"] == attacked["norm"]) & (attacked["at_eps"] == attacked["eps"])]
    yield own.assign(property="robust_accuracy")
    for (norm, eps), at_radius in attacked.groupby(["at_norm", "at_eps"]):
        if len(at_radius[["norm", "eps"]].drop_duplicates()) > 1:
            yield at_radius.assign(property=f"{ROBUST_ACCURACY_AT}{norm}_{eps_name(str(eps))}")


def _of_view(variant: str) -> str:
    """What the accuracy on the source's images in this view is called."""
    said = json.loads(variant)
    if "downscaled" in said:
        return f"{SOURCE_ACCURACY_ON}{said['downscaled']}px"
    return f"{SOURCE_ACCURACY_ON}stylized" if "stylized" in said else "source_accuracy"


def _beside_source(rows: pd.DataFrame) -> pd.DataFrame:
    """The numbers of cue-conflict images, over all of them, and of galleries."""
    rows = rows[rows["mode"].isin(["cue-conflict", "gallery"])]
    rows = rows[rows["metric"].isin([*PROPERTIES, *DETAILS]) & (rows["split"] == "test")]
    over_all = ["shape" not in json.loads(text) for text in rows["variant"]]
    return rows[over_all].assign(property=rows["metric"][over_all]).drop_duplicates([*BACKBONE, "property"])


def _nearest_neighbours(results: pd.DataFrame) -> pd.DataFrame:
    """The mean over targets of the knn protocol's accuracy, of backbones that were measured on each of them."""
    rows = transfers(results)
    rows = rows[rows["protocol"] == "knn"]
    of_one = rows.groupby(list(BACKBONE), dropna=False, sort=False)
    means = of_one.agg(value=("value", "mean"), flags=("flags", joined), targets=("target", "nunique")).reset_index()
    return means[means["targets"] == rows["target"].nunique()].assign(property="knn_accuracy")


def _is_native(variant: str) -> bool:
    """Images were neither downscaled nor stylized."""
    return {"downscaled", "stylized"}.isdisjoint(json.loads(variant))
