"""`store list`, `verify`, `remove` and `unused`: what they say, and that nothing is lost by looking."""

import os
import re
from pathlib import Path

import pytest
import yaml
from robust_transfer import cli
from robust_transfer.configuration.load import load
from robust_transfer.dag.grid import plan
from robust_transfer.store import verifying
from robust_transfer.store.entry import ENTRY, STATE, Entry, StoreError, open_entry, write_json
from robust_transfer.store.inventory import listed
from robust_transfer.store.removal import REMOVING, planned_removals, remove
from robust_transfer.store.upkeep import renew
from robust_transfer.store.verifying import verify
from support.kills import locked_elsewhere

FIGURES: dict[str, object] = {"widths": [], "fixed_eps": None}


def described(store: Path, stage: str, name: str, **inputs: str) -> Entry:
    path = store / stage / name
    path.mkdir(parents=True)
    write_json(path / ENTRY, {"stage": stage, "name": name, "settings": {}, "inputs": inputs})
    return open_entry(path)


def made(store: Path, stage: str, name: str, size: int, **inputs: str) -> Entry:
    entry = described(store, stage, name, **inputs)
    with entry.writing() as draft:
        draft.file("data.bin").write_bytes(os.urandom(size))
    return entry


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Images, two backbones from them, features from one; and a backbone that is not finished."""
    store = tmp_path / "store"
    made(store, "datasets", "images-1", 3_000_000)
    for name, size in (("small-1", 10_000), ("large-2", 2_000_000)):
        made(store, "pretraining", name, size, source="datasets/images-1")
    made(store, "features", "of_small-1", 20_000, backbone="pretraining/small-1")
    described(store, "pretraining", "begun-3", source="datasets/images-1")
    return store


def said(*arguments: str | Path, capsys: pytest.CaptureFixture[str], code: int = 0) -> list[str]:
    assert cli.main(["store", *map(str, arguments)]) == code
    return capsys.readouterr().out.splitlines()


def test_a_list_has_stages_in_order_the_largest_first_and_totals(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = said("list", store, capsys=capsys)
    names = [line.split()[-1] for line in lines]
    assert names == [
        *("datasets/images-1", "datasets"),
        *("pretraining/large-2", "pretraining/small-1", "pretraining/begun-3", "pretraining"),
        *("features/of_small-1", "features", "all"),
    ]
    assert re.fullmatch(r" +2\.0 MB +\d+ s +finished +pretraining/large-2", lines[2])
    assert re.fullmatch(r" +2\.0 MB  3 entries, 1 unfinished  pretraining", lines[5])
    assert re.fullmatch(r" +5\.0 MB  5 entries, 1 unfinished  in all", lines[-1])
    assert len(said("list", store, "--totals", capsys=capsys)) == 4
    by_name = said("list", store / "pretraining" / "small-1", store / "pretraining" / "begun-3", capsys=capsys)
    assert len(by_name) == 4


def test_links_are_counted_once_and_states_of_trainings_too(store: Path) -> None:
    entry = store / "pretraining" / "large-2"
    assert 2_000_000 < listed(entry).size < 2_010_000  # each file has two names
    begun = store / "pretraining" / "begun-3"
    (begun / STATE).mkdir()
    (begun / STATE / "step-1").write_bytes(bytes(5000))
    assert 5000 < listed(begun).size < 6000


def test_who_writes_an_entry_and_what_was_moved_aside_is_shown(store: Path) -> None:
    begun = store / "pretraining" / "begun-3"
    with locked_elsewhere(begun) as pid:
        assert re.match(f"written by process {pid} on ", listed(begun).state)
    assert listed(begun).state == "unfinished"
    assert listed(renew(store / "features" / "of_small-1")).state == "moved aside"


def test_verifying_finds_all_faults_whatever_the_threads_and_tells_how_far_it_is(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "SECONDS", 0.0)
    for name in ("small-1", "large-2"):
        (store / "pretraining" / name / "data.bin").write_text("jello")
    entries = sorted(path.parent for path in store.glob(f"*/*/{ENTRY}"))
    one, several = verify(entries, 1), verify(entries, 4)
    assert one == several == [f"{store}/pretraining/{name}/data.bin: not as card.json describes" for name in
                              ("large-2", "small-1")]  # fmt: skip
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 10
    assert re.fullmatch(r"5 of 5 entries, 3\.0 MB of 3\.0 MB, 0 s to go", told[-1])


def test_removing_says_what_it_would_take_and_does_it_when_told(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, features = store / "pretraining" / "small-1", store / "features" / "of_small-1"
    lines = said("remove", small, capsys=capsys)
    assert lines[0].startswith(f"{small}: ")
    assert re.search(
        r"finished; expensive, took \d+ s to make; finished entries made from it stay: features 1", lines[0]
    )
    assert lines[1].startswith("nothing was removed; --yes removes: 1 entries, 1")
    assert (small / "data.bin").exists()
    lines = said("remove", small, features, "--yes", capsys=capsys)
    assert "made from it stay" not in lines[0]  # they go too
    assert lines[2].startswith("removed: 2 entries, ")
    assert not small.exists()
    assert not features.exists()
    assert not (store / REMOVING).exists()
    assert (store / "pretraining" / "large-2" / "data.bin").exists()


def test_an_entry_that_is_being_written_is_not_removed_nor_any_with_it(store: Path) -> None:
    begun, large = store / "pretraining" / "begun-3", store / "pretraining" / "large-2"
    with locked_elsewhere(begun) as pid:
        with pytest.raises(StoreError, match=rf"begun-3: process {pid} on .* is writing this entry; wait for it"):
            planned_removals([large, begun])
        with pytest.raises(StoreError, match=rf"process {pid} on .* is writing"):
            remove(begun)
        assert cli.main(["store", "remove", str(large), str(begun), "--yes"]) == 1
    assert (large / "data.bin").exists()
    assert begun.exists()
    with pytest.raises(StoreError, match="so it is no entry"):
        planned_removals([store])


def test_a_removal_that_was_killed_is_finished_by_the_next(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = store / "pretraining" / "large-2"
    pid = os.fork()
    if not pid:
        monkeypatch.setattr("shutil.rmtree", lambda path, **_: os._exit(9) if Path(path).exists() else None)
        remove(large)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert not large.exists()  # gone from its place, whole
    made(store, "pretraining", "large-2", 1000)
    remove(large)
    assert not (store / REMOVING).exists()


def test_unused_is_what_no_configuration_refers_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for name, eps in (("one", [0, 0.5]), ("two", [0, 0.25])):
        grid = [{"architectures": ["resnet8_w4"], "eps": eps, "modes": []}]
        text = yaml.safe_dump({"extends": "default", "experiment": name, "grid": grid, "figures": FIGURES})
        (tmp_path / "mine" / f"{name}.yaml").write_text(text)
    for name in ("one", "two"):
        for entry in plan(load([tmp_path / "mine" / f"{name}.yaml"])).entries.values():
            if not (tmp_path / "store" / entry.id).exists():
                write_json_of(tmp_path / "store" / entry.id, entry.described())
    described(tmp_path / "store", "features", "of_nobody-1")
    aside = renew(next((tmp_path / "store" / "pretraining").glob("*_eps0.5_*")))
    found = said("unused", "mine", "--paths", capsys=capsys)
    assert found == ["store/features/of_nobody-1", str(aside.relative_to(tmp_path))]
    of_one = said("unused", "mine/one.yaml", "--paths", capsys=capsys)
    assert {line.partition("eps0.25")[1] for line in of_one if "pretraining" in line} == {"eps0.25", ""}
    lines = said("unused", "mine", capsys=capsys)
    assert lines[-2] == "no experiment of 2 refers to these: mine/one.yaml, mine/two.yaml"
    assert lines[-1].endswith("config.yaml is not among them: name it too if its entries are to stay")


def test_what_is_no_experiment_leaves_nothing_unused(store: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert cli.main(["store", "unused", str(tmp_path / "mine"), "--store", str(store)]) == 1
    (tmp_path / "mine" / "overlay.yaml").write_text("title: Not whole\n")
    assert cli.main(["store", "unused", str(tmp_path / "mine"), "--store", str(store)]) == 1


def write_json_of(path: Path, content: object) -> None:
    path.mkdir(parents=True)
    write_json(path / ENTRY, content)
