"""Fetch a published file whole and as expected, or not at all.

A file comes into `.<name>.part`, with what the server said of it in `.<name>.part.json`; a later attempt, also of
another process, goes on from there where the server allows it and still has the same file. Size and checksums are
verified before the file gets its name, and `.<name>.verified` remembers that they were. What looks like a web page, an
error message or a Git LFS pointer is refused even where no checksum is known.

Proxies are those of the environment (https_proxy, no_proxy). Checksums cost about a second a gigabyte.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from itertools import chain
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, build_opener

from robust_transfer.datasets import storing
from robust_transfer.datasets.storing import DatasetError
from robust_transfer.store import StoreError, read_json, refused, write_json

PAUSES = (2.0, 10.0, 30.0, 60.0)
"""Seconds before each new attempt; counted anew whenever more of the file has come than ever before."""
TIMEOUT = 60.0  # seconds without a byte
LONGEST_PAUSE = 600.0  # seconds; what a server asks for with Retry-After is followed up to this
CHUNK = 2**20
HEAD = 1024  # bytes that tell a page from an archive
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Status codes that may be gone a little later."""
PAGES = {"an HTML page": (".html", ".htm", ".xhtml"), "an XML message": (".xml", ".svg", ".html", ".xhtml")}
"""What a server sends instead of a file, and the suffixes of names that may hold it."""

log = logging.getLogger("robust_transfer")


@dataclass(frozen=True)
class RemoteFile:
    """A published file and what is known of it. Raises DatasetError for an address or checksum that cannot be."""

    url: str
    """https, http or file."""
    name: str = ""
    """What to call it here; by default the last part of the url's path."""
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
        """What is known of its checksums, by kind, in small letters; they begin so."""
        known = {"md5": self.md5, "sha256": self.sha256 or self.sha256_prefix}
        return {kind: value.lower() for kind, value in known.items() if value is not None}

    def differences(self, size: int, found: dict[str, str]) -> str:
        """How a file of so many bytes and these checksums is not this one; empty where it is."""
        wrong = [] if self.bytes in (None, size) else [f"{size:,} bytes instead of {self.bytes:,}"]
        for kind, expected in self.checksums.items():
            if not found[kind].startswith(expected):
                wrong.append(f"{kind} {found[kind]} instead of {expected}")
        return ", ".join(wrong)


def fetch(file: RemoteFile, folder: Path, *, timeout: float = TIMEOUT, pauses: Sequence[float] = PAUSES) -> Path:
    """Return the file's path in `folder`, after fetching it if it is not there; makes the folder.

    A file that is there is checked (once, while its size and time stay) and never replaced. Interrupted downloads and
    passing errors of the server are tried again after `pauses` seconds; `timeout` is in seconds without a byte. A
    second process that wants the same file waits for the first. Raises DatasetError, and then there is no file.
    """
    target = folder / file.name
    if not target.exists():  # a finished file needs no lock, so the folder may be read-only
        make_folder(folder)
        with exclusively(folder / f".{file.name}.part.lock", file.url):
            if not target.exists():
                _Download(file, target, timeout).run(pauses)
    _check(file, target)
    return target


def disguise(head: bytes, name: str = "") -> str | None:
    """What a file is that came instead of the one of that name, judging by its first bytes; None if it looks right."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer"
    found = None
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<!--")):
        found = "an HTML page"
    elif text.startswith((b"<?xml", b"<error")):
        found = "an HTML page" if b"<html" in text else "an XML message"
    return None if found is None or name.lower().endswith(PAGES[found]) else found


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; raises DatasetError where that is not allowed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"{folder}: this folder cannot be made ({error.strerror}); choose another") from error


def not_written(path: Path, size: int, error: OSError) -> DatasetError:
    """What to raise where the disk did not take so many bytes."""
    return DatasetError(f"{refused(path, size, error)}; make room there or choose another folder, and run it again")


_threads: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)  # the kernel's locks are of processes


@contextmanager
def exclusively(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock file while the block runs; waits while another process or thread holds it, and says for whom.

    The kernel frees the lock of a process that dies. Raises DatasetError where the file cannot be made or locked.
    """
    with _threads[lock.absolute()]:
        while True:
            with _opened(lock) as file:
                _acquire(file, lock, what)
                if not _is_still(lock, file.fileno()):  # its holder has just removed it: lock the new one
                    continue
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
                file.flush()
                try:
                    yield
                finally:
                    lock.unlink(missing_ok=True)
                return


def _opened(path: Path) -> IO[bytes]:
    """A file to read and to append to."""
    try:
        return open(path, "a+b")
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error


