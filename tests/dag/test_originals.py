"""Images and weights that are others by now than what finished entries were made from."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from robust_transfer.configuration.load import ConfigurationError, validate
from robust_transfer.dag.grid import plan
from robust_transfer.dag.wiring import Wiring
from robust_transfer.networks.build import build
from robust_transfer.stages import datasets, importing
from robust_transfer.store import originals
from robust_transfer.store.entry import open_entry
from robust_transfer.store.originals import ORIGINALS, differences, record
from support.prepared_datasets import encoded, pixels, write_folder, write_parquet


def configuration(root: Path, **running: object) -> dict[str, object]:
    return {
        "experiment": "small",
        "input_size": 32,
        "datasets": {
            "images": {"origin": {"kind": "folder", "path": str(root / "images")}},
            "rows": {"origin": {"kind": "parquet", "path": str(root / "rows")}},
        },
        "source": "images",
        "targets": ["rows"],
        "weights": {"mine": {"kind": "files", "path": "{architecture}.pt"}},
        "backbones": "mine",
        "grid": [{"architectures": ["resnet8_w4"], "eps": [0], "modes": ["fixed-feature"]}],
        "figures": {"draw": ["headline"]},
        "store": str(root / "store"),
        "results": str(root / "results"),
        "running": {"weights": str(root / "weights"), **running},
    }


def rows(root: Path, seed: int, n: int = 4) -> None:
    images = [encoded(pixels(20, 20, seed=seed + i)) for i in range(n)]
    for split in ("train", "test"):
        write_parquet(root / "rows" / f"{split}.parquet", images, [i % 2 for i in range(n)])


def weights(root: Path, seed: int) -> None:
    torch.save(build("resnet8_w4", 2, seed=seed).state_dict(), root / "weights" / "resnet8_w4.pt")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an experiment whose datasets are prepared and whose weights are imported."""
    write_folder(tmp_path / "images", {"a": 3, "b": 3})
    rows(tmp_path, seed=0)
    (tmp_path / "weights").mkdir()
    weights(tmp_path, seed=0)
    wiring = Wiring(plan(validate(configuration(tmp_path))))
    monkeypatch.setenv("ROBUST_TRANSFER_RUNNING", wiring.grid.experiment.running.model_dump_json())
    wiring.write_entries()
    for entry in wiring.grid.entries.values():
        stage = {"datasets": datasets, "importing": importing}.get(entry.stage)
        if stage:
            stage.run(open_entry(wiring.store / entry.id), threads=1, device="cpu")
    for path in [
        *(tmp_path / "images").rglob("*.png"),
        *(tmp_path / "rows").iterdir(),
        *(tmp_path / "weights").iterdir(),
    ]:
        os.utime(path, ns=(10**18, path.stat().st_mtime_ns))  # read since: that says nothing
    return tmp_path


def told(root: Path, **running: object) -> list[str]:
    return Wiring(plan(validate(configuration(root, **running)))).original_notices


def new_image(root: Path) -> None:
    shutil.copy(root / "images" / "a" / "0.png", root / "images" / "a" / "new.png")


def new_class(root: Path) -> None:
    write_folder(root / "images", {"c": 1})


def removed_image(root: Path) -> None:
    (root / "images" / "b" / "2.png").unlink()


def other_pixels(root: Path) -> None:
    path = root / "images" / "b" / "1.png"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")


def other_rows(root: Path) -> None:
    rows(root, seed=50, n=8)


def new_shard(root: Path) -> None:
    shutil.copy(root / "rows" / "test.parquet", root / "rows" / "validation.parquet")


def other_weights(root: Path) -> None:
    weights(root, seed=1)


@pytest.mark.parametrize(
    ("change", "entry", "says"),
    [
        (new_image, "datasets/images-", "a/new.png is new"),
        (new_class, "datasets/images-", "c/0.png is new"),
        (removed_image, "datasets/images-", "b/2.png is gone"),
        (other_pixels, "datasets/images-", "b/1.png has other content"),
        (other_rows, "datasets/rows-", "test.parquet has "),
        (new_shard, "datasets/rows-", "validation.parquet is new"),
        (other_weights, "importing/images_resnet8_w4_eps0_mine-", "resnet8_w4.pt has other content"),
    ],
)
def test_a_change_is_told_in_one_line_and_refused_where_asked(
    change: Callable[[Path], None], entry: str, says: str, made: Path
) -> None:
    assert told(made) == []
    change(made)
    (line,) = told(made)
    assert line.startswith(f"{entry}")
    assert says in line
    assert f"to make it anew: robust-transfer store renew {made}/store/{entry}" in line
    assert line in Wiring(plan(validate(configuration(made)))).notices()
    Wiring(plan(validate(configuration(made)))).check_strictness()
    with pytest.raises(ConfigurationError, match=r"running\.strict = true: renew these entries") as error:
        Wiring(plan(validate(configuration(made, strict=True)))).check_strictness()
    assert line in str(error.value)


def test_what_is_only_touched_moved_or_deleted_is_not_told(made: Path) -> None:
    for path in (made / "images").rglob("*.png"):
        path.touch()
    (made / "weights" / "resnet8_w4.pt").touch()
    (made / "images" / ".DS_Store").touch()
    (made / "images" / "a" / "notes.txt").touch()
    assert told(made) == []
    (made / "weights").rename(made / "elsewhere")
    assert told(made, weights=str(made / "elsewhere")) == []
    for name in ("images", "rows", "elsewhere"):
        shutil.rmtree(made / name)
    assert told(made) == []


def test_files_that_are_as_they_were_are_not_read(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path) -> str:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(originals, "sha256", read)
    assert told(made) == []


def test_an_entry_without_a_record_is_believed(made: Path) -> None:
    for path in (made / "store").rglob(ORIGINALS):
        path.unlink()
    other_weights(made)
    new_class(made)
    assert told(made) == []


def test_strictness_refuses_other_code_too(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = Wiring(plan(validate(configuration(made, strict=True))))
    strict.check_strictness()
    monkeypatch.setattr("robust_transfer.dag.stale.fingerprint", lambda name: "edited")
    monkeypatch.setattr("robust_transfer.dag.stale.changed_modules", lambda before, now: {"attacks"})
    with pytest.raises(ConfigurationError, match="importing: kept 1 of 1 entries made by other code"):
        Wiring(plan(validate(configuration(made, strict=True)))).check_strictness()


def test_of_very_many_files_their_folders_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(originals, "FILES", 3)
    root = write_folder(tmp_path / "set", {"a": 2, "b": 2})
    (tmp_path / "entry").mkdir()
    found = record(root, lambda name: True)
    assert {*found["folders"]} == {".", "a", "b"}
    originals_file = tmp_path / "entry" / ORIGINALS
    originals_file.write_text(json.dumps(found))
    assert differences(tmp_path / "entry", root, lambda name: True) == []
    write_folder(root, {"a": 3, "c": 1})
    assert "a/ holds 3 files and held 2" in differences(tmp_path / "entry", root, lambda name: True)


def test_a_link_to_nothing_is_no_file(made: Path) -> None:
    (made / "images" / "a" / "gone.png").symlink_to("nowhere")
    assert told(made) == []
    assert "a/gone.png" not in record(made / "images", lambda name: True)["files"]


def test_a_long_list_is_cut(made: Path) -> None:
    write_folder(made / "images", {"c": 9})
    (line,) = told(made)
    assert "and 6 more" in line
