"""Datasets: where images come from and how they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from robust_transfer.configuration.base import ALWAYS, NEVER, Line, Model
from robust_transfer.configuration.catalogue.datasets import catalogue, catalogued
from robust_transfer.configuration.paths import ReadPath

Metric = Literal["top1", "mean_per_class"]
ShapesTask = Literal["objects", "coarse", "fine", "textures", "counting"]


class Statistics(Model):
    """What the pixels of images in [0, 1] are normalised by: (pixel - mean) / std, by channel."""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Of red, green and blue."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (1.0, 1.0, 1.0)
    """Of red, green and blue."""

    @model_validator(mode="after")
    def _of_unit_pixels(self) -> Statistics:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not all(0 <= value <= 1 for value in values):
                divided = ", ".join(f"{value / 255:.4g}" for value in values)
                fix = f"; divide by 255: [{divided}]" if all(0 <= value <= 255 for value in values) else ""
                raise ValueError(f"{name} = {list(values)}: pixels are in [0, 1], and so is their {name}{fix}")
        return self


class ShapesOrigin(Model):
    """The built-in generator: smooth random outlines (shape) under faint gratings (texture), anywhere, offline."""

    kind: Literal["shapes"]
    task: ShapesTask
    """What the label is: `objects` both cues (the source), `coarse` and `fine` shapes, `textures` the grating alone, \
`counting` how many shapes there are."""
    train: PositiveInt
    """Number of training images."""
    test: PositiveInt
    """Number of test images."""
    side: Annotated[int, Field(ge=16, le=256)] = 32
    """Side of the square images in pixels."""
    amplitude: Annotated[float, Field(ge=0, le=0.5)] = 0.06
    """Amplitude of the strongest grating, in [0, 1] pixel units, as a root mean square over channels."""
    plain: Annotated[float, Field(ge=0, lt=1)] = 0.35
    """Share of the source's classes without a grating; the others' amplitudes rise evenly up to `amplitude`."""
    contrast: Annotated[float, Field(ge=0, le=0.7)] = 0.35
    """Smallest grey difference of a shape and its ground, in [0, 1] pixel units; the largest is 0.7."""
    classes: Annotated[int, Field(ge=4, le=20)] = 20
    """Number of the source's classes: the first of the 20 there are. Other tasks have classes of their own, 5 or 10."""
    misleading: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the images of the source's classes with a grating that show the outline of another class, \
drawn for each image: shape alone is wrong there, and the grating right."""
    twins: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the source's classes that come in pairs whose outlines differ in fine detail alone."""
    seed: NonNegativeInt = 0
    """Seed of the images; shapes and textures of a class stay the same under every seed."""

    @model_validator(mode="after")
    def _of_the_source(self) -> ShapesOrigin:
        changed = {"classes": self.classes != 20, "misleading": self.misleading > 0, "twins": self.twins > 0}
        for name in (name for name, is_changed in changed.items() if is_changed and self.task != "objects"):
            raise ValueError(f"{name} = {getattr(self, name)}: task {self.task} does not read it; leave it out")
        return self


class FolderOrigin(Model):
    """A folder of class folders, or of `train/` and `test/` (or `val/`) each holding class folders."""

    kind: Literal["folder"]
    path: ReadPath
    """The folder; relative paths start at the working directory, and `~` and `$NAME` are resolved."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of every class set aside for testing, where the folder has no `test/` or `val/`."""
    seed: int = 0
    """Seed of that split."""
    labelled: bool = True
    """False: images at any depth below the folder, without classes, as `stylizing.styles` needs them."""


class ParquetOrigin(Model):
    """A folder with `train.parquet` and `test.parquet` (perhaps `validation.parquet`), or shards of them: one image and
    its label per row."""

    kind: Literal["parquet"]
    path: ReadPath
    """The folder; relative paths start at the working directory, and `~` and `$NAME` are resolved."""
    image_column: str = "image"
    """Column of encoded images: bytes, or a struct with a field `bytes` as Hugging Face writes it."""
    label_column: str = "label"
    """Column of labels: integers, or class names."""


class TorchvisionOrigin(Model):
    """A class of `torchvision.datasets`, by name."""

    kind: Literal["torchvision"]
    dataset: str
    """The class, for instance `CIFAR10` or `Flowers102`."""
    root: ReadPath
    """Folder that holds, or will hold, the files."""
    download: bool = False
    """Let torchvision download what is missing."""
    train: dict[str, Any] = Field(default={"train": True})
    """Keyword arguments that select the training images."""
    test: dict[str, Any] = Field(default={"train": False})
    """Keyword arguments that select the test images."""
    validation: dict[str, Any] | None = None
    """Keyword arguments that select the official validation images, where there are some."""


