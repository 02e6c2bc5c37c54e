"""Unpack published archives: nothing is written outside the folder, the size is bounded, and all appears or nothing.

`archive_members` lists an archive's members and refuses those that are not to be trusted, `archive_writer` writes them.

An archive is unpacked into `.<its name>.unpacking` in the folder for its content. Once complete, that is renamed to
`.<its name>.moving`, and its top-level files and folders are moved to their places; `.<its name>.unpacked` then records
that the archive has been unpacked. A process that is killed at any point is followed by one that continues.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.fetching.archive_members import (
    Limit,
    Member,
    limit_of,
    members_of,
    parts_of,
    reading,
    refusal,
    tar_members,
)
from robust_transfer.datasets.fetching.archive_writer import Writer, check_free
from robust_transfer.datasets.fetching.disk import (
    CHUNK,
    Progress,
    exclusively,
    in_utf8,
    make_folder,
    not_written,
    printable,
    read_object,
)
from robust_transfer.datasets.fetching.web_pages import HEAD, disguise
from robust_transfer.quantities import duration
from robust_transfer.store.entry import StoreError, read_json, write_json

CONTENT, STAMP = "content", "stamp.json"
ALL = ("*",)
"""The patterns that keep every member."""

log = logging.getLogger("robust_transfer")


def unpack(archive: Path, folder: Path, *, limit_bytes: int | None = None, keep: Sequence[str] = ("*",)) -> None:
    """Unpack an archive into a folder, which is created; returns at once if that was done before.

    Archives within it are not unpacked. `keep` has patterns of the wanted paths, as in `images/*` (`*` matches `/`
    too). Two members of one name are refused, also where they differ in case and the file system does not distinguish
    them. The archive may be removed afterwards. Raises DatasetError, and then nothing of it is in the folder.

    `limit_bytes`: most bytes to write; by default 20 times the archive's size and 1 GB.
    """
    names = _Names(archive, folder)
    _once(names, keep, lambda: _unpack(names, keep, limit_of(archive, limit_bytes)))


def unpack_class_archives(archive: Path, folder: Path, *, limit_bytes: int | None = None) -> None:
    """Unpack a tar of one tar per class, such as ILSVRC2012_img_train.tar, into `folder/<class>/`.

    The inner archives are not written to the disk. A class's folder appears when it is complete, and one that exists is
    skipped, so that a repeated call continues an interrupted one. Safety, limit and errors are those of `unpack`; after
    an error, the classes before it are there.
    """
    names = _Names(archive, folder)
    _once(names, ALL, lambda: _unpack_classes(names, limit_of(archive, limit_bytes)))


class _Names:
    """The paths that unpacking an archive into a folder uses beside its content."""

    def __init__(self, archive: Path, folder: Path):
        self.archive, self.folder = archive, folder
        self.draft = folder / f".{archive.name}.unpacking"
        self.moving = folder / f".{archive.name}.moving"
        self.stamp = folder / f".{archive.name}.unpacked"
        self.lock = folder / f".{archive.name}.unpacking.lock"


def _once(names: _Names, keep: Sequence[str], work: Callable[[], None]) -> None:
    """Do the work unless it is done, after checking the archive; one process at a time, the others wait."""
    if _done(names, keep):
        return
    _check_archive(names.archive)
    make_folder(names.folder)
    with exclusively(names.lock, f"unpacking {printable(str(names.archive))}"):
        if not _done(names, keep):
            work()


def _unpack(names: _Names, keep: Sequence[str], limit: Limit) -> None:
    identity = _identity(names.archive, keep)
    if names.moving.exists() and not (names.moving / STAMP).exists():
        shutil.rmtree(names.moving)  # of a process that was stopped after its last move
    if not names.moving.exists():
        start = time.monotonic()
        with _drafted(names.draft) as draft:
            writer = Writer(names.archive, draft / CONTENT, limit, names.folder, keep)
            with reading(names.archive):
                for member in members_of(names.archive, limit):
                    writer.add(member)
            writer.finish()
            write_json(draft / STAMP, {**identity, "names": _shown(writer.root)})
            os.sync()  # or a power cut could leave empty files under final names
            draft.rename(names.moving)
        took = time.monotonic() - start
        log.info("%s: %d files in %s", printable(str(names.archive)), writer.files, duration(took))
    _move(names, identity)


def _unpack_classes(names: _Names, limit: Limit) -> None:
    archive, progress = names.archive, Progress(names.archive.name)
    classes: set[str] = set()
    with reading(archive):
        for member in members_of(archive, limit):
            if member.kind == "folder" and not parts_of(member.name, archive):
                continue
            name = _class_of(member, archive)
            if name in classes:
                raise refusal(archive, member.name, "is there twice")
            classes.add(name)
            if not (names.folder / name).exists():
                _unpack_class(archive, member, names.folder / name, limit)
            progress.report(limit.written, f"{len(classes)} classes unpacked, ")
    if not classes:
        raise DatasetError(f"{archive}: holds no class archives; expected are tars named <class>.tar")
    try:
        write_json(names.stamp, {**_identity(archive, ALL), "names": sorted(map(in_utf8, classes))})
    except StoreError as error:
        raise DatasetError(str(error)) from error
    log.info("%s: %d classes in %s", printable(str(archive)), len(classes), printable(str(names.folder)))


def _done(names: _Names, keep: Sequence[str]) -> bool:
    """Whether this archive has been unpacked here with these patterns.

    Raises DatasetError where another archive of its name has been, or other parts of it.
    """
    stamp = read_object(names.stamp)
    if not stamp or not set(stamp.get("names", ("",))) <= set(_shown(names.folder)):
        return False  # never, or its content was moved away
    now = _identity(names.archive, keep) if names.archive.exists() else {"keep": list(keep)}
    if stamp != {**stamp, **now}:
        raise DatasetError(
            f"{names.folder}: holds what {names.archive.name} was when it was unpacked there; it has changed since, or "
            f"other parts of it are wanted; move its content away, and {names.stamp}, to have it unpacked again"
        )
    return True


def _identity(archive: Path, keep: Sequence[str]) -> dict[str, Any]:
    """What distinguishes an archive from a changed one: size, and both ends, where formats hold names and checksums.

    A time would change with every copy, and a checksum of 138 GB takes minutes whenever a dataset is opened.
    """
    size = archive.stat().st_size
    with open(archive, "rb") as file:
        digest = hashlib.sha256(file.read(CHUNK))
        file.seek(max(0, size - CHUNK))
        digest.update(file.read(CHUNK))
    return {"archive": in_utf8(archive.name), "bytes": size, "ends_sha256": digest.hexdigest(), "keep": list(keep)}


def _check_archive(archive: Path) -> None:
    if not archive.is_file():
        state = "not a file" if archive.exists() else "no such file"
        raise DatasetError(f"{archive}: {state}; put the archive there")
    try:
        with open(archive, "rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise DatasetError(
            f"{archive}: cannot be read ({error.strerror}); give yourself permission to read it"
        ) from error
    if not head or (page := disguise(head)):
        raise DatasetError(f"{archive}: {page if head else 'empty'}, not an archive; fetch it again")


def _move(names: _Names, identity: dict[str, Any]) -> None:
    """Move what is complete to its place, from where an earlier process was stopped."""
    stamp = read_json(names.moving / STAMP)
    if stamp != {**stamp, **identity}:
        raise DatasetError(
            f"{names.moving}: left by unpacking another {names.archive.name}, which was interrupted; remove it, and "
            f"move away what of {', '.join(map(printable, stamp['names'][:5]))} is beside it"
        )
    content = names.moving / CONTENT
    for name in _listed(content):
        check_free(names.archive, names.folder, name)
        (content / name).rename(names.folder / name)
    (names.moving / STAMP).replace(names.stamp)
    shutil.rmtree(names.moving)


def _listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _shown(folder: Path) -> list[str]:
    """The names in a folder as a stamp has them."""
    return sorted(map(in_utf8, _listed(folder)))


@contextmanager
def _drafted(draft: Path) -> Iterator[Path]:
    """An empty folder to write into, removed at the end unless the block has renamed it."""
    try:
        if draft.exists():
            shutil.rmtree(draft)  # of a process that was killed
        draft.mkdir()
    except OSError as error:
        raise not_written(draft, 0, error) from error
    try:
        yield draft
    except StoreError as error:
        raise DatasetError(str(error)) from error
    except OSError as error:
        raise not_written(draft, 0, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _class_of(member: Member, archive: Path) -> str:
    parts = parts_of(member.name, archive)
    name = parts[-1].removesuffix(".tar") if parts else ""
    if member.kind != "file" or len(parts) != 1 or name in ("", parts[0]) or name.startswith("."):
        raise refusal(archive, member.name, "is not the tar of a class, <class>.tar")
    return name


def _unpack_class(archive: Path, member: Member, folder: Path, limit: Limit) -> None:
    inner = archive / printable(member.name)  # for messages: the archive, and the one in it
    with (
        _drafted(folder.with_name(f".{folder.name}.unpacking")) as draft,
        member.content() as source,
        reading(inner),
    ):
        writer = Writer(inner, draft / folder.name, limit, None, ("*",))
        for inner_member in tar_members(source, inner, "not a tar", seekable=False):
            writer.add(inner_member)
        writer.finish()
        os.sync()  # or a power cut could leave empty files in a finished folder
        writer.root.rename(folder)
