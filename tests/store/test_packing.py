"""Export and adopt: a store arrives whole or not at all, and what is there is never replaced."""

import hashlib
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from robust_transfer import cli
from robust_transfer.store import adopting
from robust_transfer.store.adopting import adopt
from robust_transfer.store.entry import CARD, ENTRY, FINISHED, Entry, StoreError, open_entry, write_json
from robust_transfer.store.packing import MANIFEST, export
from robust_transfer.store.upkeep import faults
from support.kills import locked_elsewhere


def made(root: Path, stage: str, content: str = "hello", **inputs: str) -> Entry:
    path = root / "store" / stage / "a-1"
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / ENTRY, {"stage": stage, "name": "a", "settings": {}, "inputs": inputs})
    entry = open_entry(path)
    with entry.writing() as draft:
        draft.file("data.bin").write_text(content)
    (path / f"{stage}.log").write_text("a log")
    return entry


@pytest.fixture
def entries(tmp_path: Path) -> list[Path]:
    """Two finished entries, one made from the other, below `here`."""
    here = tmp_path / "here"
    paths = [made(here, "datasets").path, made(here, "pretraining", "weights", source="datasets/a-1").path]
    (here / "results" / "mine" / ".made").mkdir(parents=True)
    (here / "results" / "mine" / "results.parquet").write_text("a table")
    (here / "results" / "mine" / ".made" / "results.json").write_text("{}")
    return paths


