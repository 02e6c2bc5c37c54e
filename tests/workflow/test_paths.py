"""Names of folders and files with spaces, quotes and what a shell would run: every job takes them as they are."""

import re
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from robust_transfer.configuration.datasets import FolderOrigin
from robust_transfer.configuration.load import ConfigurationError, load, validate
from robust_transfer.configuration.paths import resolved
from robust_transfer.datasets.origins.shapes import CLASSES
from robust_transfer.networks.build import build
from support.checkouts import Checkout
from support.paths import ROOT
from support.prepared_datasets import write_folder

ODD = 'it\'s "odd" $(touch INJECTED); touch INJECTED & [a]*?#~%'
"""A name that means something else to a shell in every way; a file system takes it."""
EXPERIMENT = {
    "extends": "default",
    "experiment": "odd",
    "datasets": {
        "objects": {"origin": {"kind": "shapes", "task": "objects", "train": 80, "test": 40, "classes": 20}},
        "mine": {"origin": {"kind": "folder", "path": f"{ODD} images"}},
    },
    "targets": ["mine"],
    "weights": {"files": {"kind": "files", "path": f"{ODD} {{architecture}}.pt"}},
    "running": {"weights": f"{ODD} weights"},
    "backbones": "files",
    "grid": [{"architectures": ["resnet8_w4"], "eps": [0], "modes": ["fixed-feature"]}],
    "store": f"{ODD} store",
    "results": f"{ODD} results",
    "figures": {"draw": ["headline", "source_accuracy"], "widths": [], "fixed_eps": None, "bootstrap": 100},
}


@pytest.mark.faults  # for its length
def test_an_experiment_runs_where_every_name_is_odd(tmp_path: Path) -> None:
    place = tmp_path / ODD
    place.mkdir()
    checkout = Checkout(place, yaml.safe_dump(EXPERIMENT))
    write_folder(place / f"{ODD} images", {"a": 10, "b's": 10})
    (place / f"{ODD} weights").mkdir()
    weights = place / f"{ODD} weights" / f"{ODD} resnet8_w4.pt"
    torch.save(build("resnet8_w4", len(CLASSES["objects"])).state_dict(), weights)
    overlay = f"{ODD}.yaml"
    (place / overlay).write_text(checkout.experiment)

    run = checkout.snakemake(overlay=overlay)
    assert run.returncode == 0, run.stderr[-5000:]
    results = place / f"{ODD} results" / "odd"
    assert (results / "figures" / "headline.tex").exists()
    assert (results / "figures" / "source_accuracy.png").exists()
    assert checkout.planned(overlay=overlay) == {}
    report = checkout.snakemake("--report", f"{ODD} report.html", overlay=overlay)
    assert report.returncode == 0, report.stderr[-3000:]
    said = checkout.python("plan", "--configfile", overlay)
    assert said.returncode == 0, said.stderr
    assert not [*tmp_path.rglob("INJECTED")]


def test_every_placeholder_of_a_command_is_quoted() -> None:
    for path in (ROOT / "rules").glob("*.smk"):
        commands = path.read_text().partition("shell:")[2]
        placeholders = set(re.findall(r"\{([^{}]+)\}", commands))
        plain = {name for name in placeholders if not name.endswith(":q")}
        assert placeholders - plain, path
        assert plain <= {"threads", "resources.gpu"}, path  # numbers


