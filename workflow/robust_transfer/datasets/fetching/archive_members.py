"""The members of archives one by one, and refusals of those that are not to be trusted.

zip, tar, and tar compressed by gzip, bzip2 or xz, recognised by content. Names and kinds are checked here for both
formats, since the standard library's filter (PEP 706) knows tar only, and the bytes read and written are counted
against a limit, whatever sizes the archive states.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, cast

from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.fetching.archive_formats import HEAD, unread_format
from robust_transfer.datasets.fetching.disk import CHUNK, printable

EXPANSION, ALLOWANCE = 20, 10**9
"""An archive may expand to this many times its size, plus this many bytes. Compression hardly shrinks images, and lists
of labels to a tenth; the bytes are for small archives of text. Decompression bombs expand a thousandfold and more."""
MEMBERS = 5_000_000
"""Most files and folders; the largest image collection unpacked here, ImageNet, has 1.3 million."""
DEPTH = 100  # folders in a name; image collections use five at most, and recursion over them must end
HEADER = 2**16  # bytes of a tar header's extension, which tarfile reads into memory; a name with its times takes 200
STREAM = 2**16  # bytes of a stream that tarfile buffers, and copies for every header
COMPRESSED: tuple[tuple[bytes, str, Callable[..., Any]], ...] = (
    (b"\x1f\x8b", "gzip", gzip.open),
    (b"BZh", "bzip2", bz2.open),
    (b"\xfd7zXZ\x00", "xz", lzma.open),
)
ZIPPED = (b"PK\x03\x04", b"PK\x05\x06")
MAGIC = HEAD  # bytes that tell the formats apart; xz begins with 6
OURS = re.compile(r"\..*\.(unpacking|moving|unpacked|part|verified|lock)", re.DOTALL)
EXTENSIONS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, ValueError, RecursionError),
)
"""What the standard library raises on damaged archives; errors in writing are DatasetErrors by then."""


class Member(NamedTuple):
    """One member of an archive, as the archive describes it."""

    name: str
    kind: Literal["file", "folder", "symlink", "hardlink"]
    content: Callable[[], IO[bytes]]
    """Opens its bytes; those of a symlink in a zip are its target."""
    target: str | None = None
    """Of a link in a tar."""


class Limit:
    """Counts the bytes read from and written out of one archive, and refuses more than it may hold."""

    def __init__(self, archive: Path, most: int):
        self.archive, self.most = archive, most
        self.read = self.written = self.members = 0

    def count(self, *, read: int = 0, written: int = 0, members: int = 0) -> None:
        """Add to the counts; raises DatasetError where they exceed the limit."""
        self.read, self.written, self.members = self.read + read, self.written + written, self.members + members
        if max(self.read, self.written) > self.most:
            raise DatasetError(
                f"{self.archive}: {self.archive.stat().st_size:,} bytes that unpack to more than {self.most:,}, which "
                "no archive of images does; if this one is genuine, unpack it by hand"
            )
        if self.members > MEMBERS:
            raise DatasetError(f"{self.archive}: more than {MEMBERS:,} files; if it is genuine, unpack it by hand")


def limit_of(archive: Path, most: int | None) -> Limit:
    """The limit of an archive: `most` bytes, or by default what its size allows."""
    return Limit(archive, EXPANSION * archive.stat().st_size + ALLOWANCE if most is None else most)


class _Metered:
    """A stream that counts what is read from it."""

    def __init__(self, stream: IO[bytes], limit: Limit):
        self._stream, self._limit = stream, limit

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._limit.count(read=len(data))
        return data


@contextmanager
def reading(archive: Path) -> Iterator[None]:
    """Turn what the standard library raises on damaged archives into a DatasetError."""
    try:
        yield
    except DatasetError:
        raise
    except UnicodeDecodeError as error:  # of a zip that says that its names are UTF-8
        raise DatasetError(
            f"{archive}: has a member whose name is not the UTF-8 that it is said to be ({error.reason}); fetch it "
            "again, or unpack it by hand"
        ) from error
    except DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DatasetError(f"{archive}: damaged or cut short ({reason}); fetch it again") from error
    except (NotImplementedError, RuntimeError) as error:  # of zipfile: a method that it lacks, or a password
        raise DatasetError(f"{archive}: cannot be unpacked here ({error}); unpack it by hand") from error


def members_of(archive: Path, limit: Limit) -> Iterator[Member]:
    """The members of an archive, in order; each must be read, if at all, before the next is asked for."""
    with open(archive, "rb") as file:
        head = file.read(MAGIC)
        file.seek(0)
        if head.startswith(ZIPPED):
            yield from _zip_members(file, archive)
            return
        for magic, name, opener in COMPRESSED:
            if head.startswith(magic):
                with opener(file) as stream:
                    metered = _Metered(stream, limit)
                    yield from tar_members(metered, archive, f"a {name} file that holds no tar", seekable=False)
                    while metered.read(CHUNK):  # up to the checksum at the stream's end
                        pass
                return
        if unread := unread_format(head, archive.name):
            kind, command = unread
            raise DatasetError(
                f"{archive}: {kind}, a format that is not read here; unpack it (`{command}`), pack what it held again "
                f"as tar or zip (`tar -czf {archive.name} <what it held>`), and put that in its place"
            )
        yield from tar_members(file, archive, "neither zip nor tar", seekable=True)


def tar_members(source: Any, archive: Path, otherwise: str, *, seekable: bool) -> Iterator[Member]:
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
        while (info := tar.next()) is not None:
            if info.offset <= position or info.size < 0:  # else a forged size could make the reader loop
                raise refusal(archive, info.name, "has a size that leads backwards")
            position = info.offset
            yield _tar_member(tar, info, archive)
            tar.members.clear()  # or all of them, perhaps a million, would stay in memory
    if header.last == "damaged" or (header.last == "nothing" and seekable):
        raise tarfile.ReadError("no end mark")


def _open_tar(source: Any, mode: Literal["r:", "r|"], header: Any) -> Any:
    return tarfile.open(fileobj=source, mode=mode, tarinfo=header, bufsize=STREAM)


def _header_class(archive: Path) -> Any:
    """A TarInfo for one archive that refuses huge headers, and records what the last one was.

    tarfile takes a damaged header for the end of the archive, and does not report that it was cut short.
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
                raise refusal(archive, header.name, f"has a header of {header.size:,} bytes")
            return header

    return Header


