"""The experiments that come with the software: what they plan is what the paper did."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from robust_transfer import cli
from robust_transfer.configuration.catalogue.datasets import catalogue
from robust_transfer.configuration.catalogue.weights import released_files
from robust_transfer.configuration.experiment import Experiment
from robust_transfer.configuration.files import extended
from robust_transfer.configuration.load import DEFAULT, ConfigurationError, load
from robust_transfer.configuration.training import RECIPES
from robust_transfer.configuration.transfer import Finetuning, FinetuningSettings, LinearHeads, LinearHeadsSettings
from robust_transfer.configuration.weights import ImportingSettings
from robust_transfer.dag.availability import absent, planned
from robust_transfer.dag.grid import Grid, plan
from robust_transfer.tables.key import MeasurementKey
from support.catalogue_files import make
from support.paths import ROOT

EXPERIMENTS = ROOT / "experiments"
L2 = ("resnet18", "resnet50", "wide_resnet50_2", "wide_resnet50_4")
RADII = ("0", "0.01", "0.03", "0.05", "0.1", "0.25", "0.5", "1", "3", "5")


STANDALONE = {
    "experiment": "alone",
    "input_size": 32,
    "datasets": {name: {"origin": {"kind": "folder", "path": name}} for name in ("one", "two")},
    "source": "one",
    "targets": ["two"],
    "grid": [{"architectures": ["resnet8_w8"], "eps": [0, 0.25]}],
}
"""All that an experiment must state."""


def experiment(*names: str, **options: object) -> Experiment:
    return load([EXPERIMENTS / f"{name}.yaml" for name in names], options)


@pytest.fixture(scope="module")
def paper() -> Grid:
    return plan(experiment("paper"))


OWN_NETWORK = "own-network"
"""One network to one target, for others to extend: tests/workflow/test_own_network.py runs it."""


AT_LEAST = {OWN_NETWORK: 5, "texture": 60, "shape-bias": 50}
"""Entries of small experiments; others have more than a hundred."""


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_plans_something(path: Path) -> None:
    if path.stem == "vit":
        pytest.importorskip("timm", reason="not installed: make setup EXTRAS=timm")
    assert len(plan(experiment(path.stem)).entries) > AT_LEAST.get(path.stem, 100)


def test_figure_8_shares_with_its_experiment_what_the_two_have_in_common() -> None:
    def entries(name: str, *stages: str) -> set[str]:
        return {one for stage in stages for one in (entry.id for entry in plan(experiment(name)).stage(stage).values())}

    for stage in ("datasets", "pretraining", "features", "probing", "finetuning"):
        own = {one for one in entries("texture", stage) if "_both_" not in one}
        assert own
        assert own <= entries("tiny-imagenet", stage)
    added = entries("paper-texture", "importing") - entries("paper", "importing")
    assert len(added) == 3  # networks of Geirhos et al.
    of_targets = {
        one for one in entries("paper-texture", "linear_heads") if "_sin" not in one and "_stylized" not in one
    }
    assert len(of_targets) == 2 * 10 * 12
    assert of_targets <= entries("paper", "linear_heads")


def test_figure_8s_networks_are_tested_on_and_transferred_to_the_stylized_source() -> None:
    keys = measured(plan(experiment("paper-texture")), target="imagenet", variant='{"stylized":"adain"}')
    tested = [key for key in keys if key.mode == "source"]
    assert {(key.arch, key.eps) for key in tested if key.recipe == "released"} == {
        (arch, eps) for arch in ("resnet18", "resnet50") for eps in ("0", "0.25", "0.5", "1", "3")
    }
    assert {key.recipe for key in tested} == {
        "released", "sin", "sin-and-in", "sin-and-in-then-in", "texture-robust-stylized",
    }  # fmt: skip
    transferred = measured(plan(experiment("paper-texture")), target="imagenet", mode="full-network")
    assert len(transferred) == 2 * 5


def test_todays_networks_stand_beside_each_other_standard_and_robust() -> None:
    pytest.importorskip("timm", reason="not installed: make setup EXTRAS=timm")
    grid = plan(experiment("vit"))
    networks = {(key.arch, key.eps) for key in measured(grid, mode="full-network")}
    assert len({arch for arch, _ in networks}) == 5
    assert networks == {(arch, eps) for arch, _ in networks for eps in ("0", "4/255")}
    settings = [ImportingSettings.model_validate(one.settings) for one in grid.stage("importing").values()]
    assert {one.weights.kind for one in settings} == {"torchvision", "timm", "robustbench"}


def measured(grid: Grid, **like: object) -> list[MeasurementKey]:
    return [
        one.key
        for one in grid.measurements.values()
        if all(getattr(one.key, name) == value for name, value in like.items())
    ]


def test_the_l2_grid_is_the_papers(paper: Grid) -> None:
    """12 targets × 40 backbones × 2 modes × 2 learning rates = 1,920 runs, in 480 jobs and 960."""
    native = [key for key in measured(paper, variant="{}") if key.arch in L2 and key.norm != "linf"]
    cells = Counter((key.mode, key.target) for key in native)
    assert len(paper.experiment.targets) == 12
    for target in paper.experiment.targets:
        assert cells["fixed-feature", target] == cells["full-network", target] == 40
    assert {key.eps for key in native} == {*RADII}
    backbones = {one.backbone for one in paper.measurements.values() if one.key in {*native}}
    assert len(backbones) == 40
    jobs: Counter[str] = Counter()
    runs = 0
    for entry in paper.entries.values():
        if entry.stage not in ("linear_heads", "finetuning") or entry.inputs["backbone"].id not in backbones:
            continue
        if entry.inputs["dataset"].stage == "datasets":
            jobs[entry.stage] += 1
            assert isinstance(entry.settings, LinearHeadsSettings | FinetuningSettings)
            runs += len(entry.settings.learning_rates)
            assert entry.settings.purpose == "final"  # no validation split anywhere: chosen on test images
    assert jobs == {"linear_heads": 480, "finetuning": 960}
    assert runs == 1920


def test_the_rest_of_the_grid_is_the_papers(paper: Grid) -> None:
    counts = Counter((key.mode, key.norm) for key in measured(paper, variant="{}") if key.arch not in L2)
    assert counts == {
        ("source", "none"): 6,
        ("source", "l2"): 6,
        ("full-network", "none"): 42,
        ("full-network", "l2"): 42,
    }
    linf = Counter((key.mode, key.arch) for key in measured(paper, norm="linf"))
    assert linf == {
        **{(mode, arch): 10 for mode in ("fixed-feature", "full-network") for arch in ("resnet18", "resnet50")},
        **{("source", arch): 5 for arch in ("resnet18", "resnet50", "wide_resnet50_2")},
    }
    downscaled = Counter(key.mode for key in measured(paper, variant='{"downscaled":32}'))
    assert downscaled == {"fixed-feature": 12 * 26, "full-network": 12 * 26}


def test_each_released_network_is_imported_and_evaluated_once(paper: Grid) -> None:
    planned = [entry.settings for entry in paper.stage("importing").values()]
    imported = [settings for settings in planned if isinstance(settings, ImportingSettings)]
    assert len(imported) == len(planned) == len(released_files()) == 67
    assert {(one.architecture, one.norm or "l2", one.eps) for one in imported} == {*released_files()}
    assert len(measured(paper, mode="source")) == 67


def test_settings_are_those_of_the_released_code(paper: Grid) -> None:
    found = paper.experiment
    assert found.linear_heads == LinearHeads()
    assert (found.finetuning.normalisation, found.finetuning.training.augmentation) == ("target", "resized-crop-flip")
    same = {"augmentation": "resized-crop-flip"}
    assert found.finetuning.training == Finetuning().training.model_copy(update=same)
    assert found.pretraining.training.model_dump().items() >= RECIPES["paper"]["training"].items()
    assert found.pretraining.attack.steps == 3
    assert found.selection == ("test",)
    metrics = {name for name in found.targets if found.datasets[name].metric == "mean_per_class"}
    assert metrics == {"aircraft", "caltech101", "caltech256", "flowers", "pets"}
    normalised = {name for name in found.targets if found.datasets[name].normalisation.std != (1, 1, 1)}
    assert normalised == {"cifar10", "cifar100"}
    assert {*found.targets} | {"imagenet", "painter-by-numbers"} == {*catalogue().datasets}


def test_from_scratch_differs_in_the_backbones_alone(paper: Grid) -> None:
    scratch = plan(experiment("paper-from-scratch"))
    assert len(scratch.stage("pretraining")) == 67
    assert not scratch.stage("importing")
    assert [replace(key, recipe="") for key in measured(scratch)] == [
        replace(key, recipe="") for key in measured(paper)
    ]


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_no_experiment_builds_upon_the_default_one(path: Path) -> None:
    """They are of other images: an edit of config.yaml must not change what they measure."""
    assert DEFAULT not in extended([path])
    assert not {"objects", "coarse", "fine", "counting", "textures"} & {*load([path]).datasets}


class TestExtends:
    def write(self, folder: Path, **files: str) -> list[Path]:
        for name, text in files.items():
            (folder / f"{name}.yaml").write_text(text)
        return [folder / f"{name}.yaml" for name in files]

    def test_a_file_comes_after_those_it_extends(self, tmp_path: Path) -> None:
        a, b, c = self.write(tmp_path, a="experiment: a\nextends: b.yaml", b="extends: [c.yaml]", c="title: c")
        assert extended([a]) == [c, b, a]
        assert extended([c, a]) == [c, b, a]
        c.write_text("extends: default\ntitle: c\n")
        found = load([a])
        assert (found.experiment, found.title) == ("a", "c")

    @pytest.mark.parametrize("folder", [".", "deep/in/folders"])
    def test_default_is_the_repositorys_file_wherever_a_file_lies(self, folder: str, tmp_path: Path) -> None:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (a,) = self.write(tmp_path / folder, a="extends: default\nexperiment: a")
        assert extended([a]) == [ROOT / "config.yaml", a]
        assert load([a]) == load([DEFAULT]).model_copy(update={"experiment": "a"})

    def test_the_default_lies_below_all_other_files(self, tmp_path: Path) -> None:
        a, b, c = self.write(tmp_path, a="title: a", b="extends: [a.yaml, default]", c="extends: default")
        assert extended([a, c]) == [DEFAULT, a, c]
        assert extended([c, b]) == [DEFAULT, c, a, b]

    def test_without_files_the_default_is_the_experiment(self) -> None:
        assert extended([]) == []
        assert load([]) == load([DEFAULT])
        assert load([], {"experiment": "mine"}).experiment == "mine"

    def test_the_default_does_not_lie_below_a_file_that_does_not_ask_for_it(self, tmp_path: Path) -> None:
        text = yaml.safe_dump({**STANDALONE, "experiment": "alone"})
        (a,) = self.write(tmp_path, a=text)
        found = load([a])
        assert found == Experiment.model_validate({**STANDALONE, "experiment": "alone"})
        assert [*found.datasets] == ["one", "two"]

    def test_a_file_that_lacks_what_an_experiment_needs_is_told_what_to_write(self, tmp_path: Path) -> None:
        (a,) = self.write(tmp_path, a=yaml.safe_dump({k: v for k, v in STANDALONE.items() if k != "input_size"}))
        with pytest.raises(ConfigurationError) as error:
            load([a])
        says = "input_size: required and not there; state it, or, to state only what differs from config.yaml, write"
        assert str(error.value) == f"{a}: {says} `extends: default`"
        a.write_text("input_size: 3\npretraining: {training: {epochs: 0}}\n")
        with pytest.raises(ConfigurationError) as error:
            load([a])
        first, *others = str(error.value).splitlines()
        assert first.startswith(f"{a}: experiment, datasets, source, targets, grid: required and not there; state them")
        assert first.endswith("write `extends: default`")
        assert [line.split(": ")[1] for line in others] == ["input_size = 3", "pretraining.training.epochs = 0"]

    def test_a_part_of_an_experiment_lies_over_a_whole_one(self, tmp_path: Path) -> None:
        a, b = self.write(tmp_path, a=yaml.safe_dump(STANDALONE), b="datasets: {two: {train_limit: 40}}")
        assert load([a, b]).datasets["two"].train_limit == 40
        with pytest.raises(ConfigurationError, match=r"b.yaml: experiment, input_size, .*`extends: default`"):
            load([b])

    def test_a_circle_is_refused(self, tmp_path: Path) -> None:
        a, _ = self.write(tmp_path, a="extends: b.yaml", b="extends: a.yaml")
        with pytest.raises(ConfigurationError, match=r"a.yaml: extends itself, by way of .*b.yaml"):
            extended([a])

    def test_a_missing_base_is_named(self, tmp_path: Path) -> None:
        (a,) = self.write(tmp_path, a="extends: nowhere.yaml")
        with pytest.raises(ConfigurationError, match=r"nowhere.yaml: no such file"):
            load([a])

    def test_anything_but_names_is_refused(self, tmp_path: Path) -> None:
        (a,) = self.write(tmp_path, a="extends: {a: b}")
        with pytest.raises(ConfigurationError, match=r"extends = \{'a': 'b'\}: write the name of a file"):
            load([a])


def tiny(**changes: object) -> dict[str, object]:
    """Two targets, one of them of the catalogue, and imported backbones."""
    return {
        "datasets": {"dtd": {"origin": {"kind": "catalogue", "dataset": "dtd"}}},
        "targets": ["coarse", "dtd"],
        "weights": {"mine": {"kind": "files", "path": "{architecture}_{eps}.pt"}},
        "backbones": "mine",
        "grid": [{"architectures": ["resnet8_w8"], "eps": [0, 0.25]}],
        "figures": {"widths": [], "draw": ["headline"]},
        **changes,
    }


class TestMissing:
    def test_stopping_is_the_default_and_names_everything_at_once(self, tmp_path: Path) -> None:
        folders = {"store": str(tmp_path), "running": {"data": str(tmp_path), "weights": str(tmp_path / "w")}}
        grid = planned(load([DEFAULT], tiny(**folders)))
        assert grid.dropped == ()
        first, second, third = absent(grid)
        assert "datasets.dtd.origin" in first
        assert str(tmp_path / "dtd") in first
        assert "resnet8_w8_0.pt: no such file" in second
        assert "resnet8_w8_0.25.pt: no such file" in third

    def test_what_is_missing_of_the_whole_paper_fits_a_screen(self, tmp_path: Path) -> None:
        running = {"data": str(tmp_path / "data"), "weights": str(tmp_path / "weights")}
        datasets, weights = absent(planned(experiment("paper", store=str(tmp_path), running=running)))
        lines = datasets.splitlines()
        assert lines[0] == "13 datasets are not on this machine:"
        assert sum("by hand alone" in line for line in lines) == 1
        assert any(line.split()[:1] == ["birdsnap"] and "by hand alone" in line for line in lines)
        assert "67 files of weights are not in" in weights
        assert "resnet18_l2_eps0.ckpt, resnet18_l2_eps0.01.ckpt and 65 more" in weights
        assert "https://huggingface.co/madrylab/robust-imagenet-models" in weights

    def test_dropping_takes_the_target_out_of_the_plan(self, tmp_path: Path) -> None:
        running = {"data": str(tmp_path)}
        grid = planned(load([DEFAULT], tiny(missing="drop", store=str(tmp_path), running=running)))
        assert grid.dropped == ("dtd",)
        assert {key.target for key in measured(grid)} == {"objects", "coarse", "cue_conflict"}
        assert all("dtd" not in entry for entry in grid.entries)

    def test_a_source_that_only_evaluates_is_dropped_too(self, tmp_path: Path) -> None:
        overlay = tiny(
            missing="drop", store=str(tmp_path), running={"data": str(tmp_path)}, source="dtd", targets=["coarse"]
        )
        grid = planned(load([DEFAULT], overlay))
        assert grid.dropped == ("dtd",)
        assert not grid.stage("evaluation")
        assert len(grid.stage("importing")) == 2

    def test_a_source_to_train_on_is_not(self, tmp_path: Path) -> None:
        overlay = tiny(
            missing="drop",
            store=str(tmp_path),
            running={"data": str(tmp_path)},
            source="dtd",
            backbones="trained",
            targets=["coarse"],
        )
        with pytest.raises(ConfigurationError, match="source = dtd: its images are missing, and backbones train on"):
            planned(load([DEFAULT], overlay))

    def test_nothing_left_is_an_error(self, tmp_path: Path) -> None:
        overlay = tiny(missing="drop", store=str(tmp_path), running={"data": str(tmp_path)}, targets=["dtd"])
        with pytest.raises(ConfigurationError, match="targets = dtd: the images of all are missing"):
            planned(load([DEFAULT], overlay))

    def test_what_was_decided_before_counts(self, tmp_path: Path) -> None:
        """A cluster's job plans again: a folder that has appeared meanwhile must not change its plan, nor one gone."""
        found = load([DEFAULT], tiny(missing="drop", store=str(tmp_path), running={"data": str(tmp_path)}))
        assert planned(found, ()).dropped == ()
        assert planned(found, ("coarse",)).dropped == ("coarse",)

    def test_downloads_count_as_there(self, tmp_path: Path) -> None:
        running = {"data": str(tmp_path), "downloads": True}
        grid = planned(load([DEFAULT], tiny(missing="drop", store=str(tmp_path), running=running)))
        assert grid.dropped == ()