def _acquire(file: IO[bytes], lock: Path, what: str) -> None:
    try:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            file.seek(0)
            log.info("%s: waiting for %s, which is at it", what, file.read().decode() or "another process")
            fcntl.lockf(file, fcntl.LOCK_EX)
    except OSError as error:
        raise DatasetError(
            f"{lock}: this file system has no locks ({error.strerror}); choose another folder"
        ) from error


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


class _AttemptError(Exception):
    """An attempt ended early, and another may do better."""

    def __init__(self, reason: str, pause: float = 0.0):
        super().__init__(reason)
        self.pause = pause  # seconds that the server asks for


class _Part:
    """What has come of a file so far, its checksums, and what the server said of the file it began to send."""

    def __init__(self, file: RemoteFile, target: Path):
        self.path = target.with_name(f".{target.name}.part")
        self.resumed = False
        self._kinds = ("sha256", *file.checksums)
        self._described = target.with_name(f".{target.name}.part.json")
        self._file = _opened(self.path)
        self.server: dict[str, Any] = _read(self._described)
        self._forget()
        known = self.server.get("etag") or self.server.get("last_modified") or file.checksums
        if not known or self.server.get("url") != file.url:  # what is there may be of another file
            self.begin({})
            return
        self._file.seek(0)
        while chunk := self._file.read(CHUNK):
            self._count(chunk)
        self.resumed = self.size > 0

    def range(self) -> dict[str, str]:
        """Headers that ask for the rest, if the file is still the one begun; a weak tag cannot be asked for."""
        if not self.size:
            return {}
        tag, modified = self.server.get("etag"), self.server.get("last_modified")
        same = tag if tag and not tag.startswith("W/") else modified
        return {"Range": f"bytes={self.size}-", **({"If-Range": same} if same else {})}

    def begin(self, server: dict[str, Any]) -> None:
        """Start over, with a file that the server so describes."""
        try:
            self._file.truncate(0)
        except OSError as error:
            raise not_written(self.path, 0, error) from error
        self.resumed, self.server = False, server
        self._forget()
        try:
            write_json(self._described, server)
        except StoreError as error:
            raise DatasetError(str(error)) from error

    def append(self, chunk: bytes) -> None:
        try:
            self._file.write(chunk)
            self._file.flush()
        except OSError as error:
            raise not_written(self.path, len(chunk), error) from error
        self._count(chunk)

    def head(self) -> bytes:
        self._file.seek(0)
        return self._file.read(HEAD)

    def checksums(self) -> dict[str, str]:
        return {kind: found.hexdigest() for kind, found in self._hashes.items()}

    def publish(self, target: Path) -> None:
        """Give the file its name, once it lies on the disk."""
        try:
            os.fsync(self._file.fileno())
            self.path.replace(target)
            self._described.unlink(missing_ok=True)
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise not_written(target, self.size, error) from error

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._described.unlink(missing_ok=True)

    def close(self) -> None:
        self._file.close()

    def _forget(self) -> None:
        self.size = 0
        self._hashes = {kind: hashlib.new(kind, usedforsecurity=False) for kind in self._kinds}

    def _count(self, chunk: bytes) -> None:
        self.size += len(chunk)
        for found in self._hashes.values():
            found.update(chunk)


