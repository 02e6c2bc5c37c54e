"""Take entries into a store that another store has exported: all that is sound, or nothing.

Everything is unpacked beside the store's entries first, and every file compared with the pack's manifest and with its
entry's card. Then each entry comes to its place by one rename. What the store has finished is never replaced.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from robust_transfer.registry import STAGES
from robust_transfer.store.definitions import CODE
from robust_transfer.store.entry import ENTRY, STATE, Entry, StoreError
from robust_transfer.store.finished import (
    CARD,
    FINISHED,
    TIMING,
    content,
    damaged,
    entry_name,
    flush,
    keep_published,
    kept_card,
    publish,
    read_card,
)
from robust_transfer.store.packing import CHUNK, FORMAT, MANIFEST
from robust_transfer.store.upkeep import holder

ADOPTING = ".adopting"
_PART = r"[^/\x00]+"
_ALLOWED = re.compile(
    rf"store/(?:{'|'.join(STAGES)})/{_PART}/(?:{re.escape(FINISHED)}/)?{_PART}"
    rf"|store/{re.escape(CODE)}/[0-9a-f]+\.json|results/{_PART}(?:/{_PART})+|{re.escape(MANIFEST)}"
)
"""Names that a pack may have: nothing else is written, whatever an archive says."""


@dataclass
class Adopted:
    """What came into a store, what it had already, and what differs from what it has."""

    new: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    """Entries that the store has finished with other content; they stay as they are."""
    results: Path | None = None


def adopt(source: Path, store: Path, results: Path | None) -> Adopted:
    """Take the entries of a pack, a folder or an archive, into `store`, and results of experiments into `results`.

    Where `results` is None, those in the pack are left out.

    Raises StoreError, before anything is taken, where the pack is not whole or not as its manifest and cards say, where
    the results folder of one of its experiments is there already, or where a process is writing one of its entries.
    """
    store.mkdir(parents=True, exist_ok=True)
    staged = store / f"{ADOPTING}.{os.getpid()}"
    shutil.rmtree(staged, ignore_errors=True)
    try:
        _unpack(source, staged)
        entries = sorted(path.parent for path in (staged / "store").glob(f"*/*/{ENTRY}"))
        for path in entries:
            _check(path)
            if writer := holder(store / path.parent.name / path.name):
                raise StoreError(f"{store / path.parent.name / path.name}: {writer} is writing this entry; wait for it")
        if results is None:
            shutil.rmtree(staged / "results", ignore_errors=True)
        for experiment in sorted((staged / "results").glob("*")):
            if results and (results / experiment.name).exists():
                raise StoreError(
                    f"{results / experiment.name}: is there already; move it away, or adopt with --without-results"
                )
        return _take(staged, entries, store, results)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _take(staged: Path, entries: list[Path], store: Path, results: Path | None) -> Adopted:
    adopted = Adopted()
    for path in entries:
        name = entry_name(path)
        place = store / name
        keep_published(place)
        has, brings = kept_card(place), read_card(path)
        assert brings is not None  # `_check` has read it
        if has is not None:
            (adopted.same if content(has) == content(brings) else adopted.other).append(name)
            continue
        _place(path, place)
        adopted.new.append(name)
    for record in sorted((staged / "store" / CODE).glob("*.json")):
        (store / CODE).mkdir(exist_ok=True)
        record.replace(store / CODE / record.name)
    for experiment in sorted((staged / "results").glob("*")) if results else ():
        assert results is not None
        results.mkdir(parents=True, exist_ok=True)
        shutil.move(experiment, results / experiment.name)
        adopted.results = results / experiment.name
    return adopted


def _place(path: Path, place: Path) -> None:
    """Bring one checked entry to its place: its files beside first, then all that is finished by one rename."""
    place.mkdir(parents=True, exist_ok=True)
    with Entry(place, place.parent.name, {}, {}).locked(wait=False):
        for beside in sorted(path.iterdir()):
            if beside.name != FINISHED and not (place / beside.name).exists():
                beside.rename(place / beside.name)
        (path / FINISHED).rename(place / FINISHED)
        flush(place)
        publish(place)
        shutil.rmtree(place / STATE, ignore_errors=True)  # of a training that is now done


def _check(path: Path) -> None:
    """Raise StoreError unless an unpacked entry is whole."""
    card = read_card(path)
    name = entry_name(path)
    if card is None or not (path / FINISHED / TIMING).exists():
        raise StoreError(f"{name}: has no {CARD} or no {TIMING} in the pack; export it again")
    if wrong := damaged(path / FINISHED, card):
        raise StoreError(f"{name}: not as its {CARD} describes: {', '.join(wrong)}; export it again")


def _unpack(source: Path, to: Path) -> None:
    """Write a pack's files below `to`, and compare them with its manifest."""
    found: dict[str, dict[str, Any]] = {}
    try:
        _write_all(source, to, found)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise StoreError(f"{source}: not a whole archive ({error}); nothing was adopted; copy it again") from None
    manifest = _manifest(source, to / MANIFEST)
    found.pop(MANIFEST)
    for name in sorted({*found, *manifest}):
        if found.get(name) != manifest.get(name):
            what = "missing" if name not in found else "not in its manifest" if name not in manifest else "damaged"
            raise StoreError(f"{source}: {name}: {what}; nothing was adopted; copy or export it again")


def _write_all(source: Path, to: Path, found: dict[str, dict[str, Any]]) -> None:
    """Write every file of a pack below `to`, and note sizes and checksums in `found`."""
    for name, file in _files(source):
        if not _ALLOWED.fullmatch(name) or {"..", "."} & set(name.split("/")) or name in found:
            raise StoreError(f"{source}: holds {name!r}, which no exported store does; export it again")
        found[name] = _write(file, to / name)


def _manifest(source: Path, path: Path) -> dict[str, Any]:
    try:
        described = json.loads(path.read_text())
        if described["format"] != FORMAT:
            raise StoreError(f"{source}: in format {described['format']}, and this version reads {FORMAT}; update it")
        return dict(described["files"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        raise StoreError(
            f"{source}: no readable {MANIFEST}, so it was not exported, or cut short; nothing was adopted"
        ) from None


def _write(file: IO[bytes], path: Path) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as copy:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
            copy.write(chunk)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _files(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Names and contents of a pack's files; what is no file is refused."""
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.is_file():
                with open(path, "rb") as file:
                    yield str(path.relative_to(source)), file
        return
    if not source.exists():
        raise StoreError(f"{source}: not there; `store adopt` takes what `store export` has written")
    with tarfile.open(source, "r|*") as archive:
        for member in archive:
            file_of = archive.extractfile(member) if member.isreg() else None
            if file_of is None:
                raise StoreError(f"{source}: holds {member.name!r}, which is no file; export it again")
            yield member.name, file_of