@pytest.mark.parametrize("name", ["plain.yaml", "my file.yaml", "it's $(touch INJECTED) one.yaml", "a.yaml b.yaml"])
def test_make_takes_the_name_of_a_configuration_as_it_is(name: str, tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for stated in ("requirements.lock", "pyproject.toml"):
        (tmp_path / stated).touch()
    for program in ("python", "snakemake", "robust-transfer"):
        (binaries / program).write_text('#!/bin/sh\nfor one; do echo "<$one>"; done\n')
        (binaries / program).chmod(0o755)
    for done in ("installed", "package"):
        (tmp_path / ".venv" / done).touch()
    expected = name.split() if name == "a.yaml b.yaml" else [name]
    for one in expected:
        (tmp_path / one).touch()
    for target in ("plan", "demo"):
        run = subprocess.run(["make", target, f"CONFIG={name}"], cwd=tmp_path, capture_output=True, text=True)
        given = re.findall(r"^<(.*)>$", run.stdout, re.M)
        assert given[given.index("--configfile") + 1 :][: len(expected)] == expected, run.stdout + run.stderr
    assert not (tmp_path / "INJECTED").exists()


class TestWhatPathsStandFor:
    def test_a_home_and_variables_are_resolved(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/home/me")
        monkeypatch.setenv("SCRATCH", "/scratch/me")
        overlay = {
            "store": "~/store",
            "results": "${SCRATCH}/results",
            "running": {"data": "$SCRATCH/data", "weights": "~/weights"},
        }
        found = load([], overlay)
        assert (found.store, found.results) == ("/home/me/store", "/scratch/me/results")
        assert found.running.originals("dtd") == Path("/scratch/me/data/dtd")
        assert found.running.weights_folder == Path("/home/me/weights")
        assert resolved("a/~b/$(c)/$1/$") == Path("a/~b/$(c)/$1/$")

    def test_a_folder_of_images_is_the_same_dataset_under_any_home(self) -> None:
        """What stands in the configuration defines the entry, so that a store can be shared."""
        grid = [{"architectures": ["resnet8_w16"], "eps": [0]}]
        over = {"targets": ["mine"], "datasets": DATA, "grid": grid, "figures": {}}
        found = validate({**yaml.safe_load((ROOT / "config.yaml").read_text()), **over})
        assert found.datasets["mine"].origin == FolderOrigin(kind="folder", path="~/images")

    @pytest.mark.parametrize(
        ("key", "value", "says"),
        [
            ("store", "a{b}", "store = a{b}: has a brace ({)"),
            ("results", "c:/results", "results = c:/results: has a colon (:)"),
            ("store", "a\nb", r"store = 'a\nb': has a control character ('\n')"),
            ("store", "a\0b", r"store = 'a\x00b': has a control character ('\x00')"),
            ("results", "a\u2028b", "results = 'a\\u2028b': has a line break"),
            ("store", " store", "store = ' store': begins or ends with a space"),
            (
                "store",
                "-store",
                "store = -store: begins with a dash, as options of commands do; name it otherwise, or write",
            ),
            ("store", "$NOWHERE_AT_ALL/store", "store = $NOWHERE_AT_ALL/store: $NOWHERE_AT_ALL is not set; export it"),
            ("results", "~nobody_at_all/r", "results = ~nobody_at_all/r: ~nobody_at_all is no user's home"),
            ("running.data", "${NOWHERE_AT_ALL}", "running.data = ${NOWHERE_AT_ALL}: $NOWHERE_AT_ALL is not set"),
            ("running.weights", "w\t", r"running.weights = 'w\t': has a control character"),
            ("datasets.mine.origin.path", "a\rb", r"datasets.mine.origin.path = 'a\rb': has a control character"),
        ],
    )
    def test_a_path_that_cannot_be_meant_is_refused(self, key: str, value: str, says: str) -> None:
        overlay: dict[str, object] = {}
        at = overlay
        *above, last = key.split(".")
        for step in above:
            at = at.setdefault(step, {})  # type: ignore[assignment]
        at[last] = value
        if above[:1] == ["datasets"]:
            at["kind"] = "folder"
        with pytest.raises(ConfigurationError) as error:
            load([], overlay)
        assert says in str(error.value)
        assert len(str(error.value).splitlines()) == 1


DATA = {
    "objects": {"origin": {"kind": "shapes", "task": "objects", "train": 80, "test": 40}},
    "mine": {"origin": {"kind": "folder", "path": "~/images"}},
}
