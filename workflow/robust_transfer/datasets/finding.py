"""Which of a catalogued dataset's sources is in its folder, and the message where none is.

Looks at names and opens no file; imports nothing slow, since a plan does this for every dataset.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from robust_transfer.configuration.catalogue.datasets import (
    FolderSource,
    HuggingFaceSource,
    LayoutSource,
    Source,
    catalogued,
)
from robust_transfer.configuration.datasets import CatalogueOrigin
from robust_transfer.datasets.names import split_of

HUGGING_FACE = "huggingface"
"""Folder, below the dataset's, for files from the Hugging Face Hub."""


def present_source(origin: CatalogueOrigin, folder: Path) -> Source | None:
    """The first source whose files, or else whose archives, are in the dataset's folder; None if there is none.

    Sources that are unpacked are preferred to those that are not.
    """
    sources = catalogued(origin.dataset).splits[origin.split].sources
    unpacked = next((source for source in sources if files_found(source, folder)), None)
    return unpacked or next((source for source in sources if _archives_there(source, folder)), None)


def missing(origin: CatalogueOrigin, folder: Path, failures: Sequence[str] = ()) -> str:
    """The message for a missing dataset: what to download, and where it is expected; `failures` of downloads."""
    known = catalogued(origin.dataset)
    sources = known.splits[origin.split].sources
    text = [f"{origin.dataset}: {known.title} is not in {folder.absolute()}, split {origin.split}. To put there:"]
    text += [f"  {line}" for line in known.by_hand.splitlines()]
    text.append("Looked for there, in this order:")
    text += [f"  {wanted(source)}" for source in sources]
    urls = [file.url for source in sources if isinstance(source, LayoutSource) for file in source.files]
    hubs = [source for source in sources if isinstance(source, HuggingFaceSource)]
    if urls:
        text += ["Offered by its owners; put there as they are, archives are unpacked:", *(f"  {url}" for url in urls)]
    if hubs:
        text.append("Copies on the Hugging Face Hub:")
    for hub in hubs:
        gated = ", after accepting its terms there and logging in with `hf auth login`" if hub.gated else ""
        text.append(f"  https://huggingface.co/datasets/{hub.repository}{gated}")
    if known.dead:
        text.append(f"No longer available: {known.dead}")
    if failures:
        text += ["Downloads were tried and failed:", *(f"  {reason}" for reason in failures)]
    elif urls or hubs:
        text.append("Or let it be downloaded, where somebody still offers it: running: {downloads: true}")
    text.append(f"Licence: {known.licence}.")
    return "\n".join(text)


def files_found(source: Source, folder: Path) -> bool:
    """Whether a source's files are in the dataset's folder, unpacked."""
    if isinstance(source, LayoutSource):
        return layout_folder(source, folder) is not None
    if isinstance(source, FolderSource):
        root = folder / source.path
        splits = {split_of(path.name) for path in root.iterdir() if _nonempty(path)} if root.is_dir() else set()
        return "train" in splits and len(splits - {None}) > 1
    return all(shards(source, folder).values())


def layout_folder(source: LayoutSource, folder: Path) -> Path | None:
    """The folder that holds the layout's files; None if there is none."""
    for at in source.at:
        if all(any(_nonempty(folder / at / path) for path in paths) for paths in _alternatives(source)):
            return folder / at
    return None


def _alternatives(source: LayoutSource) -> list[tuple[str, ...]]:
    return [(paths,) if isinstance(paths, str) else paths for paths in source.found_by]


def _nonempty(path: Path) -> bool:
    """Whether this is a file that is not empty, or a folder that holds anything but hidden files."""
    try:
        if path.is_dir():
            with os.scandir(path) as entries:
                return any(not entry.name.startswith(".") for entry in entries)
        return path.stat().st_size > 0
    except OSError:
        return False


def _archives_there(source: Source, folder: Path) -> bool:
    return (
        isinstance(source, LayoutSource)
        and bool(source.files)
        and all(_nonempty(folder / file.on_disk) for file in source.files)
    )


def shards(source: HuggingFaceSource, folder: Path) -> dict[str, list[Path]]:
    """The files of each split, in order; none where some of a split's shards are not there yet."""
    files: dict[str, list[Path]] = {}
    for split, pattern in source.splits.items():
        paths = sorted((folder / HUGGING_FACE).glob(pattern))
        numbers = [re.search(r"-(\d{5})-of-(\d{5})", path.name) for path in paths]
        complete = all(number is None or int(number[2]) == len(paths) for number in numbers)
        files[split] = paths if complete else []
    return files


def wanted(source: Source) -> str:
    """The files by which a source is recognised, for messages."""
    if isinstance(source, LayoutSource):
        places = ["there" if at == "." else f"in {at}/" for at in source.at]
        return f"{' or '.join(places)}: {', '.join(' or '.join(paths) for paths in _alternatives(source))}"
    if isinstance(source, FolderSource):
        return "train/ and test/ (or val/, valid/) with a folder for each class"
    return ", ".join(f"{HUGGING_FACE}/{pattern}" for pattern in source.splits.values())
