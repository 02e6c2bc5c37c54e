"""Which of a catalogued dataset's sources lies in its folder, and what to say where none does.

Looks at names and opens no file; imports nothing heavy, since a plan asks it of every dataset.
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

HUGGING_FACE = "huggingface"
"""Folder, below the dataset's, for what comes from the Hugging Face Hub."""


def present_source(origin: CatalogueOrigin, folder: Path) -> Source | None:
    """The source whose files, or whose archives, lie in the dataset's folder; the first of several, None if none does.

    What is unpacked comes before what is not, whatever their order.
    """
    sources = catalogued(origin.dataset).splits[origin.split].sources
    unpacked = next((source for source in sources if files_found(source, folder)), None)
    return unpacked or next((source for source in sources if _archives_there(source, folder)), None)


def missing(origin: CatalogueOrigin, folder: Path, failures: Sequence[str] = ()) -> str:
    """What to say where a dataset is not there: what to fetch, and where it is looked for; `failures` of downloads."""
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
        text.append(f"No longer to be had: {known.dead}")
    if failures:
        text += ["Downloads were tried and failed:", *(f"  {reason}" for reason in failures)]
    elif urls or hubs:
        text.append("Or let it be downloaded, where somebody still offers it: running: {downloads: true}")
    text.append(f"Licence: {known.licence}.")
    return "\n".join(text)


def files_found(source: Source, folder: Path) -> bool:
    """Whether a source's files lie in the dataset's folder, unpacked."""
    if isinstance(source, LayoutSource):
        return place(source, folder) is not None
    if isinstance(source, FolderSource):
        root = folder / source.path
        return _there(root / "train") and any(_there(root / name) for name in ("test", "val", "valid", "validation"))
    return all(shards(source, folder).values())


def place(source: LayoutSource, folder: Path) -> Path | None:
    """The folder in which the layout's files lie."""
    for at in source.at:
        if all(any(_there(folder / at / path) for path in paths) for paths in _alternatives(source)):
            return folder / at
    return None


def _alternatives(source: LayoutSource) -> list[tuple[str, ...]]:
    return [(paths,) if isinstance(paths, str) else paths for paths in source.found_by]


def _there(path: Path) -> bool:
    """A file with something in it, or a folder with something that is not hidden in it."""
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
        and all(_there(folder / file.on_disk) for file in source.files)
    )


def shards(source: HuggingFaceSource, folder: Path) -> dict[str, list[Path]]:
    """The files of each split, in order; none where some of a split's shards are not there yet."""
    files: dict[str, list[Path]] = {}
    for split, pattern in source.splits.items():
        paths = sorted((folder / HUGGING_FACE).glob(pattern))
        numbers = [re.search(r"-(\d{5})-of-(\d{5})", path.name) for path in paths]
        whole = all(number is None or int(number[2]) == len(paths) for number in numbers)
        files[split] = paths if whole else []
    return files


def wanted(source: Source) -> str:
    """What tells that a source is there, for messages."""
    if isinstance(source, LayoutSource):
        places = ["there" if at == "." else f"in {at}/" for at in source.at]
        return f"{' or '.join(places)}: {', '.join(' or '.join(paths) for paths in _alternatives(source))}"
    if isinstance(source, FolderSource):
        return "train/ and test/ (or val/, valid/) with a folder for each class"
    return ", ".join(f"{HUGGING_FACE}/{pattern}" for pattern in source.splits.values())
