"""Downloads: a file comes whole and as expected, or not at all, whatever the server and the connection do."""

import hashlib
import json
import logging
import os
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import build_opener

import pytest
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.fetching import disk, downloads, remote_files
from robust_transfer.datasets.fetching.disk import exclusively
from robust_transfer.datasets.fetching.downloads import RemoteFile, fetch
from robust_transfer.datasets.fetching.partial_files import PartialFile
from support.processes import first_line, start

CONTENT = bytes(range(256)) * 1200  # 307,200 bytes: several reads
MD5, SHA256 = hashlib.md5(CONTENT).hexdigest(), hashlib.sha256(CONTENT).hexdigest()
PAGE = b"\n<!DOCTYPE html><html><body>Too big to scan for viruses. Download anyway?</body></html>"
HALF = len(CONTENT) // 2


class Site:
    """A server with one file. `plan` holds what becomes of the next answers; then they are as they should be."""

    def __init__(self):
        self.content, self.ranges = CONTENT, True
        self.etag: str | None = '"one"'
        self.modified: str | None = None
        self.type: str | None = None
        self.plan: list[dict[str, Any]] = []
        self.requests: list[dict[str, str]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                site.requests.append(dict(self.headers))
                site.answer(self, **(site.plan.pop(0) if site.plan else {}))
                self.close_connection = True

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/files/data.tar.gz"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, to, *, status=None, headers=None, content=None, keep=None, length=True, before=None):
        """`keep`: bytes of the body that are sent before the connection is lost."""
        if before:
            before()
        body, code = self.content if content is None else content, 200
        sent: dict[str, str | None] = {}
        first = to.headers.get("Range", "").removeprefix("bytes=").removesuffix("-")
        fits = to.headers.get("If-Range") in (None, self.etag, self.modified)
        if status is not None:
            code, body = status, b"sorry"
        elif self.ranges and first and fits:
            if int(first) >= len(body):
                code, sent, body = 416, {"Content-Range": f"bytes */{len(body)}"}, b""
            else:
                code, sent = 206, {"Content-Range": f"bytes {first}-{len(body) - 1}/{len(body)}"}
                body = body[int(first) :]
        sent |= {"ETag": self.etag, "Last-Modified": self.modified, "Content-Type": self.type}
        sent |= {"Content-Length": str(len(body)) if length else None} | (headers or {})
        to.send_response(code)
        for key, value in sent.items():
            if value is not None:
                to.send_header(key, value)
        to.end_headers()
        to.wfile.write(body if keep is None else body[:keep])

    @property
    def ranges_asked(self):
        return [request.get("Range") for request in self.requests]


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    """No proxy of this machine stands between a test and its server."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def site():
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


def get(site: Site, folder: Path, *, pauses=(0, 0, 0), timeout=5.0, **known) -> Path:
    return fetch(RemoteFile(site.url, **known), folder, pauses=pauses, timeout=timeout)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def interrupted(site: Site, folder: Path, keep: int = HALF, **known: Any) -> None:
    """Leave a download that stopped midway, as a process that was killed leaves it."""
    site.plan.append({"keep": keep})
    with pytest.raises(DatasetError, match=rf"given up .* with {keep:,} bytes downloaded, which are kept"):
        get(site, folder, pauses=(), **known)
    site.requests.clear()


# Whole


@pytest.mark.parametrize("known", [{}, {"md5": MD5}, {"sha256": SHA256.upper(), "bytes": len(CONTENT)}])
def test_a_file_comes_whole_and_leaves_only_its_stamp(site, tmp_path, known):
    path = get(site, tmp_path / "new" / "folder", **known)
    assert path == tmp_path / "new" / "folder" / "data.tar.gz"
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == {"data.tar.gz", ".data.tar.gz.verified"}
    assert site.requests[0]["User-Agent"] == "robust-transfer"


def test_a_name_can_be_given_and_else_comes_from_the_address(site, tmp_path):
    assert get(site, tmp_path, name="other.bin").name == "other.bin"
    assert RemoteFile("https://host/a/b%20c.zip?download=1#x").name == "b c.zip"


@pytest.mark.parametrize("url", ["https://host", "https://host/folder/", "https://host/..", "https://host/a%2Fb"])
def test_an_address_without_a_name_asks_for_one(url):
    with pytest.raises(DatasetError, match="cannot be a file's name here; give one as `name`"):
        RemoteFile(url)
    assert RemoteFile(url, name="x.tar").name == "x.tar"


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"url": "ftp://host/x.tar"}, "only https, http and file"),
        ({"url": "https://host/x", "name": "../x"}, "cannot be a file's name"),
        ({"url": "https://host/x", "md5": "abc"}, "md5 = 'abc', which is not 32 hexadecimal digits"),
        ({"url": "https://host/x", "sha256": MD5}, "which is not 64 hexadecimal digits"),
        ({"url": "https://host/x", "sha256_prefix": "f37072f"}, "which is not 8 hexadecimal digits"),
    ],
)
def test_impossible_descriptions_are_refused(known, message):
    with pytest.raises(DatasetError, match=message):
        RemoteFile(**known)


def test_first_digits_of_a_checksum_are_enough(site, tmp_path):
    get(site, tmp_path, sha256_prefix=SHA256[:8])
    with pytest.raises(DatasetError, match=f"what was downloaded has sha256 {SHA256} instead of 0123abcd"):
        get(site, tmp_path, name="other", sha256_prefix="0123ABCD")


def test_file_addresses_are_copied(tmp_path):
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "x.bin").write_bytes(CONTENT)
    path = fetch(RemoteFile((tmp_path / "from" / "x.bin").as_uri(), md5=MD5), tmp_path / "to")
    assert path.read_bytes() == CONTENT
    with pytest.raises(DatasetError, match="could not be reached"):
        fetch(RemoteFile((tmp_path / "from" / "y.bin").as_uri()), tmp_path / "to")


def test_a_file_that_is_there_is_left_alone_and_hashed_once(site, tmp_path, monkeypatch):
    path = tmp_path / "data.tar.gz"
    path.write_bytes(CONTENT)
    before = path.stat()
    get(site, tmp_path, md5=MD5, bytes=len(CONTENT))
    monkeypatch.setattr(hashlib, "file_digest", None)  # were it called, it would fail
    get(site, tmp_path, md5=MD5, bytes=len(CONTENT))
    assert path.stat() == before
    assert site.requests == []


def test_a_file_altered_after_its_check_is_hashed_again_and_named(site, tmp_path):
    path = get(site, tmp_path, md5=MD5)
    os.utime(path, ns=(1, 1))
    get(site, tmp_path, md5=MD5)
    path.write_bytes(b"x" + CONTENT[1:])
    with pytest.raises(DatasetError, match=f"instead of {MD5}; move it away to have that downloaded"):
        get(site, tmp_path, md5=MD5)
    assert path.read_bytes()[:1] == b"x"
    assert len(site.requests) == 1


def test_a_page_that_was_put_there_by_hand_is_named(site, tmp_path):
    (tmp_path / "data.tar.gz").write_bytes(PAGE)
    with pytest.raises(DatasetError, match="it is an HTML page; move it away"):
        get(site, tmp_path)


def test_a_finished_folder_may_be_read_only(site, tmp_path, monkeypatch):
    path = tmp_path / "data.tar.gz"
    path.write_bytes(CONTENT)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(disk, "opened", refuse)
    monkeypatch.setattr(remote_files, "write_json", refuse)
    assert get(site, tmp_path, md5=MD5) == path


# Wrong


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_wrong_checksum_leaves_nothing_and_says_what_came(site, tmp_path, kind):
    wrong = {"md5": "0" * 32, "sha256": "0" * 64}[kind]
    came = {"md5": MD5, "sha256": SHA256}[kind]
    with pytest.raises(
        DatasetError, match=rf"{site.url}: what was downloaded has {kind} {came} instead of {wrong}, .*put the right"
    ):
        get(site, tmp_path, **{kind: wrong})
    assert names(tmp_path) == set()
    assert len(site.requests) == 1


def test_a_wrong_length_is_refused_before_it_is_fetched(site, tmp_path):
    with pytest.raises(DatasetError, match="the server has 307,200 bytes where 307,199 are expected"):
        get(site, tmp_path, bytes=len(CONTENT) - 1)
    assert names(tmp_path) == set()


@pytest.mark.parametrize("length", [10, len(CONTENT) - 1, len(CONTENT) + 1])
def test_a_wrong_length_that_the_server_does_not_tell_is_seen_at_the_end(site, tmp_path, length):
    site.plan = [{"length": False}]
    with pytest.raises(DatasetError, match=rf"what was downloaded has [\d,]+ bytes instead of {length:,}"):
        get(site, tmp_path, bytes=length)
    assert names(tmp_path) == set()


def test_an_empty_file_is_no_file(site, tmp_path):
    site.content = b""
    with pytest.raises(DatasetError, match="what was downloaded is empty"):
        get(site, tmp_path)
    assert get(site, tmp_path, name="marker", bytes=0).read_bytes() == b""


@pytest.mark.parametrize(
    ("content", "kind", "named"),
    [
        (PAGE, "text/html; charset=utf-8", "an HTML page"),
        (PAGE, None, "an HTML page"),
        (CONTENT, "text/html", "an HTML page"),
        (b"\xef\xbb\xbf<html>", "application/gzip", "an HTML page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "application/xml", "an XML message"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", None, "a Git LFS pointer"),
    ],
)
@pytest.mark.parametrize("known", [{}, {"md5": MD5, "bytes": len(CONTENT)}])
def test_a_page_never_poses_as_an_archive(site, tmp_path, content, kind, named, known):
    site.content, site.type = content, kind
    with pytest.raises(
        DatasetError, match=rf"sends {named} instead of data.tar.gz.*download it in a browser.*{tmp_path}"
    ):
        get(site, tmp_path, **known)
    assert names(tmp_path) == set()


def test_a_page_that_comes_in_two_pieces_is_seen_too(site, tmp_path):
    site.content = PAGE
    site.plan = [{"keep": 5}]
    with pytest.raises(DatasetError, match="sends an HTML page instead"):
        get(site, tmp_path)
    assert names(tmp_path) == set()
    assert site.ranges_asked == [None, "bytes=5-", None]  # what was pieced together is fetched once more


def test_pages_and_messages_that_are_wanted_come(site, tmp_path):
    site.content, site.type = PAGE, "text/html"
    assert get(site, tmp_path, name="page.html").read_bytes() == PAGE
    site.content, site.type = b"<?xml version='1.0'?><annotation/>", "text/xml"
    assert get(site, tmp_path, name="image.xml").read_bytes() == site.content


# Interrupted


@pytest.mark.parametrize("known", [{}, {"md5": MD5}])
def test_a_lost_connection_goes_on_where_it_stopped(site, tmp_path, known):
    site.plan = [{"keep": 1000}, {"keep": 5000}, {"keep": 0}]
    assert get(site, tmp_path, **known).read_bytes() == CONTENT
    assert site.ranges_asked == [None, "bytes=1000-", "bytes=6000-", "bytes=6000-"]
    assert site.requests[1]["If-Range"] == '"one"'


def test_a_new_process_goes_on_where_the_last_one_stopped(site, tmp_path):
    interrupted(site, tmp_path)
    assert names(tmp_path) == {".data.tar.gz.part", ".data.tar.gz.part.json"}
    assert get(site, tmp_path, sha256=SHA256).read_bytes() == CONTENT
    assert site.ranges_asked == [f"bytes={HALF}-"]
    assert names(tmp_path) == {"data.tar.gz", ".data.tar.gz.verified"}


def test_any_exception_midway_leaves_a_part_to_go_on_from(site, tmp_path, monkeypatch):
    class Stopped(BaseException):
        pass

    def stop(self, chunk):
        append(self, chunk)
        raise Stopped

    append = PartialFile.append
    with monkeypatch.context() as patched:
        patched.setattr(PartialFile, "append", stop)
        with pytest.raises(Stopped):
            get(site, tmp_path)
    part = (tmp_path / ".data.tar.gz.part").stat().st_size
    assert 0 < part < len(CONTENT)
    assert get(site, tmp_path, md5=MD5).read_bytes() == CONTENT
    assert site.ranges_asked == [None, f"bytes={part}-"]


def test_a_server_without_ranges_starts_over(site, tmp_path):
    site.ranges = False
    site.plan = [{"keep": HALF}]
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert site.ranges_asked == [None, f"bytes={HALF}-"]


def test_a_server_without_ranges_that_always_stops_is_given_up(site, tmp_path):
    site.ranges = False
    site.plan = [{"keep": HALF}] * 9
    with pytest.raises(DatasetError, match=f"lost after {HALF:,} of {len(CONTENT):,} bytes"):
        get(site, tmp_path, pauses=(0, 0))
    assert len(site.requests) == 3  # the same half again is no progress


def test_attempts_are_counted_anew_while_more_comes(site, tmp_path):
    site.plan = [{"keep": 100}] * 9
    assert get(site, tmp_path, pauses=(0,), md5=MD5).read_bytes() == CONTENT


@pytest.mark.parametrize("known", [{}, {"bytes": len(CONTENT), "sha256": hashlib.sha256(CONTENT[::-1]).hexdigest()}])
def test_a_file_that_changed_meanwhile_is_started_over(site, tmp_path, known):
    interrupted(site, tmp_path, **known)
    site.content, site.etag = CONTENT[::-1], '"two"'
    assert get(site, tmp_path, **known).read_bytes() == CONTENT[::-1]
    assert site.ranges_asked == [f"bytes={HALF}-"]


@pytest.mark.parametrize(
    "headers",
    [
        {"ETag": '"two"'},
        {"Content-Range": f"bytes {HALF}-{len(CONTENT)}/{len(CONTENT) + 1}"},
        {"Content-Range": f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"},
        {"Content-Range": None},
    ],
)
def test_a_rest_that_does_not_fit_is_not_appended(site, tmp_path, headers):
    interrupted(site, tmp_path)
    site.plan = [{"headers": headers}]
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert site.ranges_asked == [f"bytes={HALF}-", None]


def test_times_tell_files_apart_where_there_are_no_tags(site, tmp_path):
    site.etag, site.modified = None, "Tue, 01 Jul 2014 10:00:00 GMT"
    interrupted(site, tmp_path)
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert site.requests[0]["If-Range"] == "Tue, 01 Jul 2014 10:00:00 GMT"
    assert site.ranges_asked == [f"bytes={HALF}-"]


def test_a_weak_tag_is_compared_and_not_asked_for(site, tmp_path):
    site.etag = 'W/"one"'
    interrupted(site, tmp_path)
    site.content, site.etag = CONTENT[::-1], 'W/"two"'
    assert get(site, tmp_path).read_bytes() == CONTENT[::-1]
    assert "If-Range" not in site.requests[0]
    assert site.ranges_asked == [f"bytes={HALF}-", None]


def test_without_tag_time_or_checksum_nothing_is_pieced_together(site, tmp_path):
    site.etag = None
    interrupted(site, tmp_path)
    site.content = CONTENT[::-1]
    assert get(site, tmp_path).read_bytes() == CONTENT[::-1]
    assert site.ranges_asked == [None]


def test_pieces_of_two_files_are_seen_by_the_checksum_and_fetched_once_more(site, tmp_path):
    site.etag = None
    other = CONTENT[::-1]
    known = {"md5": hashlib.md5(other).hexdigest()}
    interrupted(site, tmp_path, md5=known["md5"])
    site.content = other
    assert get(site, tmp_path, **known).read_bytes() == other
    assert site.ranges_asked == [f"bytes={HALF}-", None]


def test_the_part_of_another_address_is_not_gone_on_with(site, tmp_path):
    interrupted(site, tmp_path, md5=MD5)
    fetch(RemoteFile(site.url + "?mirror", md5=MD5), tmp_path, pauses=())
    assert site.ranges_asked == [None]


def test_a_part_that_is_whole_needs_no_server(site, tmp_path):
    interrupted(site, tmp_path, md5=MD5)
    (tmp_path / ".data.tar.gz.part").write_bytes(CONTENT)
    assert get(site, tmp_path, md5=MD5, bytes=len(CONTENT)).read_bytes() == CONTENT
    assert site.requests == []


def test_the_server_can_say_that_nothing_is_missing(site, tmp_path):
    interrupted(site, tmp_path)
    (tmp_path / ".data.tar.gz.part").write_bytes(CONTENT)
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert site.ranges_asked == [f"bytes={len(CONTENT)}-"]


def test_a_part_longer_than_the_file_is_started_over(site, tmp_path):
    interrupted(site, tmp_path)
    (tmp_path / ".data.tar.gz.part").write_bytes(CONTENT + b"more")
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert site.ranges_asked == [f"bytes={len(CONTENT) + 4}-", None]


def test_a_damaged_description_of_the_part_starts_over(site, tmp_path):
    interrupted(site, tmp_path)
    (tmp_path / ".data.tar.gz.part.json").write_text("[1, 2")
    assert get(site, tmp_path, md5=MD5).read_bytes() == CONTENT
    assert site.ranges_asked == [None]


@pytest.mark.parametrize("status", downloads.TEMPORARY)
def test_passing_errors_are_tried_again(site, tmp_path, status):
    site.plan = [{"status": status}, {"status": status}]
    assert get(site, tmp_path, pauses=(0, 0)).read_bytes() == CONTENT


def test_pauses_grow_and_the_server_can_ask_for_longer_ones(site, tmp_path, monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    site.plan = [{"status": 503}, {"status": 429, "headers": {"Retry-After": "77"}}]
    site.plan += [{"status": 503, "headers": {"Retry-After": "99999"}}]
    get(site, tmp_path, pauses=downloads.PAUSES)
    assert slept == [downloads.PAUSES[0], 77, downloads.LONGEST_PAUSE]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_lasting_errors_are_told_at_once(site, tmp_path, status):
    site.plan = [{"status": status}] * 5
    with pytest.raises(DatasetError, match=rf"{site.url}: the server answers {status} .*put it at {tmp_path}"):
        get(site, tmp_path)
    assert len(site.requests) == 1


def test_a_server_that_falls_silent_is_tried_again(site, tmp_path):
    site.plan = [{"before": lambda: time.sleep(0.5)}]
    assert get(site, tmp_path, timeout=0.1).read_bytes() == CONTENT
    assert len(site.requests) == 2


def test_being_offline_is_told_at_once_with_the_place_for_the_file(tmp_path):
    site = Site()
    site.server.shutdown()
    site.server.server_close()
    with pytest.raises(
        DatasetError, match=rf"could not be reached \(.*refused.*; .*put the file at {tmp_path}/data.tar"
    ):
        get(site, tmp_path, pauses=(60,))
    assert not (tmp_path / "data.tar.gz").exists()


def test_an_answer_from_an_open_connection_needs_a_checksum(site, tmp_path, monkeypatch):
    class Redirected:
        def open(self, request, timeout):
            return build_opener().open(site.url, timeout=timeout)

    monkeypatch.setattr(downloads, "build_opener", Redirected)
    with pytest.raises(DatasetError, match="anyone on the way can change the file, and no checksum is known"):
        fetch(RemoteFile("https://host/data.tar.gz"), tmp_path)
    assert fetch(RemoteFile("https://host/data.tar.gz", md5=MD5), tmp_path).read_bytes() == CONTENT


# The disk, other processes, the log


def test_a_file_that_will_not_fit_is_not_begun(site, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=7))
    with pytest.raises(DatasetError, match="307,200 bytes are missing and 7 bytes are free"):
        get(site, tmp_path)
    assert not (tmp_path / "data.tar.gz").exists()


def test_a_full_disk_keeps_the_part_and_says_so(site, tmp_path, monkeypatch):
    interrupted(site, tmp_path)
    with open("/dev/full", "r+b", buffering=0) as full:

        def fill(self, chunk):
            self._file = full
            append(self, chunk)

        append = PartialFile.append
        said = r"No space left on device; [\d,]+ bytes are free\); make room"
        with monkeypatch.context() as patched:
            patched.setattr(PartialFile, "append", fill)
            with pytest.raises(DatasetError, match=said):
                get(site, tmp_path, md5=MD5)
    assert get(site, tmp_path, md5=MD5).read_bytes() == CONTENT
    assert site.ranges_asked[-1] == f"bytes={HALF}-"


def test_a_folder_that_cannot_be_made_is_named(site, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match=f"{tmp_path / 'file' / 'data'}: this folder cannot be created"):
        get(site, tmp_path / "file" / "data")


def test_two_at_once_fetch_once(site, tmp_path, caplog):
    caplog.set_level(logging.INFO, "robust_transfer")
    code = (
        "import sys; from pathlib import Path\n"
        "from robust_transfer.datasets.fetching.downloads import RemoteFile, fetch\n"
        "fetch(RemoteFile(sys.argv[1]), Path(sys.argv[2]))"
    )
    with exclusively(tmp_path / ".data.tar.gz.part.lock", "this test"):
        other = start(code, site.url, tmp_path)
        threads = [threading.Thread(target=get, args=(site, tmp_path)) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(1.5)
        assert site.requests == []
    for thread in threads:
        thread.join(10)
    _, errors = other.communicate(timeout=10)
    assert other.returncode == 0, errors
    assert len(site.requests) == 1
    assert (tmp_path / "data.tar.gz").read_bytes() == CONTENT
    assert names(tmp_path) == {"data.tar.gz", ".data.tar.gz.verified"}


def test_who_has_a_lock_is_said_while_waiting(tmp_path):
    lock = tmp_path / "lock"
    code = (
        "import logging, sys; from pathlib import Path\n"
        "from robust_transfer.datasets.fetching.disk import exclusively\n"
        "logging.basicConfig(level='INFO')\n"
        "with exclusively(Path(sys.argv[1]), 'x.tar'): print('got it')"
    )
    with exclusively(lock, "x.tar"):
        other = start(code, lock)
        assert f"x.tar: waiting for process {os.getpid()} on" in first_line(other.stderr)
        assert other.poll() is None
    assert other.communicate(timeout=10)[0] == "got it\n"
    assert not lock.exists()


def test_progress_and_unknown_checksums_are_logged(site, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "robust_transfer")
    monkeypatch.setattr(disk, "PROGRESS_SECONDS", 0.0)
    get(site, tmp_path)
    assert "data.tar.gz: 307.2 kB of 307.2 kB, " in caplog.text
    assert "MB/s, 0 s left" in caplog.text
    assert f"no checksum is known of it; its sha256 is {SHA256}" in caplog.text
    assert json.loads((tmp_path / ".data.tar.gz.verified").read_text())["checksums"] == {"sha256": SHA256}
