"""Networks that RobustBench and ARES publish under names of their own: `robustbench.csv` and `ares.csv`, as types.

Both files hold facts of the two projects' sources, at the commits that `weights.yaml` names with the file of each fact.
An entry whose network cannot be built here stands in them too, with what it is.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robust_transfer.configuration.eps import canonical_eps

ROBUSTBENCH = Path(__file__).with_name("robustbench.csv")
ARES = Path(__file__).with_name("ares.csv")

ModelDataset = Literal["imagenet", "cifar10", "cifar100"]
ThreatModel = Literal["Linf", "L2", "corruptions"]

CLASSES: dict[str, int] = {"imagenet": 1000, "cifar10": 10, "cifar100": 100}


@dataclass(frozen=True)
class Preprocessing:
    """How whoever published a network prepares images for it."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    """By channel, of pixels in [0, 1]; 0 and 1 where the network takes pixels as they are."""
    input_size: int | None
    """Side of the images, px; None where it is not said."""
    resize: int | None
    """Short side from which the centre is cropped, px; None where images are not resized, or where it is not said."""
    interpolation: str | None
    """`bilinear` or `bicubic`; None where images are not resized, or where it is not said."""

    @property
    def resize_ratio(self) -> float | None:
        """Short side of the resized image over that of its crop: what `preprocessing.resize_ratio` is here."""
        return self.resize / self.input_size if self.resize and self.input_size else None

    def not_honoured(self, input_size: int) -> list[str]:
        """What of it the project does not do to images of `input_size` px, in words."""
        said = []
        if self.input_size not in (None, input_size):
            said.append(f"images of {self.input_size} px, and not of {input_size}")
        if self.interpolation not in (None, "bilinear"):
            said.append(f"{self.interpolation} interpolation, where images are resized bilinearly here")
        return said


@dataclass(frozen=True)
class PublishedModel:
    """A network that can be had by name."""

    name: str
    dataset: ModelDataset
    architecture: str | None
    """As it is called here; None where the network cannot be built here."""
    lacking: str
    """What the network is, where it cannot be built here."""
    norm: str | None
    eps: str
    """Canonical, of the threat model that the network is published for; 0 where it is published for none."""
    preprocessing: Preprocessing | None
    file: str
    """Path below the folder of weights."""
    url: str
    """Where it is offered; empty where the network cannot be built here."""
    licence: str
    top1: float | None
    """Clean accuracy, percent, where it was published for the whole test set (CIFAR)."""

    @property
    def classes(self) -> int:
        """Number of outputs."""
        return CLASSES[self.dataset]


@functools.cache
def robustbench_models() -> dict[tuple[str, str, str], PublishedModel]:
    """RobustBench's model zoo, by dataset, threat model and name. Files are where RobustBench itself keeps them."""
    found = {}
    for row in _rows(ROBUSTBENCH):
        dataset, threat_model, name = row["dataset"], row["threat_model"], row["model"]
        offered = row["url"].rpartition("/")[2] if row["url"].startswith("https://github.com/") else f"{name}.pt"
        file = f"robustbench/{dataset}/{threat_model}/{offered}"
        found[dataset, threat_model, name] = _model(row, file, whole_test=dataset != "imagenet")
    return found


@functools.cache
def ares_models() -> dict[str, PublishedModel]:
    """ARES's ImageNet networks, by name."""
    return {row["model"]: _model(row, f"ares/{row['file']}", whole_test=False) for row in _rows(ARES)}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _model(row: dict[str, str], file: str, *, whole_test: bool) -> PublishedModel:
    dataset: ModelDataset = row["dataset"]  # type: ignore[assignment]  # a test reads every row
    top1 = row.get("top1")
    return PublishedModel(
        name=row["model"],
        dataset=dataset,
        architecture=row["architecture"] or None,
        lacking=row["lacking"],
        norm=row["norm"] or None,
        eps=canonical_eps(row["eps"] or 0),
        preprocessing=_preprocessing(row) if row["architecture"] else None,
        file=file,
        url=row["url"],
        licence=row["licence"],
        top1=float(top1) if top1 and whole_test else None,
    )


def _preprocessing(row: dict[str, str]) -> Preprocessing:
    interpolation = row["interpolation"]
    return Preprocessing(
        mean=tuple(map(float, row["mean"].split())),
        std=tuple(map(float, row["std"].split())),
        input_size=int(row["input_size"]) if row["input_size"] else None,
        resize=int(row["resize"]) if row["resize"] else None,
        interpolation=interpolation if interpolation not in ("", "none") else None,
    )
