"""What an entry keeps: published again whatever was deleted, and only where it is still what the entry is to be."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from robust_transfer import cli
from robust_transfer.store import entry as store
from robust_transfer.store import finished
from robust_transfer.store.entry import CARD, DRAFT, ENTRY, FINISHED, StoreError, open_entry
from robust_transfer.store.upkeep import entries_in, faults, renew


def made(root: Path, stage: str, content: str = "hello", **inputs: str) -> store.Entry:
    path = root / "store" / stage / "a-1"
    path.mkdir(parents=True, exist_ok=True)
    store.write_json(path / ENTRY, {"stage": stage, "name": "a", "settings": {}, "inputs": inputs})
    entry = open_entry(path)
    with entry.writing() as draft:
        draft.file("data.bin").write_text(content)
    return entry


def lose_outputs(entry: store.Entry) -> None:
    """As Snakemake does."""
    for name in ("data.bin", "timing.json", CARD):
        (entry.path / name).unlink()


def test_outputs_are_links_to_what_is_kept(tmp_path: Path) -> None:
    entry = made(tmp_path, "pretraining")
    for name in ("data.bin", "timing.json", CARD):
        assert (entry.path / name).samefile(entry.path / FINISHED / name)


def test_deleted_outputs_come_back_as_they_were(tmp_path: Path) -> None:
    entry = made(tmp_path, "pretraining")
    before = {name: (entry.path / name).read_bytes() for name in ("data.bin", "timing.json", CARD)}
    lose_outputs(entry)
    assert entry.file("data.bin").read_text() == "hello"  # a reader finds it meanwhile
    assert entry.publish_finished()
    assert {name: (entry.path / name).read_bytes() for name in before} == before
    assert (entry.path / CARD).samefile(entry.path / FINISHED / CARD)


def test_without_links_outputs_are_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    entry = made(tmp_path, "pretraining")
    assert not (entry.path / "data.bin").samefile(entry.path / FINISHED / "data.bin")
    (entry.path / "data.bin").write_text("altered")
    lose_outputs(entry)
    assert entry.publish_finished()
    assert entry.file("data.bin").read_text() == "hello"


def test_other_code_has_a_cheap_entry_made_and_keeps_an_expensive_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheap, expensive = made(tmp_path, "features"), made(tmp_path, "pretraining")
    monkeypatch.setattr(store, "fingerprint", lambda stage: "edited")
    assert not cheap.publish_finished()
    assert expensive.publish_finished()


def test_another_input_has_any_entry_made_and_the_old_expensive_one_lies_beside_it(tmp_path: Path) -> None:
    made(tmp_path, "datasets", "images")
    entry = made(tmp_path, "pretraining", "weights", source="datasets/a-1")
    made(tmp_path, "datasets", "images")
    assert entry.publish_finished()
    made(tmp_path, "datasets", "other images")
    assert not entry.publish_finished()
    made(tmp_path, "pretraining", "other weights", source="datasets/a-1")
    old = open_entry(entry.path.with_name("a-1.old1"))
    assert old.file("data.bin").read_text() == "weights"
    assert entry.file("data.bin").read_text() == "other weights"


def test_what_was_damaged_is_made_again_if_cheap_and_refused_if_expensive(tmp_path: Path) -> None:
    for stage in ("features", "pretraining"):
        entry = made(tmp_path, stage)
        (entry.path / FINISHED / "data.bin").write_text("jello")
    assert not open_entry(tmp_path / "store/features/a-1").publish_finished()
    with pytest.raises(StoreError, match=r"altered or missing: data\.bin; .* store renew .*pretraining/a-1"):
        open_entry(tmp_path / "store/pretraining/a-1").publish_finished()


@pytest.mark.parametrize("step", ["kept.rename", "draft.rename", "first link", "card"])
def test_killed_anywhere_while_it_publishes_it_loses_nothing(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = made(tmp_path, "features", "old")
    calls: dict[str, tuple[object, str, int]] = {
        "kept.rename": (Path, "rename", 0),
        "draft.rename": (Path, "rename", 1),
    }
    calls |= {"first link": (finished, "_link", 0), "card": (finished, "_link", 2)}
    owner, name, number = calls[step]
    monkeypatch.setattr(owner, name, dying(getattr(owner, name), number))
    pid = os.fork()
    if not pid:
        made(tmp_path, "features", "new")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    monkeypatch.undo()
    assert entry.publish_finished()
    assert entry.file("data.bin").read_text() == ("old" if step == "kept.rename" else "new")
    assert not (entry.path / DRAFT / CARD).exists() or step == "kept.rename"


def dying(call: Callable[..., object], number: int) -> Callable[..., object]:
    """The function, in place of whose call of that number the process ends."""
    done = iter(range(10**9 + 1))

    def instead(*given: object, **named: object) -> object:
        if next(done) == number:
            os._exit(9)
        return call(*given, **named)

    return instead


def test_an_entry_of_before_gets_what_it_keeps(tmp_path: Path) -> None:
    entry = made(tmp_path, "features")
    shutil.rmtree(entry.path / FINISHED)
    finished.keep_published(entry.path)
    lose_outputs(entry)
    assert entry.publish_finished()


def test_renewing_moves_the_entry_aside_and_leaves_its_description(tmp_path: Path) -> None:
    entry = made(tmp_path, "pretraining")
    assert renew(entry.path) == entry.path.with_name("a-1.old1")
    assert [path.name for path in entry.path.iterdir()] == [ENTRY]
    assert not entry.publish_finished()
    made(tmp_path, "pretraining")
    assert renew(entry.path) == entry.path.with_name("a-1.old2")
    with pytest.raises(StoreError, match="so it is no entry"):
        renew(tmp_path)


def test_verifying_names_what_is_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry, other = made(tmp_path, "features"), made(tmp_path, "pretraining")
    assert list(entries_in([tmp_path / "store"])) == [entry.path, other.path]
    assert faults(entry.path) == []
    assert cli.main(["store", "verify", str(tmp_path / "store")]) == 0
    (entry.path / "data.bin").write_text("jello")  # both names of one file
    assert faults(entry.path) == [f"{entry.path / 'data.bin'}: not as card.json describes"]
    (other.path / "data.bin").unlink()
    assert faults(other.path) == [f"{other.path / 'data.bin'}: missing; the next run publishes it again"]
    assert cli.main(["store", "verify", str(tmp_path / "store")]) == 1
    assert "2 entries, 2 of them finished: 2 faults" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", "[]", '{"stage": "features"}'])
def test_a_broken_description_is_named_with_what_to_do(text: str, tmp_path: Path) -> None:
    entry = made(tmp_path, "features")
    (entry.path / ENTRY).write_text(text)
    with pytest.raises(StoreError, match=r"entry\.json: .*delete the file, and the next run writes it again"):
        open_entry(entry.path)
