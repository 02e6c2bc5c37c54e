"""The 16 entry-level classes of cue-conflict images, and which classes of ImageNet belong to each.

`imagenet16.csv` beside this file has 207 of the 1,000 classes by WordNet id, as Geirhos et al. (2019, "ImageNet-trained
CNNs are biased towards texture") mapped them: code/helper/human_categories.py of rgeirhos/texture-vs-shape on GitHub
(commit ccd0c01d42c0), whose lists of ids and of indices agree, and those of bethgelab/model-vs-human with both.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from pathlib import Path

PATH = Path(__file__).with_name("imagenet16.csv")


@functools.cache
def imagenet16() -> Mapping[str, tuple[str, ...]]:
    """WordNet ids by class; classes are in alphabetical order, ids in the order of ImageNet's labels."""
    found: dict[str, list[str]] = {}
    with open(PATH, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["class"], []).append(row["wnid"])
    return {name: tuple(wnids) for name, wnids in found.items()}
