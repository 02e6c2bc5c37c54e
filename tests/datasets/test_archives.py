"""Archives: what is unpacked is all of it, stays in its folder and within its bounds; else nothing is unpacked."""

import bz2
import gzip
import io
import logging
import lzma
import os
import shutil
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.fetching import archive_members, archive_writer, archives, disk
from robust_transfer.datasets.fetching.archives import unpack, unpack_class_archives
from robust_transfer.datasets.fetching.disk import exclusively
from support.kills import Process, kill_at
from support.processes import first_line, start

random = Random(0)
FILES = {
    "images/a/1.jpg": random.randbytes(3000),
    "images/a/2.jpg": b"",
    "images/b/1.jpg": random.randbytes(100),
    "images/b/größe.jpg": b"name",
    "labels.txt": b"a\nb\n" * 50,
}
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
}
KINDS = ("zip", *COMPRESSORS)


def tarred(*members, form=tarfile.PAX_FORMAT) -> bytes:
    """A tar of (name, content) or of (name, {attributes of TarInfo})."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                for key, value in content.items():
                    setattr(info, key, value)
                tar.addfile(info)
    return buffer.getvalue()


def zipped(*members, method=zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of (name, content) or of (name, (mode, content))."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members:
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type = name, method  # zipfile would mend the name
            mode, content = content if isinstance(content, tuple) else (stat.S_IFREG | 0o644, content)
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def packed(kind: str, files: dict[str, bytes] = FILES) -> bytes:
    return zipped(*files.items()) if kind == "zip" else COMPRESSORS[kind](tarred(*files.items()))


def put(folder: Path, content: bytes, name: str = "data.bin") -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / name).write_bytes(content)
    return folder / name


def files_in(folder: Path) -> dict[str, bytes]:
    """Regular files below a folder by path, without the stamps."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in found
        if not archive_members.OURS.fullmatch(path.name)
    }


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def unsynced(monkeypatch):
    """A sync waits for whatever else the machine is writing; no test cuts the power."""
    monkeypatch.setattr(os, "sync", lambda: None)


@pytest.fixture
def place(tmp_path):
    """Where an archive lies and is unpacked; `check` says that nothing appeared there or around."""
    outside = tmp_path / "outside.txt"
    outside.write_text("as it was")

    class Place:
        folder = tmp_path / "sets" / "one"

        def put(self, content: bytes, name: str = "data.bin") -> Path:
            return put(tmp_path / "downloads", content, name)

        def check(self) -> None:
            assert names(tmp_path) <= {"outside.txt", "downloads", "sets"}
            assert names(tmp_path / "downloads") == {"data.bin"}
            assert not self.folder.exists() or names(self.folder) == set()
            assert not self.folder.exists() or names(self.folder.parent) == {"one"}
            assert outside.read_text() == "as it was"
            assert outside.stat().st_nlink == 1

        def refuses(self, content: bytes, message: str, **options) -> None:
            archive = self.put(content)
            with pytest.raises(DatasetError, match=message) as caught:
                unpack(archive, self.folder, **options)
            assert str(archive) in str(caught.value)
            self.check()

    return Place()


# Genuine archives


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_out_as_it_went_in_whatever_its_name(place, kind):
    archive = place.put(packed(kind))
    unpack(archive, place.folder)
    assert files_in(place.folder) == FILES
    assert names(place.folder) == {"images", "labels.txt", ".data.bin.unpacked"}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_of_every_tar_format_come_out(place, form):
    name = "a" * 60 + "/" + "b" * 60 + ("" if form == tarfile.USTAR_FORMAT else "/" + "c" * 200) + ".jpg"
    unpack(place.put(tarred((name, b"x"), form=form)), place.folder)
    assert files_in(place.folder) == {name: b"x"}


LATIN = ("gr\udcf6ßer", b"Latin-1 in bytes"), ("café\udce9/x.jpg", b"in a folder"), ("b/\udcff", b"below")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_names_that_are_not_utf_8_come_out_and_are_known_again(place, form, monkeypatch, caplog):
    caplog.set_level("INFO", "robust_transfer")
    archive = place.put(tarred(*LATIN, form=form), "gr\udcf6ße.tar")
    unpack(archive, place.folder)
    assert files_in(place.folder) == dict(LATIN)
    assert caplog.text.encode()  # as the process writes it that collects the tests' reports
    monkeypatch.setattr(archives, "Writer", None)
    unpack(archive, place.folder)
    shutil.rmtree(place.folder / "café\udce9")
    with pytest.raises(TypeError):  # it is unpacked again
        unpack(archive, place.folder)