def _tar_member(tar: Any, info: tarfile.TarInfo, archive: Path) -> Member:
    def content() -> IO[bytes]:
        return cast(IO[bytes], tar.extractfile(info))

    if info.isreg():
        return Member(info.name, "file", content)
    if info.isdir():
        return Member(info.name, "folder", content)
    if info.issym() or info.islnk():
        return Member(info.name, "symlink" if info.issym() else "hardlink", content, info.linkname)
    kinds = {tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a named pipe"}
    raise refusal(archive, info.name, f"is {kinds.get(info.type, f'of a kind unknown here, {info.type!r}')}")


def _zip_members(file: IO[bytes], archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(file) as zipped:
        for info in zipped.infolist():
            name = info.orig_filename  # zipfile's own is cut at a NUL

            def content(info: zipfile.ZipInfo = info) -> IO[bytes]:
                return zipped.open(info)

            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind == stat.S_IFLNK:
                yield Member(name, "symlink", content)
            elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise refusal(archive, name, "is a device, a named pipe or a socket")
            elif name.endswith("/"):
                yield Member(name, "folder", content)
            else:
                yield Member(name, "file", content)


def parts_of(name: str, archive: Path) -> tuple[str, ...]:
    """A member's path, relative and without detours; empty for the archive's own root. Raises DatasetError."""
    if "\0" in name or "\\" in name:
        raise refusal(archive, name, "has a backslash or a NUL in its name")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise refusal(archive, name, "has an absolute path")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise refusal(archive, name, "leads out of the folder")
    if len(parts) > DEPTH:
        raise refusal(archive, name, f"lies more than {DEPTH} folders deep")
    if parts and OURS.fullmatch(parts[0]):
        raise refusal(archive, name, "has a name that marks what is unpacked")
    return parts


def refusal(archive: Path, name: str, why: str) -> DatasetError:
    """What to raise for a member that is not to be trusted; `why` is the predicate of a sentence about it."""
    return DatasetError(
        f"{archive}: its member '{printable(name)}' {why}, which no archive of images needs, so it is not unpacked; "
        "download it again from its publisher, or inspect it and unpack it by hand"
    )
