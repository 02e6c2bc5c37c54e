"""The classes of ILSVRC 2012 by label, from `imagenet_classes.csv` beside this file: WordNet ids, and a name each."""

from __future__ import annotations

import csv
import functools
from pathlib import Path

PATH = Path(__file__).with_name("imagenet_classes.csv")


@functools.cache
def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 WordNet ids in sorted order, which is the order of labels of every published network."""
    with open(PATH, encoding="utf-8", newline="") as file:
        return tuple(row["wnid"] for row in csv.DictReader(file))