def test_class_archives_of_names_that_are_not_utf_8_come_out(place):
    content = tarred(("gr\udcf6n.tar", tarred(("1.jpg", b"1"))), form=tarfile.GNU_FORMAT)
    archive = place.put(content)
    for _ in range(2):
        unpack_class_archives(archive, place.folder)
    assert files_in(place.folder) == {"gr\udcf6n/1.jpg": b"1"}


def test_a_zip_whose_names_are_not_the_utf_8_that_it_says_is_named(place):
    content = zipped(("gr\u00fcn.jpg", b"1")).replace("\u00fc".encode(), b"\xff\xff")
    place.refuses(content, "a member whose name is not the UTF-8 that it is said to be")


@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "x/" * 20 + "y" * 400])
def test_names_too_long_for_the_file_system_are_not_told_to_make_room(place, name):
    place.refuses(tarred((name, b"1")), "the file system does not take this name .*under a shorter name")


@pytest.mark.parametrize("make", [tarred, zipped])
def test_names_in_messages_are_short_and_do_not_steer_the_terminal(place, make):
    for name in ("\x1b[2J\x1b]0;title\x07/../x", "../" + "x" * 30_000):
        archive = place.put(make((name, b"1")))
        with pytest.raises(DatasetError, match="leads out") as caught:
            unpack(archive, place.folder)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zips_of_every_method_come_out(place, method):
    unpack(place.put(zipped(*FILES.items(), method=method)), place.folder)
    assert files_in(place.folder) == FILES


def test_tars_of_other_tools_come_out(place, tmp_path):
    source = tmp_path / "downloads" / "source"
    for name, content in FILES.items():
        put((source / name).parent, content, Path(name).name)
    (source / "images" / "link").symlink_to("a/1.jpg")
    os.link(source / "images" / "a" / "1.jpg", source / "images" / "hard.jpg")
    for options in ("-cf", "-czf"):
        archive = tmp_path / "downloads" / "data.bin"
        subprocess.run(["tar", options, archive, "-C", source, "."], check=True)
        folder = place.folder / options
        unpack(archive, folder)
        assert files_in(folder) == FILES | {"images/hard.jpg": FILES["images/a/1.jpg"]}
        assert (folder / "images" / "link").read_bytes() == FILES["images/a/1.jpg"]


def test_detours_in_names_and_junk_of_macs_are_left_out(place):
    content = tarred(("./a//./1.jpg", b"1"), ("./", {"type": tarfile.DIRTYPE}), ("__MACOSX/a/._1.jpg", b"junk"))
    unpack(place.put(content), place.folder)
    assert files_in(place.folder) == {"a/1.jpg": b"1"}
    assert names(place.folder) == {"a", ".data.bin.unpacked"}


def test_links_within_the_archive_are_kept(place):
    content = tarred(
        ("a/link.jpg", {"type": tarfile.SYMTYPE, "linkname": "../b/1.jpg"}),
        ("a/hard.jpg", {"type": tarfile.LNKTYPE, "linkname": "b/1.jpg"}),
        ("alias", {"type": tarfile.SYMTYPE, "linkname": "b/"}),
        ("b/1.jpg", b"1"),
    )
    unpack(place.put(content), place.folder)
    assert (place.folder / "a" / "link.jpg").readlink() == Path("../b/1.jpg")
    assert (place.folder / "alias" / "1.jpg").read_bytes() == (place.folder / "a" / "link.jpg").read_bytes() == b"1"
    assert (place.folder / "a" / "hard.jpg").samefile(place.folder / "b" / "1.jpg")


def test_links_in_zips_are_kept(place):
    content = zipped(("a/link.jpg", (stat.S_IFLNK | 0o777, "../b/1.jpg")), ("b/1.jpg", b"1"))
    unpack(place.put(content), place.folder)
    assert (place.folder / "a" / "link.jpg").readlink() == Path("../b/1.jpg")


