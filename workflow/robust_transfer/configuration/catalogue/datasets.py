"""The catalogue of datasets: `datasets.yaml` beside this file, read into types.

A dataset has one or more named splits; `paper` is what the paper's released code used. A split has sources, in order of
preference: layouts of files that may lie in the dataset's folder, each with what tells that it is there, and where it
can be downloaded from.
"""

from __future__ import annotations

import difflib
import functools
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, NonNegativeInt, PositiveInt

from robust_transfer.configuration.base import Model

PATH = Path(__file__).with_name("datasets.yaml")


class Counts(Model):
    """Images in each split."""

    train: PositiveInt
    test: NonNegativeInt
    """0: images without classes, which are good for their styles alone."""
    validation: PositiveInt | None = None
    """None: there is no official validation split."""


class CataloguedFile(Model):
    """A file that the dataset's owners or a mirror offer."""

    url: str
    name: str | None = None
    """What it is called on disk. Default: the last part of the address."""
    md5: str | None = None
    sha256: str | None = None
    bytes: PositiveInt | None = None
    unpack: bool = True
    """It is an archive, whose content goes into the dataset's folder as well; false: the file itself is read."""
    inner: tuple[str, ...] = ()
    """Archives in this one, by path, which are unpacked where they lie."""

    @property
    def on_disk(self) -> str:
        """Its name in the dataset's folder."""
        return self.name or self.url.rsplit("/", 1)[-1]


class LayoutSource(Model):
    """Files as the owners lay them out, read by a function of `datasets.layouts`."""

    kind: Literal["layout"]
    layout: str
    """The function's name."""
    options: dict[str, Any] = Field(default={})
    """Its keyword arguments."""
    at: Annotated[tuple[str, ...], Field(min_length=1)] = (".",)
    """Folders, below the dataset's, in which its files may lie; the first that has them is read."""
    found_by: Annotated[tuple[str | tuple[str, ...], ...], Field(min_length=1)]
    """Paths in that folder by which one knows that they lie there; of a list, any one."""
    files: tuple[CataloguedFile, ...] = ()
    """What is downloaded where downloads are allowed; nothing for what can only be fetched by hand."""

    @property
    def described(self) -> str:
        """For cards and messages."""
        return f"layout {self.layout}"


class FolderSource(Model):
    """Class folders in `train/` and `test/` (or `val/`, `valid/`), as the paper's released code expects most sets."""

    kind: Literal["folder"]
    path: str = "."
    """Below the dataset's folder."""

    @property
    def described(self) -> str:
        """For cards and messages."""
        return "class folders"


class HuggingFaceSource(Model):
    """Parquet files of a repository on the Hugging Face Hub, fetched by its own library into `huggingface/`."""

    kind: Literal["huggingface"]
    repository: str
    revision: str
    """Commit, so that what is read cannot change."""
    splits: dict[Literal["train", "validation", "test"], str]
    """Pattern of the files of each split."""
    image_column: str = "image"
    label_column: str = "label"
    gated: bool = False
    """One has to accept terms there and log in before it can be fetched."""

    @property
    def described(self) -> str:
        """For cards and messages."""
        return f"Hugging Face {self.repository} at {self.revision[:10]}"


Source = Annotated[LayoutSource | FolderSource | HuggingFaceSource, Field(discriminator="kind")]


class CataloguedSplit(Model):
    """One way of dividing a dataset into training and test images."""

    says: str
    """The rule, in words."""
    counts: Counts
    """Images of a complete copy."""
    counts_certain: bool = True
    """False: a count is hearsay, and another one is a warning instead of an error."""
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    """In order of preference."""


class Catalogued(Model):
    """One dataset."""

    revision: PositiveInt
    """Grows where the same name would otherwise come to mean other images, labels or splits."""
    title: str
    label: str
    """What figures call it."""
    homepage: str
    licence: str
    """As far as the owners state one."""
    classes: PositiveInt
    metric: Literal["top1", "mean_per_class"]
    """The accuracy that the paper reports."""
    normalisation: dict[Literal["mean", "std"], tuple[float, float, float]] = Field(default={})
    """What the paper's code normalised this target by; nothing for all but the CIFARs."""
    megabytes: PositiveInt
    """Space of the images that are used, about."""
    splits: dict[str, CataloguedSplit]
    by_hand: str
    """What to fetch and where to put it, below the dataset's folder."""
    dead: str = ""
    """What no longer works, with the date of the report."""
    remarks: str = ""
    """Peculiarities of the paper's code or of the files."""


class Catalogue(Model):
    """The whole file."""

    version: PositiveInt
    """Grows with every change of the file."""
    datasets: dict[str, Catalogued]


@functools.cache
def catalogue() -> Catalogue:
    """The datasets that are known."""
    return Catalogue.model_validate(yaml.safe_load(PATH.read_text(encoding="utf-8")))


def catalogued(name: str) -> Catalogued:
    """A dataset by name; raises ValueError, with near names, if there is none."""
    known = catalogue().datasets
    if name not in known:
        near = difflib.get_close_matches(name, known, n=2)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"the catalogue has no {name}; {hint}It has {', '.join(known)}")
    return known[name]
