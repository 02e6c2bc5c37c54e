"""Cue conflict: which images show the shape of one class and the texture of another, and who decides on them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from robust_transfer.configuration.base import Model, Name
from robust_transfer.configuration.datasets import ShapesOrigin
from robust_transfer.configuration.paths import ReadPath
from robust_transfer.configuration.transfer import Probing


class FolderConflicts(Model):
    """Image files named `<shape><number>-<texture><number>.png`, in a folder or in folders below it, as published."""

    kind: Literal["folder"]
    path: ReadPath
    """The folder; relative paths start at the working directory, and `~` and `$NAME` are resolved."""


class ParquetConflicts(Model):
    """A folder with `test.parquet`: one image per row, and its name `<shape><number>-<texture><number>`."""

    kind: Literal["parquet"]
    path: ReadPath
    """The folder; relative paths start at the working directory, and `~` and `$NAME` are resolved."""
    image_column: str = "image"
    """Column of encoded images: bytes, or a struct with a field `bytes`."""
    name_column: str = "name"
    """Column of names, with or without a suffix."""


class ShapesConflicts(Model):
    """The source's own test images, drawn again by the built-in generator with the gratings of other classes.

    The source is then of `kind: shapes` and `task: objects`. Its classes that have a grating are the shapes and the
    textures; all else about an image (pose, colours, shading, phase) is that of a test image.
    """

    kind: Literal["shapes"]
    images: Annotated[int, Field(ge=4)] = 600
    """Test images of the source's generator to draw again; those of classes without a grating are left out."""


ConflictImages = Annotated[FolderConflicts | ParquetConflicts | ShapesConflicts, Field(discriminator="kind")]
ClassMap = dict[str, Annotated[tuple[str, ...], Field(min_length=1)]]


class CueConflict(Model):
    """Which cue networks decide by, on images with the shape of one class and the texture of another (shape bias)."""

    images: ConflictImages
    """The images."""
    classes: Annotated[tuple[str, ...], Field(min_length=3)] | None = None
    """Only images whose shape and texture are among these count, and decisions are among these. Default: all classes \
of the images, which the source or `probe` must then know."""
    probe: dict[Name, ClassMap] = Field(default={})
    """For sources that do not have these classes: datasets with images of them without a conflict, and for each which \
of its classes they are, such as `{cifar10: {car: [automobile], cat: [cat]}}`. A linear probe on the backbone's \
features of all these images (settings: `probing` and `features`) then decides. Default: the network's own outputs \
decide, those of ImageNet by the published mapping of 207 of its classes to 16."""

    @model_validator(mode="after")
    def _maps_are_functions(self) -> CueConflict:
        for dataset, classes in self.probe.items():
            names = [name for of_class in classes.values() for name in of_class]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"probe.{dataset}: {', '.join(twice)} named twice; a class there belongs to one class")
        if self.classes and len(set(self.classes)) != len(self.classes):
            raise ValueError("classes names a class twice")
        return self


class ConflictsSettings(Model):
    """Settings of an entry under `store/conflicts/`."""

    images: ConflictImages
    world: ShapesOrigin | None = None
    """For `kind: shapes`, the source's origin."""

    @model_validator(mode="after")
    def _drawn_from_a_world(self) -> ConflictsSettings:
        if (self.world is None) == isinstance(self.images, ShapesConflicts):
            raise ValueError("world: stated for images of kind: shapes, and for no others")
        return self


class CueConflictSettings(Model):
    """Settings of an entry under `store/cue_conflict/`.

    Inputs: `backbone`, `conflicts`; where a probe decides `features0`, … in the order of `probe`; where the outputs of
    a checkpoint of the user's decide `source`, whose classes they stand for.
    """

    classes: tuple[str, ...] | None = None
    probe: tuple[ClassMap, ...] = ()
    """Of each of the inputs `features0`, …: its classes by class of the conflict images."""
    probing: Probing | None = None
    """How the probe is fitted; None where outputs decide."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the probe's validation split, and of the bootstrap."""
    resamples: PositiveInt = 2000
    """Of the images, for intervals."""