@pytest.mark.parametrize("make", ["tar", "zip"])
def test_permissions_are_ordinary(place, make):
    if make == "tar":
        content = tarred(("d", {"type": tarfile.DIRTYPE, "mode": 0}), ("d/x", b"1"), ("r", {"mode": 0o7777}))
    else:
        content = zipped(("d/x", b"1"), ("r", (stat.S_IFREG | 0o7777, b"")))
    unpack(place.put(content), place.folder)
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((place.folder / "r").stat().st_mode) == 0o666 & ~mask
    assert (place.folder / "d" / "x").read_bytes() == b"1"


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_wanted_is_kept(place, kind):
    archive = place.put(packed(kind))
    unpack(archive, place.folder, keep=("images/b/*", "*.txt"))
    assert set(files_in(place.folder)) == {"images/b/1.jpg", "images/b/größe.jpg", "labels.txt"}
    with pytest.raises(DatasetError, match="other parts of it are wanted; move its content away"):
        unpack(archive, place.folder)


def test_wanting_what_is_not_there_is_an_error(place):
    place.refuses(packed("tar.gz"), r"no file in it matches image/\*", keep=("image/*",))


def test_archives_within_stay_packed(place):
    inner = packed("zip")
    unpack(place.put(tarred(("inner.zip", inner))), place.folder)
    assert files_in(place.folder) == {"inner.zip": inner}


def test_names_that_differ_in_case_are_two_where_the_disk_tells_them_apart(place, tmp_path):
    (tmp_path / "downloads").mkdir()
    content = tarred(("a/x.jpg", b"1"), ("a/X.jpg", b"2"))
    (tmp_path / "downloads" / "data.bin").touch()
    if (tmp_path / "Downloads").exists():
        place.refuses(content, "is there twice")
    else:
        unpack(place.put(content), place.folder)
        assert files_in(place.folder) == {"a/x.jpg": b"1", "a/X.jpg": b"2"}


# Hostile archives: (name, attributes)

SYMLINK, HARDLINK = {"type": tarfile.SYMTYPE}, {"type": tarfile.LNKTYPE}
FINE, LATER = ("fine.jpg", b"1"), ("later.jpg", b"2")
BAD_NAMES = {
    "../x": "leads out of the folder",
    "a/../../x": "leads out of the folder",
    "a/../b": "leads out of the folder",
    "..": "leads out of the folder",
    "/abs": "has an absolute path",
    "//abs": "has an absolute path",
    "C:/x": "has an absolute path",
    "c:x": "has an absolute path",
    "..\\x": "has a backslash or a NUL",
    "a\\b": "has a backslash or a NUL",
    "a/" * 101 + "x": "more than 100 folders deep",
    ".other.tar.unpacked": "has a name that marks what is unpacked",
    ".data.bin.moving/stamp.json": "has a name that marks what is unpacked",
}
BAD_LINKS = [
    ("link", "../outside.txt"),
    ("link", "../../outside.txt"),
    ("link", "/etc/passwd"),
    ("link", ".."),
    ("a/link", "../../one/fine.jpg"),
    ("a/link", "x/../../../outside.txt"),
    ("a/link", "..\\x"),
]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("make", [tarred, zipped])
def test_names_that_leave_the_folder_are_refused(place, make, name):
    place.refuses(make(FINE, (name, b"evil"), LATER), BAD_NAMES[name])


def test_folders_that_leave_the_folder_are_refused(place):
    place.refuses(tarred(FINE, ("../x", {"type": tarfile.DIRTYPE})), "leads out of the folder")
    place.refuses(zipped(FINE, ("../x/", b"")), "leads out of the folder")


def test_a_nul_in_a_name_is_refused(place):
    place.refuses(zipped(FINE, ("a\0../x", b"evil")), "has a backslash or a NUL")
    place.refuses(tarred(FINE, ("x", {"pax_headers": {"path": "a\0b"}})), "has a backslash or a NUL")


@pytest.mark.parametrize(("name", "target"), BAD_LINKS)
@pytest.mark.parametrize("kind", ["symlink", "hardlink", "zip"])
def test_links_out_of_the_folder_are_refused(place, kind, name, target):
    if kind == "zip":
        content = zipped(FINE, (name, (stat.S_IFLNK | 0o777, target)))
    else:
        content = tarred(FINE, (name, (SYMLINK if kind == "symlink" else HARDLINK) | {"linkname": target}))
    place.refuses(content, "is a link out of the folder, to")