class CatalogueOrigin(Model):
    """A dataset of the catalogue, by name: its files lie in, or are downloaded to, its folder below `running.data`."""

    kind: Literal["catalogue"]
    dataset: str
    """Name in the catalogue, such as `aircraft`; `robust-transfer catalogue` lists them."""
    split: str = "paper"
    """Which division into training and test images: `paper`, or where that one is not the official one, `official`."""
    revision: PositiveInt = Field(default=0, json_schema_extra=ALWAYS)  # stands in the hash even if not stated
    """Revision of the catalogue's entry. Default: the newest."""
    partial: bool = False
    """Accept a copy with fewer classes or images than the catalogue counts."""

    @model_validator(mode="before")
    @classmethod
    def _newest_revision(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = catalogue().datasets.get(str(data.get("dataset")))
        return {"revision": known.revision if known else 1} | data

    @field_validator("dataset")
    @classmethod
    def _in_the_catalogue(cls, name: str) -> str:
        catalogued(name)
        return name

    @model_validator(mode="after")
    def _as_the_catalogue_has_it(self) -> CatalogueOrigin:
        known = catalogued(self.dataset)
        if self.split not in known.splits:
            raise ValueError(f"split = {self.split}: {self.dataset} has {' and '.join(known.splits)}")
        if self.revision != known.revision:
            raise ValueError(
                f"revision = {self.revision}: the catalogue's {self.dataset} is at revision {known.revision}; leave "
                "the key out, or use the version of this software that had it"
            )
        return self


Origin = Annotated[
    ShapesOrigin | FolderOrigin | ParquetOrigin | TorchvisionOrigin | CatalogueOrigin, Field(discriminator="kind")
]


def same_images(one: Origin, other: Origin) -> bool:
    """Whether two origins are of the same images, however they divide or limit them."""
    return _place(one) == _place(other)


def _place(origin: Origin) -> tuple[object, ...]:
    match origin:
        case FolderOrigin() | ParquetOrigin():
            return (Path(origin.path).expanduser().resolve(),)
        case TorchvisionOrigin():
            return origin.dataset, Path(origin.root).expanduser().resolve()
        case CatalogueOrigin():
            return (origin.dataset,)
    return (origin,)


def is_labelled(origin: Origin) -> bool:
    """Whether images have classes to be told apart."""
    if isinstance(origin, CatalogueOrigin):
        return catalogued(origin.dataset).classes > 1
    return not isinstance(origin, FolderOrigin) or origin.labelled


class Dataset(Model):
    """One image dataset, as prepared in `store/datasets/`."""

    origin: Origin
    stored_side: Annotated[int, Field(ge=8)] | None = None
    """Short side in pixels at which images are stored; never enlarged. Default: as they are."""
    train_limit: PositiveInt | None = None
    """At most this many training images, balanced over classes, chosen by `seed`."""
    test_limit: PositiveInt | None = None
    """At most this many test images, balanced over classes, chosen by `seed`."""
    exif_rotation: bool = True
    """Turn images upright as their EXIF orientation says."""
    unreadable: Literal["error", "skip"] = "error"
    """What to do with images that cannot be decoded: stop and name them all, or leave them out and count them."""
    seed: int = 0
    """Seed of the limits."""
    metric: Metric = Field(default="top1", json_schema_extra=NEVER)
    """The accuracy that selection and figures use; both are always measured."""
    normalisation: Statistics = Field(default=Statistics(), json_schema_extra=NEVER)
    """What transfer with `normalisation: target` normalises its images by. Default: nothing, as the paper's code \
had it for all targets but the two CIFARs."""
    label: Line | None = Field(default=None, json_schema_extra=NEVER)
    """What figures call it. Default: its name."""

    @model_validator(mode="before")
    @classmethod
    def _as_catalogued(cls, data: Any) -> Any:
        """Metric, normalisation and label are the catalogue's where they are not stated."""
        origin = data.get("origin") if isinstance(data, dict) else None
        if not isinstance(origin, dict) or origin.get("kind") != "catalogue":
            return data
        known = catalogue().datasets.get(str(origin.get("dataset")))
        if known is None:
            return data
        return {"metric": known.metric, "label": known.label, "normalisation": {**known.normalisation}} | data

    @model_validator(mode="after")
    def _side_not_above_generated(self) -> Dataset:
        if self.stored_side and isinstance(self.origin, ShapesOrigin) and self.stored_side > self.origin.side:
            raise ValueError(f"stored_side {self.stored_side} is above the generator's side {self.origin.side}")
        return self


def not_swapped(dataset: Dataset) -> str:
    """Why textures of a dataset cannot be exchanged by the generator that drew it; empty if they can."""
    origin = dataset.origin
    if not isinstance(origin, ShapesOrigin):
        return "is for images of the built-in generator (kind: shapes); write `phase` or `adain`"
    if origin.task != "objects":
        return f"is for task objects: in {origin.task} no class has both an outline and a texture; write `phase`"
    if dataset.stored_side and dataset.stored_side != origin.side:
        return f"draws images at origin.side, {origin.side}; leave out stored_side"
    return ""


class DatasetSettings(Dataset):
    """Settings of an entry under `store/datasets/`."""


class Granularity(Model):
    """How targets are downscaled for `views`."""

    smaller: Literal["keep", "enlarge"] = "keep"
    """What happens to an image whose short side is below the view's: `keep` leaves it, as there is no detail to take \
away; `enlarge` brings it up to the view's size, as the released code's `Resize` does, before the ordinary transform \
enlarges it again."""


class GranularitySettings(Granularity):
    """Settings of an entry under `store/granularity/`: a dataset with less detail, made from its input `dataset`."""

    size: Annotated[int, Field(ge=4)]
    """Short side in pixels after downscaling."""


class Preprocessing(Model):
    """What happens to an image between the store and the network, where nothing is random."""

    resize_ratio: Annotated[float, Field(ge=1, le=2)] = 256 / 224
    """Images are resized to `input_size` times this on their short side, then cropped in the centre to `input_size`."""