class _Download:
    """One file on its way to its place."""

    def __init__(self, file: RemoteFile, target: Path, timeout: float):
        self.file, self.target, self.timeout = file, target, timeout
        self.reached = False  # has the server answered, this time?
        self.by_hand = f"fetch it by hand, in a browser, and put it at {target}"

    def run(self, pauses: Sequence[float]) -> None:
        """Fetch, verify, publish. A download that was pieced together and is wrong is fetched once more, in one go."""
        with closing(_Part(self.file, self.target)) as part:
            start = time.monotonic()
            self._complete(part, pauses)
            if part.resumed and self._wrong(part):
                log.warning("%s: what was pieced together is not the file (%s)", self.file.url, self._wrong(part))
                part.begin({})
                self._complete(part, pauses)
            if wrong := self._wrong(part):
                part.remove()
                raise DatasetError(
                    f"{self.file.url}: came as {wrong}, and was removed; try again, and if it comes so again, "
                    f"the file behind this address has changed: correct what is expected, or put the right file at "
                    f"{self.target}"
                )
            part.publish(self.target)
            _remember(self.target, part.checksums())
        log.info("%s: %s in %.0f s", self.target, _size(part.size), time.monotonic() - start)
        if not self.file.checksums:
            log.info("%s: no checksum is known of it; its sha256 is %s", self.target, part.checksums()["sha256"])

    def _wrong(self, part: _Part) -> str:
        """How what has come is not the file; empty where it is."""
        if not part.size and self.file.bytes != 0:
            return "nothing at all"
        return disguise(part.head(), self.file.name) or self.file.differences(part.size, part.checksums())

    def _complete(self, part: _Part, pauses: Sequence[float]) -> None:
        """Attempt until all has come; raises DatasetError when it is no use."""
        best, waits = part.size, iter(pauses)
        if self.file.checksums and part.size == self.file.bytes and not self._wrong(part):
            return  # stopped between the last byte and the new name
        while True:
            try:
                self._attempt(part)
                return
            except _AttemptError as error:
                if part.size > best:
                    best, waits = part.size, iter(pauses)
                pause = next(waits, None)
                if pause is None:
                    raise DatasetError(
                        f"{self.file.url}: given up ({error}) with {part.size:,} bytes fetched, which are kept; "
                        f"run it again later to go on, or {self.by_hand}"
                    ) from error
                pause = max(pause, min(error.pause, LONGEST_PAUSE))
                log.warning("%s: %s; trying again in %.0f s", self.file.url, error, pause)
                time.sleep(pause)

    def _attempt(self, part: _Part) -> None:
        """Ask for what is missing and append it."""
        headers = {"User-Agent": "robust-transfer", "Accept-Encoding": "identity", **part.range()}
        try:
            response = build_opener().open(Request(self.file.url, headers=headers), timeout=self.timeout)
        except HTTPError as error:
            with error:
                self.reached = True
                return self._refused(error, part)
        except (OSError, HTTPException) as error:
            raise self._unanswered(error) from error
        with response:
            self.reached = True
            total = self._begin(response, part)
            chunks = self._chunks(response)
            first = next(chunks, b"")
            if part.size == 0 and (page := disguise(first, self.file.name)):
                raise self._page(page, part)
            self._check_size(total, part)
            progress = _Progress(self.file.name, part.size, total)
            for chunk in chain([first], chunks):
                part.append(chunk)
                progress.tell(part.size)
                if part.size > (self.file.bytes or part.size):
                    break  # longer than it may be; told when verified
        if total is not None and part.size < total:
            raise _AttemptError(f"the connection was lost after {part.size:,} of {total:,} bytes")

    def _begin(self, response: Any, part: _Part) -> int | None:
        """Make the part ready for the body of an answer; how many bytes the file has in all, if the server says so."""
        headers = response.headers
        if headers.get_content_type() == "text/html" and not self.file.name.lower().endswith(PAGES["an HTML page"]):
            raise self._page("an HTML page", part)
        if urlsplit(self.file.url).scheme == "https" != urlsplit(response.url).scheme and not self.file.checksums:
            raise DatasetError(
                f"{self.file.url}: leads to {response.url}, which anyone between can change, and no checksum is known; "
                f"give its checksum, or {self.by_hand}"
            )
        length = headers.get("Content-Length", "")
        server: dict[str, Any] = {
            "url": self.file.url,
            "etag": headers.get("ETag"),
            "last_modified": headers.get("Last-Modified"),
            "bytes": int(length) if length.isdecimal() else None,
        }
        if getattr(response, "status", None) != 206:  # all of it, whatever was asked for; `file` has no status
            part.begin(server)
            return int(length) if length.isdecimal() else None
        place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        server["bytes"] = int(place[2]) if place and place[2] != "*" else None
        changed = [key for key, value in server.items() if value and part.server.get(key) and value != part.server[key]]
        if not place or int(place[1]) != part.size or changed:
            part.begin({})
            raise _AttemptError("the rest that came is not of the file begun, so it is fetched anew")
        part.resumed = True
        total: int | None = server["bytes"] or part.server.get("bytes")
        return total

    def _refused(self, error: HTTPError, part: _Part) -> None:
        """Deal with a status that is an error; returns where it means that all has come."""
        status = f"the server answers {error.code} {error.reason}"
        if error.code == 416 and part.size:
            if error.headers.get("Content-Range", "").strip() == f"bytes */{part.size}":
                part.resumed = True
                return
            part.begin({})
            raise _AttemptError("more has come than the server has, so it is fetched anew")
        if error.code in PASSING:
            pause = error.headers.get("Retry-After", "")
            raise _AttemptError(status, float(pause) if pause.isdecimal() else 0.0)
        raise DatasetError(f"{self.file.url}: {status}; correct the address, or {self.by_hand}")

    def _unanswered(self, error: Exception) -> Exception:
        """What to raise where no answer came: an end, where nothing has come since the start and nothing would."""
        reason = error.reason if isinstance(error, URLError) else error
        lost = isinstance(reason, ConnectionError) and not isinstance(reason, ConnectionRefusedError)
        if isinstance(reason, ssl.SSLCertVerificationError):
            return DatasetError(f"{self.file.url}: its certificate is not trusted ({reason}); {self.by_hand}")
        if isinstance(error, URLError) and not self.reached and not lost:
            return DatasetError(
                f"{self.file.url}: could not be reached ({reason}); check the connection, or put the file at "
                f"{self.target} by other means"
            )
        return _AttemptError(f"could not be reached ({reason or type(reason).__name__})")

    def _chunks(self, response: Any) -> Iterator[bytes]:
        """The body as it comes; the first chunk is long enough to tell what it is, unless it is all."""
        held = b""
        while True:
            try:
                chunk = response.read1(CHUNK)
            except (OSError, HTTPException) as error:
                if held:
                    yield held
                raise _AttemptError(f"the connection was lost ({error or type(error).__name__})") from error
            if not chunk:
                break
            held += chunk
            if len(held) >= HEAD:
                yield held
                held = b""
        yield held

    def _check_size(self, total: int | None, part: _Part) -> None:
        """Raise DatasetError before the body is fetched, where it cannot be the file, or cannot be held."""
        if total is None:
            return
        if self.file.bytes not in (None, total):
            part.remove()
            raise DatasetError(
                f"{self.file.url}: the server has {total:,} bytes where {self.file.bytes:,} are expected, so the file "
                f"has changed; correct what is expected, or put the right file at {self.target}"
            )
        free = shutil.disk_usage(self.target.parent).free
        if total - part.size > free:
            raise DatasetError(
                f"{self.target}: {total - part.size:,} bytes are to come and {free:,} bytes are free; make room there "
                "or choose another folder"
            )

    def _page(self, page: str, part: _Part) -> DatasetError:
        if not part.size:
            part.remove()
        return DatasetError(
            f"{self.file.url}: the server sends {page} instead of {self.file.name}: to confirm, to log in or to say "
            f"that it is gone; {self.by_hand}"
        )