def test_links_by_way_of_other_links_are_refused(place):
    """Taken by their letters, `way/..` is where it should be; followed, it is not."""
    content = tarred(
        ("a/b/c/x", b"1"),
        ("way", SYMLINK | {"linkname": "a"}),
        ("a/b/up", SYMLINK | {"linkname": "../../way"}),
        ("a/out", SYMLINK | {"linkname": "b/up/../../outside.txt"}),
    )
    place.refuses(content, "'a/out' is a link out of the folder")


@pytest.mark.parametrize("kind", ["symlink", "hardlink", "zip"])
def test_links_without_a_target_are_refused_as_such(place, kind):
    if kind == "zip":
        content = zipped(FINE, ("link", (stat.S_IFLNK | 0o777, "")))
    else:
        content = tarred(FINE, ("link", (SYMLINK if kind == "symlink" else HARDLINK) | {"linkname": ""}))
    place.refuses(content, "'link' is a link to nothing, since its target is empty.*unpack it by hand")


@pytest.mark.parametrize("target", ["nothing", "link", "a/link", ".", ""])
def test_links_to_nothing_or_round_in_circles_are_refused(place, target):
    place.refuses(tarred(FINE, ("link", SYMLINK | {"linkname": target})), "'link'")


def test_hardlinks_to_nothing_to_folders_and_to_links_are_refused(place):
    for target in ("nothing", "a", "link"):
        content = tarred(
            ("a/1.jpg", b"1"), ("link", SYMLINK | {"linkname": "a"}), ("h", HARDLINK | {"linkname": target})
        )
        place.refuses(content, "'h' is a link to nothing in the archive")


@pytest.mark.parametrize("order", [1, -1])
def test_nothing_is_written_through_a_link(place, order):
    in_tar, in_zip = ("d", SYMLINK | {"linkname": "a"}), ("d", (stat.S_IFLNK | 0o777, "a"))
    through = ("d/evil.jpg", b"evil")
    place.refuses(tarred(("a/1.jpg", b"1"), *(in_tar, through)[::order]), "is there twice")
    place.refuses(zipped(("a/1.jpg", b"1"), *(in_zip, through)[::order]), "is there twice")


def test_a_link_that_lies_there_already_is_not_followed(place, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    place.folder.mkdir(parents=True)
    (place.folder / "images").symlink_to(elsewhere)
    with pytest.raises(DatasetError, match=r"holds 'images', and .*one/images is there already; move it away"):
        unpack(place.put(packed("tar.gz")), place.folder)
    assert names(elsewhere) == set()
    assert names(place.folder) == {"images"}


@pytest.mark.parametrize("draft", [".data.bin.unpacking", ".data.bin.moving"])
def test_a_link_in_place_of_our_own_folder_is_not_followed(place, tmp_path, draft):
    elsewhere = tmp_path / "elsewhere"
    put(elsewhere, b"mine", "kept.txt")
    place.folder.mkdir(parents=True)
    (place.folder / draft).symlink_to(elsewhere)
    with pytest.raises((DatasetError, OSError)):
        unpack(place.put(packed("tar")), place.folder)
    assert files_in(elsewhere) == {"kept.txt": b"mine"}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (tarfile.CHRTYPE, "is a device"),
        (tarfile.BLKTYPE, "is a device"),
        (tarfile.FIFOTYPE, "is a named pipe"),
        (b"Z", "is of a kind unknown here, b'Z'"),
    ],
)
def test_devices_and_pipes_are_refused(place, kind, message):
    place.refuses(tarred(FINE, ("odd", {"type": kind})), f"'odd' {message}")


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_devices_and_pipes_in_zips_are_refused(place, kind):
    place.refuses(zipped(FINE, ("odd", (kind | 0o644, b""))), "'odd' is a device, a named pipe or a socket")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("make", [tarred, zipped])
def test_two_members_of_one_name_are_refused(place, make):
    place.refuses(make(FINE, ("./fine.jpg", b"2")), r"'\./fine.jpg' is there twice")
    place.refuses(make(FINE, ("fine.jpg/x", b"2")), "is there twice")
    place.refuses(make(("d/x", b"2"), ("d", b"2")), "is there twice")


# Bombs


