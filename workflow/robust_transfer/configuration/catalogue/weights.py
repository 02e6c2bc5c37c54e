"""The catalogue of published weights: `weights.yaml` and `released.csv` beside this file, read into types."""

from __future__ import annotations

import csv
import functools
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, PositiveInt

from robust_transfer.configuration.base import Model
from robust_transfer.configuration.eps import canonical_eps

PATH = Path(__file__).with_name("weights.yaml")
RELEASED = Path(__file__).with_name("released.csv")

TrainedOn = Literal["sin", "sin-and-in", "sin-and-in-then-in"]


class Repository(Model):
    """A repository on the Hugging Face Hub."""

    repository: str
    licence: str


class StylizedFiles(Model):
    """Files by architecture and what it was trained on."""

    licence: str
    address: str
    """What their addresses begin with."""
    files: dict[str, dict[TrainedOn, str]]


class ModelList(Model):
    """Where the facts about networks that are published by name stand; the networks are in a CSV of this name."""

    repository: str
    commit: str
    facts: dict[str, str]
    """Columns of the CSV, and the files of the repository that they are from."""


class WeightsCatalogue(Model):
    """The whole file."""

    version: PositiveInt
    """Grows with every change of the file."""
    released: Repository
    stylized_imagenet: StylizedFiles = Field(alias="stylized-imagenet")
    robustbench: ModelList
    ares: ModelList


@functools.cache
def weights_catalogue() -> WeightsCatalogue:
    """Where published weights are."""
    return WeightsCatalogue.model_validate(yaml.safe_load(PATH.read_text(encoding="utf-8")))


@functools.cache
def released_files() -> dict[tuple[str, str, str], str]:
    """File names of the 67 released networks by architecture, norm and canonical eps; standard ones stand under l2."""
    with RELEASED.open(newline="", encoding="utf-8") as file:
        return {
            (row["architecture"], row["norm"], canonical_eps(row["eps"])): row["file"] for row in csv.DictReader(file)
        }
