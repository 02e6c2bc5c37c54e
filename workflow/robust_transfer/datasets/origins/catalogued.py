"""The origin `catalogue`: a dataset of the catalogue, from whichever of its sources is in its folder.

`finding` determines which source that is. The numbers of classes and images are compared with the catalogue before any
image is read. Where downloads are allowed and no source is there, they are tried in turn.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robust_transfer.configuration.catalogue.datasets import (
    Counts,
    FolderSource,
    HuggingFaceSource,
    LayoutSource,
    Source,
    catalogued,
)
from robust_transfer.configuration.catalogue.imagenet import imagenet_classes
from robust_transfer.configuration.datasets import CatalogueOrigin, FolderOrigin, ParquetOrigin
from robust_transfer.datasets.arrow import SPLITS
from robust_transfer.datasets.collection import Collection, LabelledImages, listed
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.fetching.archives import unpack
from robust_transfer.datasets.fetching.downloads import RemoteFile, fetch
from robust_transfer.datasets.finding import (
    HUGGING_FACE,
    files_found,
    layout_folder,
    missing,
    present_source,
    shards,
    wanted,
)

log = logging.getLogger("robust_transfer")


def open_catalogued(origin: CatalogueOrigin, folder: Path, *, downloads: bool) -> Collection:
    """Open the files in `folder`, after downloading them where that is allowed and they are not there.

    Raises DatasetError if there are none and none can be downloaded, or if they are not those that the catalogue
    describes: see `Counts`.
    """
    known = catalogued(origin.dataset)
    division = known.splits[origin.split]
    source = present_source(origin, folder)
    if source is None and downloads:
        source = _downloaded(origin, folder)
    if source is None:
        raise DatasetError(missing(origin, folder))
    if isinstance(source, LayoutSource) and not files_found(source, folder):
        _unpack(source, folder)
    collection = _opened(source, folder, incomplete=origin.partial or not division.counts_certain)
    if origin.dataset == "imagenet":
        collection = _by_wnid(collection, folder)
    if origin.partial:
        collection = _without_untrained(collection)
    described = {
        "kind": "catalogue",
        "dataset": origin.dataset,
        "split": origin.split,
        "revision": origin.revision,
        "source": source.described,
    }
    collection = replace(collection, described=described, licence=known.licence)
    check_counts(
        collection,
        known.classes,
        division.counts,
        where=f"{origin.dataset} in {folder} ({source.described})",
        partial=origin.partial,
        certain=division.counts_certain,
    )
    return collection


def check_counts(
    collection: Collection, classes: int, counts: Counts, *, where: str, partial: bool, certain: bool
) -> None:
    """Compare classes and images of each split with the catalogue; raises DatasetError.

    `partial` copies may have fewer of either, but not more. Where the counts are not `certain`, another number of
    images is a warning. Class folders may hold training and validation images together, as the paper used them.
    """
    fix = "download what is missing, or set origin.partial: true to accept an incomplete copy"
    other = "these are other images than the catalogue's: open them by kind: folder, or fetch the original"
    expected: dict[str, int] = {split: n for split in SPLITS if (n := getattr(counts, split)) is not None}
    there = {split: len(images.labels) for split, images in collection.splits.items()}
    if "validation" in expected and "validation" not in there:
        expected["train"] += expected.pop("validation")
    strange = [split for split in there if split not in expected]
    if strange:
        raise DatasetError(
            f"{where}: {listed(strange)} images, where the catalogue has {listed(list(expected))}; {other}"
        )
    counted = [("classes", len(collection.classes), classes)]
    if certain:
        counted += [(f"{split} images", there.get(split, 0), number) for split, number in expected.items()]
    for what, n, number in counted:
        if n > number or (n < number and not partial):
            raise DatasetError(
                f"{where}: {n} {what}, where the catalogue counts {number}; {other if n > number else fix}"
            )
    fewer = [f"{there.get(split, 0)} of {number} {split}" for split, number in expected.items()]
    if any(there.get(split, 0) != number for split, number in expected.items()):
        log.warning("%s: not a complete copy: %s images", where, ", ".join(fewer))


def _opened(source: Source, folder: Path, *, incomplete: bool) -> Collection:
    if isinstance(source, LayoutSource):
        from robust_transfer.datasets.origins.layouts import LAYOUTS

        base = layout_folder(source, folder)
        if base is None:
            raise DatasetError(f"{folder}: what was unpacked is not {wanted(source)}; fetch the archives again")
        return LAYOUTS[source.layout](base, incomplete=incomplete, **source.options)
    if isinstance(source, FolderSource):
        from robust_transfer.datasets.origins.folder import open_folder

        return open_folder(FolderOrigin(kind="folder", path=str(folder / source.path)))
    from robust_transfer.datasets.origins.parquet import read_parquet

    files = {split: paths for split in SPLITS if (paths := shards(source, folder).get(split))}
    columns = {"image_column": source.image_column, "label_column": source.label_column}
    return read_parquet(files, ParquetOrigin(kind="parquet", path=str(folder / HUGGING_FACE), **columns), {})


def _downloaded(origin: CatalogueOrigin, folder: Path) -> Source | None:
    """The first source that can be downloaded, None if none is offered; raises DatasetError with why each failed."""
    failures = []
    for source in catalogued(origin.dataset).splits[origin.split].sources:
        try:
            if isinstance(source, LayoutSource) and source.files:
                _fetch(source, folder)
                _unpack(source, folder)
            elif isinstance(source, HuggingFaceSource):
                _fetch_repository(source, folder)
            else:
                continue
        except DatasetError as error:
            failures.append(f"{source.described}: {error}")
            log.warning("%s: %s", origin.dataset, failures[-1])
            continue
        if files_found(source, folder):
            return source
        failures.append(f"{source.described}: what was downloaded is not {wanted(source)}")
    if failures:
        raise DatasetError(missing(origin, folder, failures))
    return None


def _fetch(source: LayoutSource, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in source.files:
        fetch(RemoteFile(file.url, file.on_disk, md5=file.md5, sha256=file.sha256, bytes=file.bytes), folder)


def _unpack(source: LayoutSource, folder: Path) -> None:
    """Unpack a layout's archives in their folder; they are kept, and may be deleted by hand."""
    for file in source.files:
        if file.unpack:
            unpack(folder / file.on_disk, folder)
        for inner in file.inner:
            unpack(folder / inner, (folder / inner).parent)