@pytest.mark.parametrize("kind", KINDS)
def test_what_swells_beyond_its_limit_is_refused(place, kind):
    content = packed(kind, {"zeros": bytes(3_000_000)})
    place.refuses(content, r"unpack to more than 2,000,000, which no archive of images does", limit_bytes=2_000_000)
    unpack(place.put(content), place.folder, limit_bytes=3_100_000)


def test_the_limit_is_of_the_size_unless_told(place, monkeypatch):
    monkeypatch.setattr(archive_members, "ALLOWANCE", 1000)
    content = packed("tar.xz", {"zeros": bytes(10**6)})
    place.refuses(content, f"more than {20 * len(content) + 1000:,},")


def test_lies_about_sizes_do_not_help(place):
    """zipfile trusts the directory's size; the bytes that come are what is counted."""
    content = bytearray(zipped(("zeros", bytes(3_000_000))))
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = content.index(mark) + offset
        content[at : at + 4] = (10).to_bytes(4, "little")
    place.refuses(bytes(content), "damaged or cut short", limit_bytes=2_000_000)


def test_members_that_share_their_bytes_count_each(place):
    """A zip whose directory names one member many times, as the smallest bombs do."""
    content = zipped(*[(f"zeros{i}", bytes(100_000)) for i in range(40)])
    place.refuses(content, "more than 2,000,000", limit_bytes=2_000_000)


def test_what_follows_the_end_of_a_tar_counts_too(place):
    content = gzip.compress(tarred(FINE) + bytes(3_000_000))
    place.refuses(content, "more than 2,000,000", limit_bytes=2_000_000)


def test_holes_of_sparse_files_count(place):
    header = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "hole"}
    header |= {"GNU.sparse.size": "999999999999", "GNU.sparse.map": "0,1", "GNU.sparse.numblocks": "1"}
    place.refuses(tarred(("hole", {"pax_headers": header})), "more than 2,000,000|damaged", limit_bytes=2_000_000)


def test_huge_headers_are_refused(place):
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
        info = tarfile.TarInfo("header")
        info.type, info.size = kind, 200_000
        content = tarred(FINE)[:1024] + info.tobuf() + bytes(200_192)
        place.refuses(content, "has a header of 200,000 bytes")


def test_sizes_that_lead_backwards_are_refused(place):
    for content in (b"", b"x" * 600):
        forged = tarred(FINE, ("x", {"pax_headers": {"size": "-1024"}}), ("y", content))
        place.refuses(forged, "has a size that leads backwards")
        place.refuses(gzip.compress(forged), "has a size that leads backwards")


def test_chains_of_headers_are_refused(place):
    info = tarfile.TarInfo("header")
    info.type, info.size = tarfile.XGLTYPE, 0
    place.refuses(info.tobuf() * 5000, "damaged|neither zip nor tar")


def test_the_number_of_members_is_bounded(place, monkeypatch):
    monkeypatch.setattr(archive_members, "MEMBERS", 20)
    for make in (tarred, zipped):
        place.refuses(make(*[(f"{i}.jpg", b"") for i in range(30)]), "more than 20 files")
        place.refuses(make(("a/" * 25 + "x", b"")), "more than 20 files")


# Damage


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.8, 0.99])
def test_truncated_archives_are_refused(place, kind, share):
    content = packed(kind, {f"{i}.jpg": random.randbytes(700) for i in range(20)})
    length = 20 * (512 + 1024) if kind == "tar" else len(content)  # a tar ends in a long empty block
    place.refuses(content[: int(length * share)], "damaged or cut short|neither zip nor tar|holds no tar")


def test_a_tar_cut_between_two_members_is_refused(place):
    content = tarred(*[(f"{i}.jpg", b"x" * 512) for i in range(5)])
    place.refuses(content[: 3 * 1024], "damaged or cut short .no end mark.; fetch it again")
    place.refuses(content[: 3 * 1024 + 100], "damaged or cut short")


