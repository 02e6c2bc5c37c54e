"""A web page in place of a file is told by one function, and refused wherever files come in: downloads, files that were
put there by hand, archives and checkpoints."""

import codecs
from pathlib import Path

import pytest
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.fetching.archives import unpack
from robust_transfer.datasets.fetching.downloads import RemoteFile, fetch
from robust_transfer.datasets.fetching.web_pages import HEAD, MAY_HOLD, disguise
from robust_transfer.weights.pickles import CheckpointError, read_checkpoint

HTML, XML, JSON, POINTER = MAY_HOLD
MARKUP = "<!DOCTYPE html>\n<html><body>Sign in</body></html>"
PAGES = {
    "plain": (MARKUP.encode(), HTML),
    "upper case": (b"<HTML><BODY>SIGN IN</BODY></HTML>", HTML),
    "white space": (b"\r\n\t \n" + MARKUP.encode(), HTML),
    "byte order mark": (codecs.BOM_UTF8 + MARKUP.encode(), HTML),
    "byte order mark and white space": (codecs.BOM_UTF8 + b"\n " + MARKUP.encode(), HTML),
    "white space and byte order mark": (b"\n " + codecs.BOM_UTF8 + MARKUP.encode(), HTML),
    "two byte order marks": (codecs.BOM_UTF8 * 2 + MARKUP.encode(), HTML),
    "UTF-32": (codecs.BOM_UTF32_LE + MARKUP.encode("utf-32-le"), HTML),
    "UTF-32, the other end first": (codecs.BOM_UTF32_BE + MARKUP.encode("utf-32-be"), HTML),
    "JSON after a byte order mark": (codecs.BOM_UTF8 + b'{"error": "gone"}', JSON),
    "UTF-16": (codecs.BOM_UTF16_LE + MARKUP.encode("utf-16-le"), HTML),
    "UTF-16, the other end first": (codecs.BOM_UTF16_BE + MARKUP.encode("utf-16-be"), HTML),
    "comments": (b"<!-- saved from url -->\n<!--[if IE]> <html> <![endif]-->\n" + MARKUP.encode(), HTML),
    "a comment without end": (b"<!-- " + b"x" * 2 * HEAD + b" --><html>", HTML),
    "XML declaration": (b"<?xml version='1.0' encoding='UTF-8'?>\n<!DOCTYPE html PUBLIC '-//W3C'><html/>", HTML),
    "XML declaration and comment": (b"<?xml version='1.0'?><!-- x --><html xmlns='http://www.w3.org'>", HTML),
    "no html element": (b"<title>404 Not Found</title><h1>Not Found</h1>", HTML),
    "a script that leads elsewhere": (b"<script>location = '/login'</script>", HTML),
    "a redirection": (b'<meta http-equiv="refresh" content="0; url=/login">', HTML),
    "XML": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", XML),
    "XML without declaration": (b"<Error><Code>NoSuchKey</Code></Error>", XML),
    "XML of another kind": (b"<!DOCTYPE note SYSTEM 'note.dtd'><note>gone</note>", XML),
    "JSON": (b'{"error": "gated repository"}', JSON),
    "JSON over lines": (b'{\n  "status": 404\n}', JSON),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", POINTER),
}


@pytest.fixture(params=PAGES)
def page(request):
    return PAGES[request.param]


def test_a_page_is_told_by_its_beginning(page):
    content, kind = page
    assert disguise(content[:HEAD]) == disguise(content[:HEAD], "data.tar.gz") == kind


def test_a_page_that_is_asked_for_is_no_disguise():
    for kind, suffixes in MAY_HOLD.items():
        for content, found in PAGES.values():
            for suffix in suffixes:
                assert found != kind or disguise(content[:HEAD], f"Wanted{suffix.upper()}") is None
    assert disguise(MARKUP.encode(), "image.xml") == HTML


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b" \n",
        b"\x1f\x8b\x08",
        b"PK\x03\x04",
        b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n",
        b"\x80\x02}q\x00",
        b"images/<html>.jpg 3\n",
        b"<unk> 0\n<s> 1\n",
        b"<abstract> 5",
        b"< html is not its tag",
        b"{not json}",
        b"version 2 of the labels\n",
        "ÿØ".encode("utf-16"),
    ],
)
def test_what_files_begin_with_is_no_disguise(head):
    assert disguise(head) is None


def test_a_download_is_refused(page, tmp_path):
    content, kind = page
    (tmp_path / "sent").write_bytes(content)
    with pytest.raises(DatasetError, match=f"sends {kind} instead of data.tar.gz"):
        fetch(RemoteFile((tmp_path / "sent").as_uri(), name="data.tar.gz"), tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


def test_a_file_put_there_by_hand_is_refused(page, tmp_path):
    content, kind = page
    (tmp_path / "data.tar.gz").write_bytes(content)
    with pytest.raises(DatasetError, match=f"it is {kind}; move it away"):
        fetch(RemoteFile("https://host/data.tar.gz"), tmp_path)


def test_an_archive_is_refused(page, tmp_path):
    content, kind = page
    (tmp_path / "data.tar.gz").write_bytes(content)
    with pytest.raises(DatasetError, match=f"{kind}, not an archive; fetch it again"):
        unpack(tmp_path / "data.tar.gz", tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_checkpoint_is_refused(page, tmp_path: Path):
    content, kind = page
    for name in ("resnet18.ckpt", "model.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{name}: (is )?{kind}"):
            read_checkpoint(tmp_path / name)
