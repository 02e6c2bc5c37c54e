"""Unpack published archives: nothing leaves the folder, nothing swells without bound, and all of it comes or none.

zip, tar, and tar compressed by gzip, bzip2 or xz, told apart by content. Names, links and kinds are judged here for
both formats alike, since the standard library's filter (PEP 706) knows tar only. What is written are folders, regular
files with ordinary permissions, and last of all links to what lies in the archive, so that no file is written through
a link. `__MACOSX` and what lies in it is left out.

An archive is unpacked into `.<its name>.unpacking` in the folder where its content is to lie. Once whole, that is
renamed to `.<its name>.moving`, and each of its names is moved to its place; `.<its name>.unpacked` then says that it
was done.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import logging
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, cast

from robust_transfer.datasets import storing
from robust_transfer.datasets.downloads import HEAD, disguise, exclusively, make_folder, not_written
from robust_transfer.datasets.storing import DatasetError
from robust_transfer.store import StoreError, read_json, write_json

SWELLING, ALLOWANCE = 20, 10**9
"""What an archive may swell to: so many times its size, and so many bytes more. Images hardly shrink when packed, and
lists of labels to a tenth; the bytes are for small archives of text. Bombs are of a thousand times and more."""
CONTENT, STAMP = "content", "stamp.json"
MEMBERS = 5_000_000
"""Most files and folders; the largest image collection unpacked here has 1.3 million."""
DEPTH = 100  # folders in a name
HEADER = 2**16  # bytes of a tar header's extension, which tarfile holds and parses; a name with its times takes 200
CHUNK = 2**20
STREAM = 2**16  # bytes that tarfile holds of a stream, and copies for every header
COMPRESSED: tuple[tuple[bytes, str, Callable[..., Any]], ...] = (
    (b"\x1f\x8b", "gzip", gzip.open),
    (b"BZh", "bzip2", bz2.open),
    (b"\xfd7zXZ\x00", "xz", lzma.open),
)
ZIPPED = (b"PK\x03\x04", b"PK\x05\x06")
OURS = re.compile(r"\..*\.(unpacking|moving|unpacked|part|verified|lock)", re.DOTALL)
EXTENSIONS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, ValueError, RecursionError),
)
"""What the standard library raises on damaged archives; what goes wrong in writing is a DatasetError by then."""

log = logging.getLogger("robust_transfer")


def unpack(archive: Path, folder: Path, *, limit_bytes: int | None = None, keep: Sequence[str] = ("*",)) -> None:
    """Unpack an archive into a folder, which is made; returns at once if that was done before.

    Archives within it stay as they are. `keep` has patterns of the paths wanted, as in `images/*` (`*` matches `/`
    too). Two members of one name are refused, also where they differ in case and the file system does not tell them
    apart. The archive may be removed afterwards. Raises DatasetError, and then nothing of it lies in the folder.

    `limit_bytes`: most bytes to write; by default 20 times the archive's size and 1 GB.
    """
    names = _Names(archive, folder)
    if _done(names, keep):
        return
    _check_archive(archive)
    make_folder(folder)
    with exclusively(names.lock, f"unpacking {archive}"):
        if _done(names, keep):
            return
        identity = _identity(archive, keep)
        if names.moving.exists() and not (names.moving / STAMP).exists():
            shutil.rmtree(names.moving)  # of a process that was stopped after its last move
        if not names.moving.exists():
            start = time.monotonic()
            with _drafted(names.draft) as draft:
                writer = _Writer(archive, draft / CONTENT, _limit(archive, limit_bytes), folder, keep)
                _write_all(archive, writer)
                write_json(draft / STAMP, {**identity, "names": _listed(writer.root)})
                os.sync()  # or a power cut could leave empty files under final names
                draft.rename(names.moving)
            log.info("%s: %d files in %.0f s", archive, writer.files, time.monotonic() - start)
        _move(names, identity)


def unpack_class_archives(archive: Path, folder: Path, *, limit_bytes: int | None = None) -> None:
    """Unpack a tar of one tar a class, such as ILSVRC2012_img_train.tar, into `folder/<class>/`.

    The inner archives are not written out. A class's folder appears when it is whole, and one that is there is passed
    over, so an interrupted call goes on. Safety, limit and errors are those of `unpack`; after an error, the classes
    before it are there.
    """
    names = _Names(archive, folder)
    if _done(names, ("*",)):
        return
    _check_archive(archive)
    make_folder(folder)
    with exclusively(names.lock, f"unpacking {archive}"):
        if _done(names, ("*",)):
            return
        limit, progress = _limit(archive, limit_bytes), _Progress(archive.name)
        classes: set[str] = set()
        with _reading(archive):
            for member in _members(archive, limit):
                if member.kind == "folder" and not _parts(member.name, archive):
                    continue
                name = _class_of(member, archive)
                if name in classes:
                    raise _refusal(archive, member.name, "is there twice")
                classes.add(name)
                if not (folder / name).exists():
                    _unpack_class(archive, member, folder / name, limit)
                progress.tell(f"{len(classes)} classes", limit.written)
        if not classes:
            raise DatasetError(f"{archive}: holds no class archives; expected are tars named <class>.tar")
        _write_json(names.stamp, {**_identity(archive, ("*",)), "names": sorted(classes)})
    log.info("%s: %d classes in %s", archive, len(classes), folder)


class _Names:
    """Where the traces of unpacking an archive into a folder lie."""

    def __init__(self, archive: Path, folder: Path):
        self.archive, self.folder = archive, folder
        self.draft = folder / f".{archive.name}.unpacking"
        self.moving = folder / f".{archive.name}.moving"
        self.stamp = folder / f".{archive.name}.unpacked"
        self.lock = folder / f".{archive.name}.unpacking.lock"


def _done(names: _Names, keep: Sequence[str]) -> bool:
    """Whether this archive was unpacked here, and so; raises DatasetError where another one was, or otherwise."""
    try:
        stamp = read_json(names.stamp)
    except (StoreError, OSError):
        return False
    if not set(stamp.get("names", ("",))) <= set(_listed(names.folder)):
        return False  # its content was moved away
    now = _identity(names.archive, keep) if names.archive.exists() else {"keep": list(keep)}
    if stamp != {**stamp, **now}:
        raise DatasetError(
            f"{names.folder}: holds what {names.archive.name} was when it was unpacked there; it has changed since, or "
            f"other parts of it are wanted; move what came of it away, and {names.stamp}, to have it unpacked anew"
        )
    return True


def _identity(archive: Path, keep: Sequence[str]) -> dict[str, Any]:
    """What tells an archive from a changed one: size, and both ends, where formats have names and checksums.

    A time would change with every copy, and a checksum of 138 GB takes minutes whenever a dataset is opened.
    """
    size = archive.stat().st_size
    with open(archive, "rb") as file:
        digest = hashlib.sha256(file.read(CHUNK))
        file.seek(max(0, size - CHUNK))
        digest.update(file.read(CHUNK))
    return {"archive": archive.name, "bytes": size, "ends_sha256": digest.hexdigest(), "keep": list(keep)}


def _check_archive(archive: Path) -> None:
    if not archive.is_file():
        state = "not a file" if archive.exists() else "no such file"
        raise DatasetError(f"{archive}: {state}; put the archive there")
    try:
        with open(archive, "rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise DatasetError(f"{archive}: cannot be read ({error.strerror}); allow it") from error
    if not head or (found := disguise(head)):
        raise DatasetError(f"{archive}: {found if head else 'empty'}, not an archive; fetch it again")


def _move(names: _Names, identity: dict[str, Any]) -> None:
    """Move what is whole to its place, going on where an earlier process was stopped at it."""
    stamp = read_json(names.moving / STAMP)
    if stamp != {**stamp, **identity}:
        raise DatasetError(
            f"{names.moving}: left by unpacking another {names.archive.name}, stopped midway; remove it, and move away "
            f"what of {', '.join(stamp['names'][:5])} lies beside it"
        )
    content = names.moving / CONTENT
    for name in _listed(content):
        _check_free(names.archive, names.folder, name)
        (content / name).rename(names.folder / name)
    (names.moving / STAMP).replace(names.stamp)
    shutil.rmtree(names.moving)


def _listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _check_free(archive: Path, folder: Path, name: str) -> None:
    if os.path.lexists(folder / name):
        raise DatasetError(
            f"{archive}: holds {name!r}, and {folder / name} is there already; move it away, or unpack this archive "
            "into a folder of its own"
        )


@contextmanager
def _drafted(draft: Path) -> Iterator[Path]:
    """An empty folder to write into, which is gone afterwards if it is still there."""
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


# What archives hold


class _Member(NamedTuple):
    """One member of an archive, as the archive describes it."""

    name: str
    kind: Literal["file", "folder", "symlink", "hardlink"]
    content: Callable[[], IO[bytes]]
    """Opens its bytes; those of a symlink in a zip are its target."""
    target: str | None = None
    """Of a link in a tar."""


class _Limit:
    """Counts the bytes that come out of one archive, read and written, and refuses more than it may hold."""

    def __init__(self, archive: Path, most: int):
        self.archive, self.most = archive, most
        self.read = self.written = self.members = 0

    def count(self, *, read: int = 0, written: int = 0, members: int = 0) -> None:
        self.read, self.written, self.members = self.read + read, self.written + written, self.members + members
        if max(self.read, self.written) > self.most:
            raise DatasetError(
                f"{self.archive}: {self.archive.stat().st_size:,} bytes that unpack to more than {self.most:,}, as no "
                "archive of images does; if this one is genuine, unpack it by hand"
            )
        if self.members > MEMBERS:
            raise DatasetError(f"{self.archive}: more than {MEMBERS:,} files; if it is genuine, unpack it by hand")


def _limit(archive: Path, most: int | None) -> _Limit:
    return _Limit(archive, SWELLING * archive.stat().st_size + ALLOWANCE if most is None else most)


class _Metered:
    """A stream that counts what is read from it."""

    def __init__(self, stream: IO[bytes], limit: _Limit):
        self._stream, self._limit = stream, limit

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._limit.count(read=len(data))
        return data


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Turn what the standard library raises on damaged archives into a DatasetError."""
    try:
        yield
    except DatasetError:
        raise
    except DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DatasetError(f"{archive}: damaged or cut short ({reason}); fetch it again") from error
    except (NotImplementedError, RuntimeError) as error:  # of zipfile: a method that it lacks, or a password
        raise DatasetError(f"{archive}: cannot be unpacked here ({error}); unpack it by hand") from error