def test_a_damaged_header_is_not_the_end(place):
    content = bytearray(tarred(*[(f"{i}.jpg", b"x" * 512) for i in range(5)]))
    content[2 * 1024 + 5] ^= 0xFF
    place.refuses(bytes(content), "damaged or cut short")
    place.refuses(gzip.compress(content), "damaged or cut short")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_flipped_bits_are_seen_where_there_are_checksums(place, kind):
    content = bytearray(packed(kind, {"noise.jpg": random.randbytes(20_000)}))
    content[len(content) // 2] ^= 1
    place.refuses(bytes(content), "damaged or cut short")


def test_a_tar_without_an_end_mark_is_whole_where_the_compression_says_so(place):
    unpack(place.put(gzip.compress(tarred(FINE)[:1024])), place.folder)
    assert files_in(place.folder) == {"fine.jpg": b"1"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>quota exceeded</html>", "an HTML page, not an archive; fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not an archive"),
        (b"", "empty, not an archive"),
        (b"hello", "neither zip nor tar"),
        (b"\xff\xd8\xff" * 1000, "neither zip nor tar"),
        (gzip.compress(b"not a tar" * 1000, mtime=0), "a gzip file that holds no tar"),
        (b"PK\x03\x04" + bytes(100), "damaged or cut short"),
        (bytes(10_240), "no file in it"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(100), r"a 7z archive, a format that is not read here; unpack it \(`7z x data"),
        (b"Rar!\x1a\x07\x00" + bytes(100), "a RAR archive, .*unrar x data.bin.*pack what it held again as tar or zip"),
        (b"Rar!\x1a\x07\x01\x00" + bytes(100), "a RAR archive, a format that is not read here"),
        (b"\x28\xb5\x2f\xfd" + bytes(100), "compressed by zstd, .*zstd -dc data.bin"),
        (b"\x1f\x9d\x90" + bytes(100), "compressed by compress, a format"),
        (b"LZIP\x01" + bytes(100), "compressed by lzip, a format"),
        (lzma.compress(b"x" * 100, lzma.FORMAT_ALONE), "compressed by lzma, a format"),
        (b"!<arch>\ndebian-binary" + bytes(100), "an ar archive, a format"),
        (b"070701" + bytes(104), "a cpio archive, a format"),
        (b"PK\x07\x08PK\x03\x04" + bytes(100), "the first part of a split zip"),
    ],
)
def test_what_is_no_archive_is_named(place, content, message):
    place.refuses(content, message)


def test_an_archive_that_is_not_there_is_named(place, tmp_path):
    with pytest.raises(DatasetError, match="no such file; put the archive there"):
        unpack(tmp_path / "downloads" / "data.bin", place.folder)
    assert not place.folder.exists()


def test_encrypted_zips_are_named(place):
    content = bytearray(zipped(FINE))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    place.refuses(bytes(content), "is encrypted")


def test_unpacking_bytes_at_random_never_leaves_anything(place):
    """Whatever the standard library raises on damage is told as damage."""
    for seed in range(60):
        noise = Random(seed)
        content = bytearray(packed(KINDS[seed % len(KINDS)]))
        for _ in range(noise.choice((1, 5, 50))):
            content[noise.randrange(len(content))] = noise.randrange(256)
        archive = place.put(bytes(content))
        try:
            unpack(archive, place.folder)
        except DatasetError:
            place.check()
        shutil.rmtree(place.folder, ignore_errors=True)


# All or nothing, once


def test_a_second_call_returns_at_once_also_without_the_archive(place, monkeypatch):
    archive = place.put(packed("tar.gz"))
    unpack(archive, place.folder)
    monkeypatch.setattr(archives, "exclusively", None)  # were it called, it would fail
    unpack(archive, place.folder)
    os.utime(archive, (1, 1))
    unpack(archive, place.folder)
    archive.unlink()
    unpack(archive, place.folder)
    assert files_in(place.folder) == FILES


def test_another_archive_of_the_name_is_not_taken_for_it(place):
    unpack(place.put(packed("tar")), place.folder)
    with pytest.raises(DatasetError, match="it has changed since"):
        unpack(place.put(packed("tar", FILES | {"labels.txt": b"c\nd\n" * 50})), place.folder)
    assert files_in(place.folder) == FILES


def test_content_that_was_moved_away_is_unpacked_again(place):
    archive = place.put(packed("zip"))
    unpack(archive, place.folder)
    shutil.rmtree(place.folder / "images")
    with pytest.raises(DatasetError, match=r"labels.txt is there already"):
        unpack(archive, place.folder)
    (place.folder / "labels.txt").unlink()
    unpack(archive, place.folder)
    assert files_in(place.folder) == FILES


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_there_is_never_overwritten(place, kind):
    put(place.folder, b"mine", "labels.txt")
    with pytest.raises(DatasetError, match=r"holds 'labels.txt', and .* is there already; move it away"):
        unpack(place.put(packed(kind)), place.folder)
    assert files_in(place.folder) == {"labels.txt": b"mine"}