class _Progress:
    """A line in the log every few seconds."""

    def __init__(self, name: str, size: int, total: int | None):
        self.name, self.total = name, total
        self.start, self.first = time.monotonic(), size
        self.spoken = self.start

    def tell(self, size: int) -> None:
        now = time.monotonic()
        if now - self.spoken < storing.PROGRESS_SECONDS:
            return
        self.spoken, rate = now, (size - self.first) / max(now - self.start, 1e-9)
        done = f"{_size(size)} of {_size(self.total)}" if self.total else _size(size)
        left = f", {(self.total - size) / max(rate, 1.0):.0f} s left" if self.total else ""
        log.info("%s: %s, %.1f MB/s%s", self.name, done, rate / 1e6, left)


def _check(file: RemoteFile, target: Path) -> None:
    """Raise DatasetError if the file at its place is not the one expected."""
    try:
        status = target.stat()
        with open(target, "rb") as opened:
            page = disguise(opened.read(HEAD), file.name)
            found = _remembered(target)
            for kind in file.checksums.keys() - found.keys():
                opened.seek(0)
                found[kind] = hashlib.file_digest(opened, kind).hexdigest()
    except OSError as error:
        raise DatasetError(f"{target}: cannot be read ({error.strerror}); move it away to have it fetched") from error
    wrong = f"it is {page}" if page else file.differences(status.st_size, found)
    if wrong:
        raise DatasetError(f"{target}: not the file at {file.url}: {wrong}; move it away to have that fetched")
    if file.checksums:
        _remember(target, found)


def _remembered(target: Path) -> dict[str, str]:
    """The checksums that were found, if the file's size and time are still the same."""
    stamp, status = _read(_stamp(target)), target.stat()
    same = stamp.get("bytes") == status.st_size and stamp.get("mtime_ns") == status.st_mtime_ns
    return dict(stamp["checksums"]) if same else {}


def _remember(target: Path, checksums: dict[str, str]) -> None:
    status = target.stat()
    stamp = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "checksums": checksums}
    try:
        if _read(_stamp(target)) != stamp:
            write_json(_stamp(target), stamp)
    except (StoreError, OSError):  # a folder that is read-only: the file is hashed anew each time
        log.debug("%s: could not be written", _stamp(target))


def _stamp(target: Path) -> Path:
    return target.with_name(f".{target.name}.verified")


def _read(path: Path) -> dict[str, Any]:
    """A small JSON object that may be missing or damaged."""
    try:
        found = read_json(path)
    except (StoreError, OSError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
