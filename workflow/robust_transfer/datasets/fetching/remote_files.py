"""What is known of a published file, and whether a file on the disk is that one.

Size and checksums decide where they are known; a web page, an error message or a Git LFS pointer is recognised by its
first bytes. A file that was verified is not hashed again while its size and time stay the same: `.<name>.verified`
holds its checksums.
"""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.fetching.disk import read_object
from robust_transfer.datasets.fetching.web_pages import HEAD, disguise
from robust_transfer.store.entry import StoreError, write_json

log = logging.getLogger("robust_transfer")


@dataclass(frozen=True)
class RemoteFile:
    """A published file and what is known of it. Raises DatasetError for an address or checksum that cannot be."""

    url: str
    """https, http or file."""
    name: str = ""
    """Of the file on this machine; by default the last part of the url's path."""
    md5: str | None = None
    sha256: str | None = None
    sha256_prefix: str | None = None
    """Its first digits, at least eight, as the names of torch.hub's files have them."""
    bytes: int | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("https", "http", "file"):
            raise DatasetError(f"{self.url}: only https, http and file addresses can be fetched")
        name = self.name or unquote(parts.path.rpartition("/")[2])
        if not name or name.startswith(".") or re.search(r"[/\\\0]", name):
            raise DatasetError(f"{self.url}: {name!r} cannot be a file's name here; give one as `name`")
        object.__setattr__(self, "name", name)
        for kind, least, most in (("md5", 32, 32), ("sha256", 64, 64), ("sha256_prefix", 8, 64)):
            value = getattr(self, kind)
            if value is not None and not re.fullmatch(rf"[0-9a-fA-F]{{{least},{most}}}", value):
                raise DatasetError(f"{self.url}: {kind} = {value!r}, which is not {least} hexadecimal digits")

    @property
    def checksums(self) -> dict[str, str]:
        """The known checksums, or their first digits, by kind, in lower case."""
        known = {"md5": self.md5, "sha256": self.sha256 or self.sha256_prefix}
        return {kind: value.lower() for kind, value in known.items() if value is not None}


def examine(file: RemoteFile, path: Path, *kinds: str) -> tuple[str, dict[str, str]]:
    """How the file at a path is not the expected one ("is an HTML page", …; empty where it is), and its checksums.

    Checksums are hexadecimal digits by kind: those that are expected, and also these `kinds`. Raises OSError.
    """
    checksums = _remembered(path)
    with open(path, "rb") as opened:
        page = disguise(opened.read(HEAD), file.name)
        for kind in {*kinds, *file.checksums} - checksums.keys():
            opened.seek(0)
            checksums[kind] = hashlib.file_digest(opened, kind).hexdigest()
    size = path.stat().st_size
    if page or not (size or file.bytes == 0):
        return f"is {page or 'empty'}", checksums
    wrong = [] if file.bytes in (None, size) else [f"{size:,} bytes instead of {file.bytes:,}"]
    for kind, expected in file.checksums.items():
        if not checksums[kind].startswith(expected):
            wrong.append(f"{kind} {checksums[kind]} instead of {expected}")
    return f"has {', '.join(wrong)}" if wrong else "", checksums


def verify(file: RemoteFile, target: Path) -> None:
    """Raise DatasetError if the file at its place is not the expected one."""
    try:
        difference, checksums = examine(file, target)
    except OSError as error:
        raise DatasetError(
            f"{target}: cannot be read ({error.strerror}); move it away to have it downloaded"
        ) from error
    if difference:
        raise DatasetError(
            f"{target}: not the file at {file.url}: it {difference}; move it away to have that downloaded"
        )
    if file.checksums:
        remember(target, checksums)


def _remembered(target: Path) -> dict[str, str]:
    """The checksums recorded of a file, if its size and time are still the same."""
    stamp, status = read_object(_stamp(target)), target.stat()
    same = stamp.get("bytes") == status.st_size and stamp.get("mtime_ns") == status.st_mtime_ns
    return dict(stamp["checksums"]) if same else {}


def remember(target: Path, checksums: dict[str, str]) -> None:
    """Record the checksums of a file, with its size and time."""
    status = target.stat()
    stamp = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "checksums": checksums}
    try:
        if read_object(_stamp(target)) != stamp:
            write_json(_stamp(target), stamp)
    except (StoreError, OSError):  # a folder that is read-only: the file is hashed anew each time
        log.debug("%s: could not be written", _stamp(target))


def _stamp(target: Path) -> Path:
    return target.with_name(f".{target.name}.verified")
