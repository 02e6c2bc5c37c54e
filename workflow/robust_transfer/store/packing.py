"""Pack finished entries, and the results of an experiment, into a folder or an archive, for another store to adopt.

What is packed lies at the path that it will have: `store/<stage>/<entry>/…` once, without the second names that
published files have, and `results/<experiment>/…`. `manifest.json`, written last, has the size and SHA-256 of every
file. A pack is whole or it is not there under its name.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from robust_transfer import __version__
from robust_transfer.store.definitions import CODE
from robust_transfer.store.entry import ENTRY, StoreError, renewing
from robust_transfer.store.finished import CARD, FINISHED, TIMING, entry_name, kept_card, read_card

MANIFEST = "manifest.json"
ARCHIVES, COMPRESSED = (".tar", ".tar.gz", ".tgz"), (".gz", ".tgz")
"""Ends of names of archives."""
FORMAT = 1
CHUNK = 2**20


class Reader(Protocol):
    """What tarfile and shutil need of a file."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes."""


class Pack(Protocol):
    """Where files are packed to."""

    def add(self, name: str, file: Reader, size: int) -> None:
        """Add a file under this name."""


def export(entries: Iterable[Path], to: Path, results: Path | None = None) -> dict[str, Any]:
    """Pack these finished entries, what their code defined, and a results folder; return the manifest.

    Args:
        entries: Folders of finished entries of one store.
        to: Folder or archive (`.tar`, `.tar.gz`) to write, which is not there yet.
        results: Folder of an experiment's tables and figures.

    Raises StoreError where a file is not as its card says, or `to` is there.
    """
    if to.exists():
        raise StoreError(f"{to}: is there already; name another, or delete it")
    manifest: dict[str, dict[str, Any]] = {}
    with _pack(to) as pack:
        for name, path, recorded in _to_pack(list(entries), results):
            found = _add(pack, name, path)
            if recorded is not None and (found["bytes"], found["sha256"]) != (recorded["bytes"], recorded["sha256"]):
                raise StoreError(f"{path}: not as {CARD} describes; {renewing(path.parent)}")
            manifest[name] = found
        described = {"format": FORMAT, "version": __version__, "files": manifest}
        text = json.dumps(described, indent=1, ensure_ascii=False).encode()
        pack.add(MANIFEST, io.BytesIO(text), len(text))
    return described


def _to_pack(entries: list[Path], results: Path | None) -> Iterator[tuple[str, Path, Mapping[str, Any] | None]]:
    """Name in the pack, path, and where there is one the card's record of every file."""
    codes: dict[Path, None] = {}
    for path in entries:
        card = read_card(path)
        if card is None:
            raise StoreError(f"{path}: not finished, so it cannot be exported; run its experiment first")
        place = f"store/{entry_name(path)}"
        yield f"{place}/{ENTRY}", path / ENTRY, None
        made = path / FINISHED if kept_card(path) else path
        for name in (*card["files"], TIMING, CARD):
            yield f"{place}/{FINISHED}/{name}", made / name, card["files"].get(name)
        outputs = {ENTRY, CARD, TIMING, *card["files"]}
        for beside in sorted(path.iterdir()):  # logs, and the record of originals
            if beside.is_file() and beside.name not in outputs and not beside.name.startswith("."):
                yield f"{place}/{beside.name}", beside, None
        codes |= {path.parent.parent / CODE / f"{one}.json": None for one in (card.get("modules") or {}).values()}
    yield from ((f"store/{CODE}/{code.name}", code, None) for code in codes if code.exists())
    for file in sorted(results.rglob("*")) if results else ():
        if file.is_file() and results:
            yield f"results/{results.name}/{file.relative_to(results)}", file, None


def _add(pack: Pack, name: str, path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            hashing = _Hashing(file)
            size = path.stat().st_size
            pack.add(name, hashing, size)
    except FileNotFoundError:
        raise StoreError(f"{path}: missing; {renewing(path.parent)}") from None
    return {"bytes": hashing.size, "sha256": hashing.digest.hexdigest()}


class _Hashing:
    """A file that is hashed as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest, self.size = file, hashlib.sha256(), 0

    def read(self, size: int = -1) -> bytes:
        found = self._file.read(size)
        self.digest.update(found)
        self.size += len(found)
        return found


@contextmanager
def _pack(to: Path) -> Iterator[Pack]:
    """A folder or an archive that gets its name when the block ends without an error, and else is deleted."""
    to.parent.mkdir(parents=True, exist_ok=True)
    draft = to.with_name(f".{to.name}.part")
    _delete(draft)
    try:
        if to.name.endswith(ARCHIVES):
            compressed = to.name.endswith(COMPRESSED)
            with tarfile.open(draft, "w:gz") if compressed else tarfile.open(draft, "w") as archive:
                yield _Archive(archive)
        else:
            draft.mkdir()
            yield _Folder(draft)
        draft.rename(to)
    finally:
        _delete(draft)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, name: str, file: Reader, size: int) -> None:
        target = self._path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as copy:
            shutil.copyfileobj(file, copy, CHUNK)


class _Archive:
    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive

    def add(self, name: str, file: Reader, size: int) -> None:
        member = tarfile.TarInfo(name)
        member.size = size
        self._archive.addfile(member, file)