def files(folder: Path) -> dict[str, bytes]:
    """Contents by path, without locks."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.parametrize("name", ["packed", "packed.tar", "packed.tar.gz"])
def test_what_is_exported_and_adopted_is_the_same(name: str, entries: list[Path], tmp_path: Path) -> None:
    here, there, pack = tmp_path / "here", tmp_path / "there", tmp_path / name
    manifest = export(entries, pack, here / "results" / "mine")
    assert "store/pretraining/a-1/pretraining.log" in manifest["files"]
    adopted = adopt(pack, there / "store", there / "results")
    assert adopted.new == ["datasets/a-1", "pretraining/a-1"]
    assert files(there) == files(here)
    for path in entries:
        place = there / path.relative_to(here)
        assert faults(place) == []
        assert (place / "data.bin").samefile(place / FINISHED / "data.bin")  # links, as a job makes them
        assert open_entry(place).publish_finished()
    again = adopt(pack, there / "store", None)
    assert (again.new, again.same) == ([], ["datasets/a-1", "pretraining/a-1"])


def test_an_existing_target_and_unfinished_entries_are_refused(entries: list[Path], tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    with pytest.raises(StoreError, match="pack: is there already"):
        export(entries, tmp_path / "pack")
    unfinished = tmp_path / "here" / "store" / "datasets" / "b-2"
    unfinished.mkdir()
    shutil.copy(entries[0] / ENTRY, unfinished)
    with pytest.raises(StoreError, match="b-2: not finished"):
        export([*entries, unfinished], tmp_path / "pack.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "pack"]


def test_a_damaged_entry_is_not_exported(entries: list[Path], tmp_path: Path) -> None:
    (entries[1] / "data.bin").write_text("weighty")
    with pytest.raises(StoreError, match=r"data\.bin: not as card\.json describes; .*store renew"):
        export(entries, tmp_path / "pack.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def altered(pack: Path) -> None:
    (pack / "store" / "pretraining" / "a-1" / FINISHED / "data.bin").write_text("w3ights")


def altered_with_its_manifest(pack: Path) -> None:
    altered(pack)
    described = json.loads((pack / MANIFEST).read_text())
    name = f"store/pretraining/a-1/{FINISHED}/data.bin"
    described["files"][name]["sha256"] = hashlib.sha256(b"w3ights").hexdigest()
    (pack / MANIFEST).write_text(json.dumps(described))


def lost(pack: Path) -> None:
    (pack / "store" / "pretraining" / "a-1" / FINISHED / CARD).unlink()


def lost_with_its_manifest(pack: Path) -> None:
    lost(pack)
    described = json.loads((pack / MANIFEST).read_text())
    del described["files"][f"store/pretraining/a-1/{FINISHED}/{CARD}"]
    (pack / MANIFEST).write_text(json.dumps(described))


def cut_short(pack: Path) -> None:
    (pack / MANIFEST).unlink()


def of_later(pack: Path) -> None:
    (pack / MANIFEST).write_text(json.dumps({"format": 2, "files": {}}))


def another(pack: Path) -> None:
    (pack / "store" / "pretraining" / "a-1" / "another").write_text("?")


def elsewhere(pack: Path) -> None:
    (pack / "workflow").mkdir()
    (pack / "workflow" / "robust.py").write_text("?")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (altered, r"data\.bin: damaged; nothing was adopted"),
        (altered_with_its_manifest, r"pretraining/a-1: not as its card\.json describes: data\.bin"),
        (lost, r"card\.json: missing; nothing was adopted"),
        (lost_with_its_manifest, r"pretraining/a-1: has no card\.json"),
        (cut_short, r"no readable manifest\.json, so it was not exported, or cut short"),
        (of_later, "in format 2, and this version reads 1"),
        (another, "another: not in its manifest"),
        (elsewhere, r"holds 'workflow/robust\.py', which no exported store does"),
    ],
)
def test_a_pack_that_is_not_sound_leaves_nothing(damage, said, entries: list[Path], tmp_path: Path) -> None:
    export(entries, tmp_path / "pack")
    damage(tmp_path / "pack")
    with pytest.raises(StoreError, match=said):
        adopt(tmp_path / "pack", tmp_path / "there", tmp_path / "results")
    assert files(tmp_path / "there") == {}
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_an_archive_that_is_cut_short_leaves_nothing(
    suffix: str, part: float, entries: list[Path], tmp_path: Path
) -> None:
    pack = tmp_path / f"pack{suffix}"
    export(entries, pack)
    content = pack.read_bytes()
    end = len(content.rstrip(b"\0")) if suffix == ".tar" else len(content)
    pack.write_bytes(content[: int(part * end)])
    with pytest.raises(StoreError, match="nothing was adopted"):
        adopt(pack, tmp_path / "there", None)
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "store/datasets/../evil", "store/datasets/a-1/../../evil"])
def test_names_that_leave_the_store_are_refused(name: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "pack.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(StoreError, match="which no exported store does"):
        adopt(tmp_path / "pack.tar", tmp_path / "there", None)


def test_links_in_an_archive_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "pack.tar", "w") as archive:
        link = tarfile.TarInfo("store/datasets/a-1/entry.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(StoreError, match="which is no file"):
        adopt(tmp_path / "pack.tar", tmp_path / "there", None)


def test_what_is_there_is_kept(entries: list[Path], tmp_path: Path) -> None:
    there = tmp_path / "there"
    mine = made(there, "pretraining", "other weights", source="datasets/a-1")
    export(entries, tmp_path / "pack", tmp_path / "here" / "results" / "mine")
    adopted = adopt(tmp_path / "pack", there / "store", there / "results")
    assert (adopted.new, adopted.other) == (["datasets/a-1"], ["pretraining/a-1"])
    assert mine.file("data.bin").read_text() == "other weights"
    with pytest.raises(StoreError, match="mine: is there already"):
        adopt(tmp_path / "pack", there / "store", there / "results")
    assert adopt(tmp_path / "pack", there / "store", None).same == ["datasets/a-1"]


def test_an_entry_that_is_being_written_stops_all(entries: list[Path], tmp_path: Path) -> None:
    export(entries, tmp_path / "pack")
    place = tmp_path / "there" / "pretraining" / "a-1"
    place.mkdir(parents=True)
    shutil.copy(entries[1] / ENTRY, place)
    with (
        locked_elsewhere(place) as pid,
        pytest.raises(StoreError, match=rf"a-1: process {pid} on .* is writing this entry"),
    ):
        adopt(tmp_path / "pack", tmp_path / "there", None)
    assert not (tmp_path / "there" / "datasets").exists()
    assert adopt(tmp_path / "pack", tmp_path / "there", None).new == ["datasets/a-1", "pretraining/a-1"]


def test_an_interrupted_adoption_is_finished_by_the_next(
    entries: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two entries: what has come is whole, and the same command goes on."""
    export(entries, tmp_path / "pack")
    original = adopting._place
    pid = os.fork()
    if not pid:
        monkeypatch.setattr(
            adopting, "_place", lambda path, place: os._exit(9) if "pre" in str(place) else original(path, place)
        )
        adopt(tmp_path / "pack", tmp_path / "there", None)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert faults(tmp_path / "there" / "datasets" / "a-1") == []
    assert not (tmp_path / "there" / "pretraining").exists()
    adopted = adopt(tmp_path / "pack", tmp_path / "there", None)
    assert (adopted.new, adopted.same) == (["pretraining/a-1"], ["datasets/a-1"])


def test_by_the_command_line(
    entries: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "here")
    assert cli.main(["store", "export", "../pack.tar"]) == 0
    assert cli.main(["store", "export", "../one", "datasets a-1"]) == 0
    monkeypatch.chdir(tmp_path)
    assert cli.main(["store", "adopt", "pack.tar"]) == 0
    assert cli.main(["store", "adopt", "one"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("../pack.tar: 2 entries, ")
    assert said[2].startswith("../one: 1 entries, ")
    assert said[4:] == ["2 entries adopted, 0 were there", "0 entries adopted, 1 were there"]
