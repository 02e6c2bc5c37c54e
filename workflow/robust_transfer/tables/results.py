"""The results table: one schema for every measured number, ours or published, read as one DataFrame.

A row is one number. `KEY` says which one, the other columns what it is. Figures, tables and the report read a results
file and nothing else: the experiment's labels and choices travel in the file's metadata.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from robust_transfer.tables.categories import in_order
from robust_transfer.tables.errors import TableError
from robust_transfer.tables.experiment_info import ATTRIBUTE, ExperimentInfo
from robust_transfer.tables.key import MeasurementKey
from robust_transfer.tables.parquet import TableFormat

DIFFERENCE = "_difference"
"""Ending of the metric of a paired difference to the standard networks, in percentage points."""
OUT_OF_BAG = "_out_of_bag"
"""Ending of the metric of a number chosen on test images, estimated on images that the choice did not see."""

KEY = (
    "experiment",
    *(field.name for field in fields(MeasurementKey)),
    "attack",
    "test_set",
    "split",
    "selection",
    "metric",
)
"""Columns that tell a number from every other one."""
SCHEMA = pa.schema(
    [
        ("experiment", pa.string()),
        ("source", pa.string()),
        ("target", pa.string()),
        ("arch", pa.string()),
        ("recipe", pa.string()),
        ("norm", pa.string()),
        ("eps", pa.string()),
        ("eps_value", pa.float64()),
        ("backbone_seed", pa.int32()),
        ("transfer_seed", pa.int32()),
        ("mode", pa.string()),
        ("protocol", pa.string()),
        ("variant", pa.string()),
        ("images_per_class", pa.int32()),
        ("training_images", pa.int32()),
        ("attack", pa.string()),
        ("test_set", pa.string()),
        ("split", pa.string()),
        ("selection", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("ci_kind", pa.string()),
        ("n", pa.int32()),
        ("hyperparameters", pa.string()),
        ("backbone", pa.string()),
        ("entry", pa.string()),
        ("code", pa.string()),
        ("flags", pa.string()),
        ("training", pa.string()),
    ]
)
NULLABLE = frozenset(
    {
        "eps_value",
        "backbone_seed",
        "transfer_seed",
        "protocol",
        "images_per_class",
        "training_images",
        "attack",
        "test_set",
        "selection",
        "backbone",
        "entry",
        "code",
        "flags",
        "training",
    }
)
"""Columns that may be null; `read_results` says what it means."""
ADDED = frozenset({"training_images", "flags", "training", "test_set"})
"""Columns that files of earlier versions and those of published numbers lack: null there."""
RESULTS = TableFormat("results table", SCHEMA, NULLABLE, ADDED)


def read_results(path: str | Path) -> pd.DataFrame:
    """A results file as a DataFrame: one row per measured number, one column for each thing that is known of it.

    experiment        name of the experiment; `published` for the paper's numbers
    source            dataset that the backbone was pretrained on
    target            dataset that was transferred to and tested on; the source itself where `mode` is `source` or
                      `gallery`, and `cue_conflict` where it is `cue-conflict`
    arch              architecture; `best`: chosen among all of them
    recipe            how the backbone was pretrained, or whose weights it has; `texture-robust-…`: on stylized images
    norm              `l2` or `linf`; `none` for eps 0, standard training
    eps               radius of adversarial pretraining in [0, 1] pixel units, as text (`0.25`, `4/255`); `best-robust`:
                      chosen among all but 0
    eps_value         the same as a number; null for `best-robust`
    backbone_seed     seed of pretraining; null: a mean over seeds, or a chosen network
    transfer_seed     seed of transfer; null: a mean over seeds, a chosen network, or nothing was transferred
    mode              `source` (accuracy on the source itself), `cue-conflict` (decisions on images whose shape and
                      texture are of different classes), `gallery` (numbers beside pictures of what a network responds
                      to), `fixed-feature` or `full-network`
    protocol          `frozen`, `paper` or `knn`; null where nothing was transferred
    variant           what deviates from the protocol, JSON with sorted keys; `downscaled` is a size in pixels,
                      `stylized` a method, `layer` the one that features are from, where it is not the last; `setting`
                      and `attack` are of adversarial training on the target; of mode `cue-conflict` `shape` is the
                      class of the shapes that the number is of (without it: of all), and `resized_from` the side in
                      pixels of images that networks saw at another
    images_per_class  training images of each class of the target; null: all of them
    training_images   training images of all classes together, drawn alike from all of them; null: no such limit
    attack            JSON of norm, eps, precision, and of PGD steps, relative_step_size (times eps), random_start,
                      restarts and use_best, else of `kind`; older files have fewer of these; null: clean images, all of
                      them. Of a transfer it is on the model as a whole, on some of the test images (`n`); the `kind`
                      `none` is accuracy on these images as they are
    test_set          dataset whose test images they are, where these are not the target's own (`also_test_on`); null:
                      the target's
    split             `test`, `validation`, or `other`: of the dataset that `test_set` names
    selection         split on which hyperparameters (and eps and arch, if chosen) were chosen; null: nothing was
    metric            `top1` or `mean_per_class` accuracy; with `_difference` best robust less standard, paired (under
                      attack also each robust network less the standard one of its architecture); with
                      `_out_of_bag` what a choice on test images is worth on images that it did not see; of mode
                      `cue-conflict` `shape_bias`, the share of decisions for the shape among those for the shape or the
                      texture, and `shape_decisions` and `texture_decisions`, shares of all conflicting images; of mode
                      `gallery` `gradient_low_frequency`, `inversion_distance`, `inversion_pixels`, `inversion_ssim` and
                      `inversion_moved`
    value             percent; for a difference, percentage points; of `inversion_distance` percent of the norm of the
                      representation, of `inversion_pixels` and `inversion_moved` of the pixels' range, of
                      `inversion_ssim` of 1
    ci_low, ci_high   ends of the 95 % interval, in the unit of `value`; NaN for published numbers, and for what was
                      chosen on the test images that it is reported on
    ci_kind           `images`: over test images, of these weights alone; `seeds`: over seeds; empty: no interval
    n                 images (of `shape_bias`: those decided for shape or texture), or for a `seeds` interval seeds
    hyperparameters   JSON with sorted keys; for a chosen row `eps`, `arch` and how stable the choice is
    backbone          entry of the backbone in the store; null for rows made from several
    entry             entry that measured the number; null for rows made from several
    code              fingerprint of the code that made the entry; null for rows made from several
    flags             names of the sanity flags behind the number, comma-separated: those of the entry, of its backbone,
                      and of every number that a mean or a choice is made from; empty: none; null: not known
    training          how the backbone was trained, JSON: epochs and whatever else deviates from the defaults, and for
                      robust ones `attack`; null for imported and published ones, and for differences

    `target`, `arch`, `norm`, `eps`, `mode` and `protocol` are categoricals in the experiment's order, eps growing, so
    that groups, pivot tables and legends come in it; other texts have dtype `string`, integers the nullable `Int32`.
    The experiment's description is in `attrs["experiment"]` as plain JSON values, and `ExperimentInfo.of(table)` is
    what figures make of it. Raises TableError if the file is missing or is no results table.
    """
    rows = RESULTS.read(Path(path))
    return in_order(rows, ExperimentInfo.of(rows))


def as_results(rows: pd.DataFrame | Iterable[dict[str, Any]], info: ExperimentInfo) -> pd.DataFrame:
    """Rows as `read_results` gives them, from records with a value for each column, or a DataFrame with its columns."""
    found = RESULTS.frame(rows)
    found.attrs[ATTRIBUTE] = info.as_json()
    return in_order(found, info)


def write_results(path: Path, rows: pd.DataFrame, described: dict[str, Any]) -> None:
    """Write a results file, with the experiment's description as metadata.

    Raises TableError for a duplicate key. The same rows give the same bytes.
    """
    check_keys(rows)
    RESULTS.write(path, rows, described)


def from_most_images(rows: pd.DataFrame) -> pd.Series[bool]:
    """Which rows are of all training images, or for a mode and target without those, of the most of each class, or
    where images were counted in total alone, of the most of these."""
    in_total = rows["training_images"].astype("float64") / 2**32  # below any number of each class
    images = rows["images_per_class"].astype("float64").fillna(in_total).fillna(float("inf"))
    return images == images.groupby([rows[name].astype("string") for name in ("mode", "target")]).transform("max")


def check_keys(rows: pd.DataFrame) -> None:
    """Raise TableError if two rows have one key; the message names the key and what wrote both."""
    again = rows.duplicated(list(KEY)).to_numpy()
    if not again.any():
        return
    rows = rows.reset_index(drop=True)
    groups = rows.groupby(list(KEY), dropna=False, observed=True, sort=False).ngroup()
    second = rows[again].iloc[0]
    first = rows[groups == groups[again].iloc[0]].iloc[0]
    key = ", ".join(f"{name}={second[name]}" for name in KEY if not pd.isna(second[name]))
    made_by = ["a summary" if pd.isna(one["entry"]) else one["entry"] for one in (first, second)]
    raise TableError(
        f"two rows with one key ({key}): from {made_by[0]} ({first['value']:.2f}) and {made_by[1]} "
        f"({second['value']:.2f}); a key names one number, so what tells them apart belongs into the variant"
    )