def test_two_archives_may_share_a_folder(place):
    unpack(place.put(tarred(("images/1.jpg", b"1")), "images.tar"), place.folder)
    unpack(place.put(zipped(("labels.txt", b"1")), "labels.zip"), place.folder)
    assert files_in(place.folder) == {"images/1.jpg": b"1", "labels.txt": b"1"}


@pytest.mark.parametrize("calls", range(1, 12))  # five files, the list of names, the sync, three moves, the stamp
def test_stopped_at_any_step_it_goes_on_and_ends_the_same(place, monkeypatch, calls):
    """Raise at the n-th renaming, file or sync, without any cleaning up, as kill -9 does."""

    class Stopped(BaseException):
        pass

    left = calls

    def stopping(function):
        def call(*args, **kwargs):
            nonlocal left
            left -= 1
            if left == 0:
                raise Stopped
            return function(*args, **kwargs)

        return call

    archive = place.put(packed("tar.gz"))
    with monkeypatch.context() as patched:
        patched.setattr(archive_writer, "_created", stopping(archive_writer._created))
        patched.setattr(os, "sync", stopping(os.sync))
        for name in ("rename", "replace"):
            patched.setattr(Path, name, stopping(getattr(Path, name)))
        patched.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
        try:
            unpack(archive, place.folder)
        except Stopped:
            for name in names(place.folder) - {"images", "labels.txt"}:
                assert archive_members.OURS.fullmatch(name)
            whole = {name: FILES[name] for name in FILES if name.split("/")[0] in names(place.folder)}
            assert {k: v for k, v in files_in(place.folder).items() if not k.startswith(".")} == whole
    assert left == 0
    unpack(archive, place.folder)
    assert files_in(place.folder) == FILES
    assert names(place.folder) == {"images", "labels.txt", ".data.bin.unpacked"}


def test_an_empty_remainder_is_not_taken_for_the_content(place, monkeypatch):
    """Left where a process was stopped after its last move, and the content was moved away since."""
    archive = place.put(packed("tar.gz"))
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
        unpack(archive, place.folder)
    assert names(place.folder) == {"images", "labels.txt", ".data.bin.unpacked", ".data.bin.moving"}
    shutil.rmtree(place.folder / "images")
    (place.folder / "labels.txt").unlink()
    unpack(archive, place.folder)
    assert files_in(place.folder) == FILES
    assert names(place.folder) == {"images", "labels.txt", ".data.bin.unpacked"}


def test_killed_while_unpacking_it_starts_clean(place, tmp_path):
    """kill -9 of a process that is in the middle of an archive."""
    archive = place.put(tarred(*[(f"d{i % 7}/{i}.jpg", b"x" * 2000) for i in range(5000)]))
    draft = place.folder / ".data.bin.unpacking" / "content"
    other = Process(lambda: unpack(archive, place.folder), tmp_path / "log")
    assert kill_at(other, (draft / "d1").exists)
    assert draft.exists()
    assert files_in(place.folder).keys() == {name for name in files_in(place.folder) if name.startswith(".data.bin.")}
    unpack(archive, place.folder)
    assert len(files_in(place.folder)) == 5000
    assert names(place.folder) == {*(f"d{i}" for i in range(7)), ".data.bin.unpacked"}


def test_the_remains_of_another_archive_stop_it(place):
    archive = place.put(packed("tar"))
    unpack(archive, place.folder)
    moving = place.folder / ".data.bin.moving"
    (moving / "content").mkdir(parents=True)
    (place.folder / ".data.bin.unpacked").rename(moving / "stamp.json")
    with pytest.raises(
        DatasetError, match=r"left by unpacking another data.bin, which was interrupted; remove it, and move"
    ):
        unpack(place.put(packed("zip")), place.folder)


def test_a_full_disk_is_told_and_leaves_nothing(place, monkeypatch):
    def full(path):
        return open("/dev/full", "wb", buffering=0)

    monkeypatch.setattr(archive_writer, "_created", full)
    place.refuses(packed("tar.gz"), r"member 'images/a/1.jpg': .*No space left on device; [\d,]+ bytes are free")