def _members(archive: Path, limit: _Limit) -> Iterator[_Member]:
    with open(archive, "rb") as file:
        head = file.read(HEAD)
        file.seek(0)
        if head.startswith(ZIPPED):
            yield from _zip_members(file, archive)
            return
        for magic, name, opener in COMPRESSED:
            if head.startswith(magic):
                with opener(file) as stream:
                    metered = _Metered(stream, limit)
                    yield from _tar_members(metered, archive, f"a {name} file that holds no tar", seekable=False)
                    while metered.read(CHUNK):  # up to the checksum at the stream's end
                        pass
                return
        yield from _tar_members(file, archive, "neither zip nor tar", seekable=True)


def _tar_members(source: Any, archive: Path, otherwise: str, *, seekable: bool) -> Iterator[_Member]:
    """The members of a tar, in order; each must be read, if at all, before the next is asked for.

    `seekable`: it may be read with jumps and nothing else says where it ends, so one without an end mark was cut short.
    """
    header = _header_class(archive)
    try:
        tar = _open_tar(source, "r:" if seekable else "r|", header)
    except tarfile.ReadError as error:
        raise DatasetError(f"{archive}: {otherwise} ({error}); fetch it again") from error
    with tar:
        position = -1
        while (found := tar.next()) is not None:
            if found.offset <= position or found.size < 0:  # else a forged size could send the reader round in circles
                raise _refusal(archive, found.name, "has a size that leads backwards")
            position = found.offset
            yield _tar_member(tar, found, archive)
            tar.members.clear()  # or a million of them would be held
    if header.last == "damaged" or (header.last == "nothing" and seekable):
        raise tarfile.ReadError("no end mark")