def weights(kind: dict[str, object], **part: object) -> dict[str, object]:
    block = {"architectures": ["resnet18"], "eps": [0], **part}
    return tiny(weights={"mine": kind}, grid=[block])


@pytest.mark.parametrize(
    ("over", "says"),
    [
        (
            weights({"kind": "released"}, eps=[0, 2]),
            "grid[0]: mine: no resnet18 was released for l2 eps 2; there are 0,",
        ),
        (
            weights({"kind": "released"}, architectures=["resnet34"]),
            "no resnet34 was released for l2; there are resnet18",
        ),
        (weights({"kind": "torchvision"}, eps=[1]), "eps 1: torchvision has standard networks only"),
        (weights({"kind": "timm"}), "timm has no weights of resnet18; its networks are called timm_<name> here"),
        (weights({"kind": "stylized-imagenet"}), "no resnet18 trained on sin; there are resnet50 (sin, sin-and-in"),
        (
            weights({"kind": "files", "path": "{arch}.pt"}),
            "no such placeholder: arch; there are architecture, norm, eps",
        ),
        (weights({"kind": "files", "path": "{architecture"}), "write a literal brace twice"),
        (weights({"kind": "released"}, seeds=[0, 1]), "grid[0].seeds: mine has one network of each kind"),
        (weights({"kind": "released"}, backbones="yours"), "grid[0].backbones = yours: write one of trained, mine"),
        (tiny(backbones="yours"), "backbones = yours: weights defines no such name; write one of trained, mine"),
        (tiny(weights={"trained": {"kind": "released"}}), "weights.trained: this name means backbones trained here"),
        (weights({"kind": "realeased"}), "weights.mine"),
    ],
)
def test_weights_that_do_not_exist_are_refused(over: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        load([DEFAULT], over)
    assert says in str(error.value)


def test_seeds_are_for_files_that_have_them() -> None:
    grid = plan(load([DEFAULT], weights({"kind": "files", "path": "{architecture}_{seed}.pt"}, seeds=[0, 1])))
    assert len(grid.stage("importing")) == 2


def test_where_images_and_weights_lie_is_in_no_hash() -> None:
    def ids(folder: str) -> list[str]:
        return [*plan(load([DEFAULT], tiny(running={"data": folder, "weights": folder}))).entries]

    assert ids("here") == ids("there")


def test_a_backbone_evaluated_alone_has_no_transfer() -> None:
    grid = plan(load([DEFAULT], weights({"kind": "released"}, modes=[])))
    assert {one.key.mode for one in grid.measurements.values()} == {"source", "cue-conflict"}


class TestDryRun:
    """`snakemake -n` on the whole paper, with no data there."""

    @pytest.mark.faults  # 14 s
    def test_it_plans_every_job_within_a_gigabyte(self, tmp_path: Path) -> None:
        for name in ("Snakefile", "config.yaml"):
            shutil.copy(ROOT / name, tmp_path / name)
        for name in ("rules", "profiles", "envs", "workflow", "experiments", "claims"):
            shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        # In a process between, since one that was forked from a large one counts that one's memory as its own.
        code = (
            "import json, resource, subprocess, sys; "
            "run = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True); "
            "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
            "print(json.dumps([run.returncode, run.stdout, used.ru_utime + used.ru_stime, used.ru_maxrss]))"
        )
        command = [sys.executable, "-m", "snakemake", "-n", "--configfile", "experiments/paper.yaml"]
        run = subprocess.run([sys.executable, "-c", code, *command], cwd=tmp_path, capture_output=True, text=True)
        status, text, seconds, kilobytes = json.loads(run.stdout)
        assert status == 0, text[-3000:]
        jobs = {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", text.partition("Job stats:")[2], re.M)}
        expected = {"importing": 67, "evaluation": 67, "datasets": 13, "granularity": 12}
        assert jobs.items() >= (expected | {"linear_heads": 812, "finetuning": 1792, "selecting": 1708}).items()
        assert seconds < 30  # of processor time: on an idle machine also that of the clock
        assert kilobytes < 2**20


class TestCommands:
    def test_plan_prices_an_experiment(self, capsys: pytest.CaptureFixture[str]) -> None:
        overlay = str(EXPERIMENTS / "paper.yaml")
        assert cli.main(["plan", "--configfile", overlay, "--gpu", "A100", "--price", "2"]) == 0
        said = capsys.readouterr().out
        assert re.search(r"^importing +0 +67 ", said, re.M)
        assert re.search(r"^total +0 +4491 ", said, re.M)
        assert "price, $" in said
        assert "not measured here" in said

    def test_plan_refuses_a_gpu_it_has_no_rates_of(self, caplog: pytest.LogCaptureFixture) -> None:
        assert cli.main(["plan", "--gpu", "Z9000"]) == 1
        assert "Z9000" in caplog.text
        assert "A100" in caplog.text

    def test_catalogue_lists_datasets_and_what_lies_there(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        make("dtd", tmp_path / "dtd", classes=2)
        assert cli.main(["catalogue", "--data", str(tmp_path)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1 + sum(len(known.splits) for known in catalogue().datasets.values())
        assert [line.split()[0] for line in lines if line.endswith("yes")] == ["dtd"]

    @pytest.mark.parametrize("name", catalogue().datasets)
    def test_catalogue_describes_a_dataset(self, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["catalogue", name, "--data", str(tmp_path)]) == 0
        said = capsys.readouterr().out
        for words in (catalogue().datasets[name].title, "licence: ", "split paper: ", str(tmp_path / name)):
            assert words in said
        assert all(len(line) <= 100 or " " not in line.strip() for line in said.splitlines())

    def test_catalogue_knows_no_other(self, caplog: pytest.LogCaptureFixture) -> None:
        assert cli.main(["catalogue", "flowerz"]) == 1
        assert "did you mean flowers?" in caplog.text
