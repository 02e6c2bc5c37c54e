"""Entries on disks that fill up at any byte, and files altered in any way: nothing of that passes for whole."""

import json
import os
import resource
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from robust_transfer.store.entry import CARD, Entry, StoreError, finished, open_entry, write_json
from robust_transfer.store.finished import FINISHED
from robust_transfer.store.upkeep import faults, renew
from support.disks import free, small_disk

CONTENT = bytes(range(256)) * 80
"""Of the entry's largest file: five pages of memory."""


def entry_in(store: Path, stage: str = "features") -> Entry:
    path = store / stage / "a-1"
    path.mkdir(parents=True)
    write_json(path / "entry.json", {"stage": stage, "name": "a", "settings": {}, "inputs": {}})
    return open_entry(path)


def make(entry: Entry, version: int = 1) -> None:
    with entry.writing() as draft:
        draft.file("data.bin").write_bytes(CONTENT)
        draft.write_json("metrics.json", {"version": version})
        draft.facts = {"version": version}


def in_a_fork(call: Callable[[], object]) -> bool:
    """Whether it ends without an error, in a process of its own that it may leave in any state."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            call()
            status = 0
        except (OSError, StoreError):
            status = 2
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 2)
    return status == 0


def assert_whole_or_nothing(entry: Entry, before: int | None) -> int | None:
    """The version that is there, whole; that is the one before, or the next; None if there is none, nor a card."""
    if not finished(entry.path):
        assert before is None
        assert not (entry.path / FINISHED).exists()
        return None
    assert faults(entry.path) == []
    version = entry.facts()["version"]
    assert json.loads(entry.file("metrics.json").read_text()) == {"version": version}
    assert entry.file("data.bin").read_bytes() == CONTENT
    assert before is None or version in (before, before + 1)
    return int(version)


def limits() -> Iterator[int]:
    """Sizes at which a file is cut off: all of the first bytes and of the largest file's ends, and some between."""
    yield from range(0, 700, 23)
    yield from range(4096 - 2, len(CONTENT), 4096)
    yield from (len(CONTENT) - 1, len(CONTENT))


@pytest.mark.parametrize("before", [None, pytest.param(1, marks=pytest.mark.faults)])
def test_a_file_that_cannot_grow_leaves_what_was_there(before: int | None, tmp_path: Path) -> None:
    injected = failed = 0
    for number, limit in enumerate(limits()):
        entry = entry_in(tmp_path / str(number))
        if before:
            make(entry, before)

        def limited(entry: Entry = entry, limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            make(entry, (before or 0) + 1)

        is_made, injected = in_a_fork(limited), injected + 1
        failed += not is_made
        assert assert_whole_or_nothing(entry, before) == ((before or 0) + 1 if is_made else before)
        make(entry, 7)  # with room, the same again
        assert entry.facts() == {"version": 7}
    assert failed == injected - 1 > 30  # all but the last, at the largest file's size


def test_a_disk_that_is_full_at_any_page_leaves_what_was_there(tmp_path: Path) -> None:
    """First of an entry that is new, then of one that is made again."""
    failed = 0
    with small_disk(tmp_path / "disk", 200) as disk:
        for before in (None, 1):
            for pages in range(24):
                entry = entry_in(disk / f"{before}-{pages}")
                if before:
                    make(entry, before)
                filler = disk / "filler"
                filler.write_bytes(b"x" * (free(disk) - 4096 * pages))
                failed += not in_a_fork(partial(make, entry, (before or 0) + 1))
                assert_whole_or_nothing(entry, before)
                filler.unlink()
                make(entry, 7)
                assert entry.facts() == {"version": 7}
                for path in sorted((disk / f"{before}-{pages}").rglob("*"), reverse=True):
                    path.unlink() if path.is_file() else path.rmdir()
    assert 10 <= failed < 48


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a bit": flipped,
    "cut short": lambda content: content[:-1],
    "emptied": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "longer": lambda content: content + b"\n",
}


@pytest.mark.parametrize("damage", [*DAMAGE, "removed"])
@pytest.mark.parametrize("name", ["data.bin", "metrics.json"])
@pytest.mark.parametrize("stage", ["features", "pretraining"])
def test_an_altered_file_is_named_and_made_again(stage: str, name: str, damage: str, tmp_path: Path) -> None:
    """By itself where that is cheap, else once somebody says so."""
    entry = entry_in(tmp_path / "store", stage)
    make(entry)
    path, kept = entry.path / name, entry.path / FINISHED / name
    if damage == "removed":
        path.unlink()
        kept.unlink()
    else:
        path.write_bytes(DAMAGE[damage](path.read_bytes()))  # and with it the kept one: both name one file
    assert faults(entry.path)
    assert all(name in line for line in faults(entry.path))
    with pytest.raises(StoreError, match=rf"{name}: .*store renew {entry.path}"):
        entry.file(name)
    (entry.path / CARD).unlink()  # as Snakemake does before a job
    with entry.locked():
        if stage == "features":
            assert not entry.publish_finished()
        else:
            with pytest.raises(StoreError, match=rf"altered or missing: {name}; .*store renew {entry.path}"):
                entry.publish_finished()
            renew(entry.path)
    again = open_entry(entry.path)
    make(again, 2)
    assert faults(again.path) == []
    assert again.facts() == {"version": 2}