def _open_tar(source: Any, mode: Literal["r:", "r|"], header: Any) -> Any:
    return tarfile.open(fileobj=source, mode=mode, tarinfo=header, bufsize=STREAM)


def _header_class(archive: Path) -> Any:
    """A TarInfo for one archive that refuses huge headers, and remembers what the last one was.

    tarfile takes a damaged header for the end, and that for a whole archive.
    """

    class Header(tarfile.TarInfo):
        last = "nothing"

        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Any:
            cls.last = "nothing" if not buf else "damaged"
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                cls.last = "end"
            header = super().frombuf(buf, encoding, errors)
            cls.last = "member"
            if header.size < 0 or (header.type in EXTENSIONS and header.size > HEADER):
                raise _refusal(archive, header.name, f"has a header of {header.size:,} bytes")
            return header

    return Header


def _tar_member(tar: Any, found: tarfile.TarInfo, archive: Path) -> _Member:
    def content() -> IO[bytes]:
        return cast(IO[bytes], tar.extractfile(found))

    if found.isreg():
        return _Member(found.name, "file", content)
    if found.isdir():
        return _Member(found.name, "folder", content)
    if found.issym() or found.islnk():
        return _Member(found.name, "symlink" if found.issym() else "hardlink", content, found.linkname)
    kinds = {tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a named pipe"}
    raise _refusal(archive, found.name, f"is {kinds.get(found.type, f'of a kind unknown here, {found.type!r}')}")


def _zip_members(file: IO[bytes], archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as zipped:
        for info in zipped.infolist():
            name = info.orig_filename  # zipfile's own is cut at a NUL

            def content(info: zipfile.ZipInfo = info) -> IO[bytes]:
                return zipped.open(info)

            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind == stat.S_IFLNK:
                yield _Member(name, "symlink", content)
            elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refusal(archive, name, "is a device, a named pipe or a socket")
            elif name.endswith("/"):
                yield _Member(name, "folder", content)
            else:
                yield _Member(name, "file", content)


def _parts(name: str, archive: Path) -> tuple[str, ...]:
    """A member's path, relative and without detours; empty for the archive's own root. Raises DatasetError."""
    if "\0" in name or "\\" in name:
        raise _refusal(archive, name, "has a backslash or a NUL in its name")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise _refusal(archive, name, "has an absolute path")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise _refusal(archive, name, "leads out of the folder")
    if len(parts) > DEPTH:
        raise _refusal(archive, name, f"lies more than {DEPTH} folders deep")
    if parts and OURS.fullmatch(parts[0]):
        raise _refusal(archive, name, "has a name that marks what is unpacked")
    return parts


def _refusal(archive: Path, name: str, why: str) -> DatasetError:
    return DatasetError(
        f"{archive}: its member {name!r} {why}, as none does in an archive of images, so it is not unpacked; fetch it "
        "again from its publisher, or look into it and unpack it by hand"
    )


# What is written


class _Writer:
    """Writes members below a new folder: regular files first, links when `finish` is called."""

    def __init__(self, archive: Path, root: Path, limit: _Limit, folder: Path | None, keep: Sequence[str]):
        self.archive, self.root, self.limit, self.keep = archive, root, limit, keep
        self.folder = folder  # where the content is to lie, to see early what is in the way
        self.files = 0
        self._links: list[tuple[_Member, tuple[str, ...], str]] = []
        self._folders: set[tuple[str, ...]] = {()}
        self._progress = _Progress(archive.name)
        root.mkdir()

    def add(self, member: _Member) -> None:
        """Write one member; raises DatasetError where it is not to be trusted, is there twice, or cannot be written."""
        parts = _parts(member.name, self.archive)
        self.limit.count(members=1)
        if not parts and member.kind != "folder":
            raise _refusal(self.archive, member.name, "has no name")
        if parts[:1] == ("__MACOSX",) or not any(fnmatchcase("/".join(parts), pattern) for pattern in self.keep):
            return
        if self.folder and (len(parts) == 1 or parts[:1] not in self._folders):
            _check_free(self.archive, self.folder, parts[0])
        if member.kind == "folder":
            self._make_folder(parts, member)
            return
        self._make_folder(parts[:-1], member)
        if member.kind == "file":
            self._write(member, self.root.joinpath(*parts))
            self.files += 1
            self._progress.tell(f"{self.files} files", self.limit.written)
        else:
            self._links.append((member, parts, self._target(member)))

    def finish(self) -> None:
        """Make the links, once all that they can point to is there."""
        for kind, make in (("hardlink", self._make_hardlink), ("symlink", self._make_symlink)):
            for member, parts, target in self._links:
                if member.kind == kind:
                    make(member, parts, target)
        top = self.root.resolve()
        for member, parts, _ in self._links:
            try:
                inside = top in self.root.joinpath(*parts).resolve(strict=True).parents
            except (OSError, RuntimeError):  # to nothing, or in a circle
                inside = False
            if not inside:
                raise _refusal(self.archive, member.name, "is a link to nothing in the archive")
        if not self.files:
            raise DatasetError(
                f"{self.archive}: no file in it matches {', '.join(self.keep)}; fetch it again, or mend keep"
            )

    def _make_folder(self, parts: tuple[str, ...], member: _Member) -> None:
        if parts in self._folders:
            return
        self._make_folder(parts[:-1], member)
        self.limit.count(members=1)
        with self._writing(member, self.root.joinpath(*parts)) as path:
            path.mkdir()
        self._folders.add(parts)

    def _write(self, member: _Member, path: Path) -> None:
        with member.content() as source:
            with self._writing(member, path):
                file = _created(path)
            with file:
                while chunk := source.read(CHUNK):
                    self.limit.count(written=len(chunk))
                    with self._writing(member, path, len(chunk)):
                        file.write(chunk)
                        file.flush()

    def _target(self, member: _Member) -> str:
        """Where a link points, or raises DatasetError. Of `..` only leading ones are known to lead where they say."""
        target = member.target
        if target is None:
            with member.content() as source:
                target = os.fsdecode(source.read(HEAD * 4 + 1))
        above = len(_parts(member.name, self.archive)) - 1 if member.kind == "symlink" else 0
        rest = target
        while above and rest.startswith("../"):
            above, rest = above - 1, rest[3:].lstrip("/")
        if above and rest == "..":
            rest = ""
        try:
            _parts(rest, self.archive)
        except DatasetError:
            raise _refusal(self.archive, member.name, f"is a link out of the folder, to {target!r}") from None
        return target

    def _make_hardlink(self, member: _Member, parts: tuple[str, ...], target: str) -> None:
        source = self.root.joinpath(*_parts(target, self.archive))
        if not source.is_file():
            raise _refusal(self.archive, member.name, "is a link to nothing in the archive")
        with self._writing(member, self.root.joinpath(*parts)) as path:
            path.hardlink_to(source)
        self.files += 1

    def _make_symlink(self, member: _Member, parts: tuple[str, ...], target: str) -> None:
        with self._writing(member, self.root.joinpath(*parts)) as path:
            path.symlink_to(target)

    @contextmanager
    def _writing(self, member: _Member, path: Path, size: int = 0) -> Iterator[Path]:
        """Turn what goes wrong in writing into a DatasetError that names the member."""
        try:
            yield path
        except (FileExistsError, NotADirectoryError):
            raise _refusal(self.archive, member.name, "is there twice") from None
        except OSError as error:
            raise DatasetError(
                f"{self.archive}: its member {member.name!r}: {not_written(path, size, error)}"
            ) from error


def _created(path: Path) -> IO[bytes]:
    return open(path, "xb")


def _write_all(archive: Path, writer: _Writer) -> None:
    with _reading(archive):
        for member in _members(archive, writer.limit):
            writer.add(member)
    writer.finish()


def _class_of(member: _Member, archive: Path) -> str:
    parts = _parts(member.name, archive)
    name = parts[-1].removesuffix(".tar") if parts else ""
    if member.kind != "file" or len(parts) != 1 or name in ("", parts[0]) or name.startswith("."):
        raise _refusal(archive, member.name, "is not the tar of a class, <class>.tar")
    return name


def _unpack_class(archive: Path, member: _Member, folder: Path, limit: _Limit) -> None:
    inner = archive / member.name  # for messages: the archive, and the one in it
    with (
        _drafted(folder.with_name(f".{folder.name}.unpacking")) as draft,
        member.content() as source,
        _reading(inner),
    ):
        writer = _Writer(inner, draft / folder.name, limit, None, ("*",))
        for found in _tar_members(source, inner, "not a tar", seekable=False):
            writer.add(found)
        writer.finish()
        os.sync()  # or a power cut could leave empty files in a finished folder
        writer.root.rename(folder)


def _write_json(path: Path, value: Any) -> None:
    try:
        write_json(path, value)
    except StoreError as error:
        raise DatasetError(str(error)) from error


class _Progress:
    """A line in the log every few seconds."""

    def __init__(self, name: str):
        self.name, self.start = name, time.monotonic()
        self.spoken = self.start

    def tell(self, done: str, written: int) -> None:
        now = time.monotonic()
        if now - self.spoken >= storing.PROGRESS_SECONDS:
            self.spoken, rate = now, written / 1e6 / max(now - self.start, 1e-9)
            log.info("%s: %s unpacked, %.0f MB at %.1f MB/s", self.name, done, written / 1e6, rate)
