"""The store: outputs appear in one piece, one writer at a time, and a reader notices what is not as described."""

import json
import logging
import multiprocessing
import os
import re
import threading
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from robust_transfer import cli
from robust_transfer.stages import features
from robust_transfer.store import entry as store
from robust_transfer.store.entry import CARD, DRAFT, ENTRY, FINISHED, StoreError, open_entry


@pytest.fixture
def entry(tmp_path: Path) -> store.Entry:
    return make_entry(tmp_path / "store" / "features" / "a-1", {})


def make_entry(path: Path, inputs: dict[str, str]) -> store.Entry:
    path.mkdir(parents=True)
    described = {"stage": path.parent.name, "name": "a", "settings": {"dtype": "float16"}, "inputs": inputs}
    store.write_json(path / ENTRY, described)
    return open_entry(path)


def write(entry: store.Entry, content: str) -> None:
    with entry.writing() as draft:
        draft.file("data.bin").write_text(content)
        draft.facts = {"length": len(content)}
        draft.timing["images"] = 3


def test_outputs_and_card_appear_together(entry: store.Entry) -> None:
    write(entry, "hello")
    assert (entry.path / "data.bin").read_text() == "hello"
    assert entry.facts() == {"length": 5}
    assert entry.card()["files"]["data.bin"]["bytes"] == 5
    assert entry.card()["entry"] == "features/a-1"
    timing = json.loads((entry.path / "timing.json").read_text())
    assert timing["images"] == 3
    assert timing["seconds"] >= 0
    assert not (entry.path / DRAFT).exists()


def test_a_card_holds_no_times(entry: store.Entry) -> None:
    write(entry, "hello")
    first = (entry.path / CARD).read_bytes()
    write(entry, "hello")
    assert (entry.path / CARD).read_bytes() == first


def test_a_failed_write_leaves_the_old_outputs(entry: store.Entry) -> None:
    write(entry, "old")
    with pytest.raises(OSError, match="nowhere"), entry.writing() as draft:
        draft.file("data.bin").write_text(Path("nowhere").read_text())
    assert (entry.path / "data.bin").read_text() == "old"
    assert entry.facts() == {"length": 3}
    assert not (entry.path / DRAFT).exists()


def test_altered_and_missing_files_are_noticed(entry: store.Entry) -> None:
    write(entry, "hello")
    assert entry.file("data.bin").read_text() == "hello"
    (entry.path / "data.bin").write_text("jello")
    assert entry.file("data.bin", checksum=False)
    with pytest.raises(StoreError, match=r"data\.bin: its checksum .* is not the one .* store renew .*features/a-1"):
        entry.file("data.bin")
    (entry.path / "data.bin").write_text("hell")
    with pytest.raises(StoreError, match=r"4 bytes that are not the 5 bytes .* altered or cut short"):
        entry.file("data.bin", checksum=False)
    for folder in (entry.path, entry.path / FINISHED):
        (folder / "data.bin").unlink()
    with pytest.raises(StoreError, match=r"listed in card\.json but missing"):
        entry.file("data.bin")
    with pytest.raises(StoreError, match=r"not in .*card\.json, which lists data\.bin"):
        entry.file("other.bin")


def test_inputs_must_be_made_first(tmp_path: Path) -> None:
    made = make_entry(tmp_path / "store" / "datasets" / "d-1", {})
    reader = make_entry(tmp_path / "store" / "features" / "f-1", {"dataset": "datasets/d-1"})
    with pytest.raises(StoreError, match="not made yet"):
        reader.input("dataset")
    write(made, "x")
    assert reader.input("dataset").name == "d-1"
    with pytest.raises(StoreError, match="no input 'backbone'; it has dataset"):
        reader.input("backbone")


def test_an_entry_without_description_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="entries --write"):
        open_entry(tmp_path)


def test_a_damaged_card_is_named(entry: store.Entry) -> None:
    write(entry, "x")
    (entry.path / CARD).write_text('{"files": ')
    with pytest.raises(StoreError, match=r"card\.json: not JSON"):
        entry.card()


def _hold(path: Path, held: Event, done: Event) -> None:
    with open_entry(path).locked():
        held.set()
        done.wait(30)


def test_a_second_writer_waits_and_is_told_the_first(entry: store.Entry, caplog: pytest.LogCaptureFixture) -> None:
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(entry.path, held, done))
    holder.start()
    assert held.wait(30)
    told = rf"process {holder.pid} on .* is writing this entry"
    with pytest.raises(StoreError, match=told), entry.locked(wait=False):
        pass
    threading.Timer(0.2, done.set).start()
    with caplog.at_level(logging.INFO):
        write(entry, "x")
    assert done.is_set()
    assert re.search(f"{told}; waiting for it", caplog.text)
    holder.join()


def test_a_dead_writer_locks_nothing(entry: store.Entry) -> None:
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(entry.path, held, done))
    holder.start()
    assert held.wait(30)
    assert holder.pid is not None
    os.kill(holder.pid, 9)
    holder.join()
    write(entry, "x")


def test_what_a_killed_writer_left_is_no_output(entry: store.Entry) -> None:
    (entry.path / DRAFT).mkdir()
    (entry.path / DRAFT / "junk.bin").write_text("half")
    write(entry, "x")
    assert "junk.bin" not in entry.card()["files"]
    assert not (entry.path / "junk.bin").exists()


def test_what_a_writer_left_that_was_killed_over_its_card_is_cleared_away(entry: store.Entry) -> None:
    for name in ("timing.json", "card.json"):
        (entry.path / f".{name}.4711").write_text("{")
    write(entry, "hello")
    assert sorted(path.name for path in entry.path.iterdir()) == [
        FINISHED,
        ".lock",
        CARD,
        "data.bin",
        ENTRY,
        "timing.json",
    ]


def test_a_full_disk_is_told_without_a_traceback(
    entry: store.Entry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class SafetensorError(Exception):
        """As its library's, which is no OSError."""

    def run(entry: store.Entry, *, threads: int, device: str) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(features, "run", run)
    assert cli.main(["features", str(entry.path)]) == 1
    assert "the disk is full: I/O error: No space left on device" in caplog.text
    assert "Traceback" not in caplog.text
