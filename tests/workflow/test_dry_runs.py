"""What a dry run says of an experiment that could not start: as much as the start itself would."""

import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from support.checkouts import Checkout, edit
from support.gpus import UUIDS, driver
from support.prepared_datasets import write_folder

SMALL = {
    "extends": "default",
    "experiment": "small",
    "targets": ["coarse"],
    "grid": [{"architectures": ["resnet8_w4"], "eps": [0], "modes": ["fixed-feature"]}],
    "figures": {"draw": ["headline"], "widths": [], "fixed_eps": None},
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = Checkout(tmp_path_factory.mktemp("checkout"), yaml.safe_dump(SMALL))
    write_folder(checkout.folder / "there", {"a": 3, "b": 3})
    return checkout


def datasets(**origins: Mapping[str, object]) -> dict[str, object]:
    return {"targets": [*origins], "datasets": {name: {"origin": origin} for name, origin in origins.items()}}


FILES = {"weights": {"mine": {"kind": "files", "path": "{architecture}.pt"}}, "backbones": "mine"}


@pytest.mark.parametrize(
    ("overlay", "says"),
    [
        (datasets(mine={"kind": "folder", "path": "nowhere"}), "datasets.mine.origin.path = nowhere: no such folder"),
        (datasets(mine={"kind": "parquet", "path": "nowhere"}), "datasets.mine.origin.path = nowhere: no such folder"),
        (
            datasets(mine={"kind": "torchvision", "dataset": "CIFAR10", "root": "nowhere"}),
            "datasets.mine.origin.root = nowhere: no such folder",
        ),
        (FILES, "weights/resnet8_w4.pt: no such file, and it holds the weights of resnet8_w4"),
        ({**FILES, "missing": "drop"}, "weights/resnet8_w4.pt: no such file"),
        ({"features": {"layer": "body.stagez"}}, "features.layer = body.stagez: resnet8_w4 at 24 px has no such layer"),
        (
            {"grid": [{"architectures": ["vit_b_16"], "eps": [0]}]},
            "vit_b_16 cuts images into patches of 16 px, and 24 is no multiple",
        ),
    ],
)
def test_a_dry_run_refuses_what_a_run_would(overlay: dict[str, object], says: str, checkout: Checkout) -> None:
    run = checkout.snakemake("-n", overlay=checkout.overlay("other.yaml", **overlay))
    assert run.returncode != 0
    said = run.stdout + run.stderr
    assert says in said
    assert "Traceback" not in said


@pytest.mark.faults  # 13 s
@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed: make setup EXTRAS=timm")
def test_weights_that_timm_lacks_are_refused(checkout: Checkout) -> None:
    parts = [{"architectures": ["timm_resnet50_mlp"], "eps": [0], "modes": ["fixed-feature"]}]
    overlay = {"weights": {"theirs": {"kind": "timm"}}, "backbones": "theirs", "grid": parts, "input_size": 64}
    run = checkout.snakemake("-n", overlay=checkout.overlay("other.yaml", **overlay))
    assert run.returncode != 0
    assert "timm_resnet50_mlp: timm has no weights of it" in run.stdout
    assert "Traceback" not in run.stdout + run.stderr


@pytest.mark.faults  # 9 s
def test_more_gpus_than_there_are_are_refused_before_the_first_job(checkout: Checkout, tmp_path: Path) -> None:
    folder = driver(tmp_path / "driver", UUIDS[:2])
    (tmp_path / "checkout").mkdir()
    other = Checkout(tmp_path / "checkout", checkout.experiment)
    edit(other.package / "machine" / "cards.py", 'Path("/proc/driver/nvidia")', f'Path("{folder}")')
    for options in (["-n"], []):
        run = other.snakemake(*options, "--set-resources", "pretraining:gpu=3")
        said = run.stdout + run.stderr
        assert run.returncode != 0
        assert "--set-resources pretraining:gpu=3: this machine has 2 GPUs that can be used" in said
        assert "write pretraining:gpu=2 or less" in said
        assert "Traceback" not in said
    assert not [*other.folder.glob("store/*/*/card.json")]
    assert other.planned("--set-resources", "pretraining:gpu=2")["pretraining"] == 1


def test_a_dry_run_goes_on_without_what_can_be_fetched_and_names_it(checkout: Checkout) -> None:
    origins = {"dtd": {"kind": "catalogue", "dataset": "dtd"}, "mine": {"kind": "folder", "path": "there"}}
    run = checkout.snakemake("-n", overlay=checkout.overlay("other.yaml", **datasets(**origins)))
    assert run.returncode == 0, run.stderr
    assert "datasets.dtd.origin: dtd: " in run.stderr
    assert "A run stops there before its first job; this dry run goes on." in run.stderr
    assert "datasets.mine" not in run.stderr


def test_a_dry_run_leaves_out_what_is_to_be_dropped(checkout: Checkout) -> None:
    origins = {"gone": {"kind": "folder", "path": "nowhere"}, "mine": {"kind": "folder", "path": "there"}}
    run = checkout.snakemake("-n", overlay=checkout.overlay("other.yaml", missing="drop", **datasets(**origins)))
    assert run.returncode == 0, run.stderr
    assert "missing: drop: left out, since the images are not on this machine: gone" in run.stderr


def test_an_ordinary_dry_run_does_not_import_torch(checkout: Checkout) -> None:
    (checkout.folder / "trap" / "torch").mkdir(parents=True)
    (checkout.folder / "trap" / "torch" / "__init__.py").write_text("raise SystemExit('torch was imported')\n")
    code = "import sys; sys.path.insert(0, 'trap'); from snakemake.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "-n", "--configfile", "experiment.yaml"]
    run = subprocess.run(command, cwd=checkout.folder, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    assert "torch was imported" not in run.stderr
    assert Path(checkout.folder / "trap").exists()