def test_two_at_once_unpack_once(place):
    archive = place.put(packed("tar.gz"))
    code = (
        "import logging, sys; from pathlib import Path\n"
        "from robust_transfer.datasets.fetching.archives import unpack\n"
        "logging.basicConfig(level='INFO')\n"
        "unpack(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    place.folder.mkdir(parents=True)
    with exclusively(place.folder / ".data.bin.unpacking.lock", "a test"):
        others = [start(code, archive, place.folder) for _ in range(2)]
        for other in others:
            assert f"waiting for process {os.getpid()}" in first_line(other.stderr)
    said = "".join(other.communicate(timeout=20)[1] for other in others)
    assert [other.returncode for other in others] == [0, 0]
    assert said.count("5 files in") == 1
    assert files_in(place.folder) == FILES


def test_progress_is_logged(place, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "robust_transfer")
    monkeypatch.setattr(disk, "PROGRESS_SECONDS", 0.0)
    unpack(place.put(packed("zip")), place.folder)
    assert "data.bin: 5 files unpacked, 3.3 kB, " in caplog.text


# Archives of one archive a class

CLASSES = {f"n0144076{i}": {f"n0144076{i}_{j}.JPEG": random.randbytes(900) for j in range(4)} for i in range(5)}
UNPACKED = {f"{name}/{file}": content for name, files in CLASSES.items() for file, content in files.items()}


def by_class(classes: dict[str, dict[str, bytes]] = CLASSES) -> bytes:
    return tarred(*[(f"{name}.tar", tarred(*files.items())) for name, files in classes.items()])


@pytest.mark.parametrize("compress", COMPRESSORS.values())
def test_class_archives_become_class_folders(place, compress):
    archive = place.put(compress(by_class()))
    unpack_class_archives(archive, place.folder)
    assert files_in(place.folder) == UNPACKED
    assert names(place.folder) == {*CLASSES, ".data.bin.unpacked"}
    archive.unlink()
    unpack_class_archives(archive, place.folder)


def test_classes_that_are_there_are_passed_over(place):
    content = by_class()
    at = content.index(b"n01440763.tar")
    archive = place.put(content[: at + 2000])
    with pytest.raises(DatasetError, match=r"data.bin/n01440763.tar: .*unexpected end of data.; fetch it again"):
        unpack_class_archives(archive, place.folder)
    assert names(place.folder) == set(list(CLASSES)[:3])
    marks = {path: path.stat().st_ino for path in place.folder.rglob("*.JPEG")}
    unpack_class_archives(place.put(content), place.folder)
    assert files_in(place.folder) == UNPACKED
    assert all(path.stat().st_ino == inode for path, inode in marks.items())


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("n1.tar", tarred(("../x", b"evil")))], r"n1.tar: its member '\.\./x' leads out"),
        ([("../n1.tar", tarred(FINE))], "leads out of the folder"),
        ([("a/n1.tar", tarred(FINE))], "is not the tar of a class"),
        ([("readme.txt", b"hello")], "'readme.txt' is not the tar of a class, <class>.tar"),
        ([(".tar", tarred(FINE))], "is not the tar of a class"),
        ([("...tar", tarred(FINE))], "is not the tar of a class"),
        ([("n1.tar", SYMLINK | {"linkname": "/etc/passwd"})], "is not the tar of a class"),
        ([("n1.tar", tarred(("s", SYMLINK | {"linkname": "../../outside.txt"})))], "is a link out of the folder"),
        ([("n1.tar", b"hello" * 300)], "n1.tar: not a tar"),
        ([("n1.tar", tarred())], "no file in it"),
        ([("n1.tar", tarred(("x", bytes(3_000_000))))], "more than 2,000,000"),
        ([("d", {"type": tarfile.DIRTYPE})], "is not the tar of a class"),
        ([], "holds no class archives"),
    ],
)
def test_hostile_class_archives_are_refused(place, members, message):
    with pytest.raises(DatasetError, match=message):
        unpack_class_archives(place.put(tarred(*members)), place.folder, limit_bytes=2_000_000)
    place.check()


def test_a_class_that_comes_twice_is_refused(place):
    content = tarred(("n1.tar", tarred(FINE)), ("./n1.tar", tarred(("other.jpg", b"2"))))
    with pytest.raises(DatasetError, match="is there twice"):
        unpack_class_archives(place.put(content), place.folder)
    assert files_in(place.folder) == {"n1/fine.jpg": b"1"}