def _fetch_repository(source: HuggingFaceSource, folder: Path) -> None:
    """Download a repository's parquet files with its own library, which knows revisions, terms of use and logins."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise DatasetError("the package huggingface_hub is not there: run `make setup EXTRAS=huggingface`") from None
    try:
        snapshot_download(
            source.repository,
            repo_type="dataset",
            revision=source.revision,
            allow_patterns=list(source.splits.values()),
            local_dir=folder / HUGGING_FACE,
        )
    except Exception as error:  # the library raises its own, those of its HTTP client, and OSError
        gated = "; accept its terms there and log in with `hf auth login`" if source.gated else ""
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DatasetError(f"could not be fetched ({reason}){gated}") from error


def _by_wnid(collection: Collection, folder: Path) -> Collection:
    """ImageNet's classes by WordNet id: the names of class folders; parquet files number them in the same order."""
    known = imagenet_classes()
    if len(collection.classes) == len(known) and not set(collection.classes) & set(known):
        return Collection(known, collection.splits, {}, None, collection.ignored_files)
    strange = sorted(set(collection.classes) - set(known))
    if strange:
        raise DatasetError(
            f"{folder}: {listed(strange, 3)} are no classes of ILSVRC 2012, which are named as n01440764"
        )
    return collection


def _without_untrained(collection: Collection) -> Collection:
    """Leave out the classes of which an incomplete copy has no training images."""
    trained = np.unique(collection.splits["train"].labels)
    if not 0 < len(trained) < len(collection.classes):
        return collection
    log.warning(
        "%d of %d classes have no training images here and are left out",
        len(collection.classes) - len(trained),
        len(collection.classes),
    )
    label = np.full(len(collection.classes), -1)
    label[trained] = np.arange(len(trained))
    splits = {split: _kept(images, label) for split, images in collection.splits.items()}
    classes = tuple(collection.classes[i] for i in trained)
    return Collection(classes, splits, collection.described, collection.licence, collection.ignored_files)


def _kept(images: LabelledImages, label: NDArray[np.int64]) -> LabelledImages:
    rows = np.flatnonzero(label[images.labels] >= 0)
    return LabelledImages(label[images.labels[rows]], lambda indices: images.images(rows[indices]))
