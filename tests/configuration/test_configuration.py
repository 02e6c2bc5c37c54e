"""Configurations: what is accepted, and the one clear message for each thing that is not."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from robust_transfer.configuration import schema
from robust_transfer.configuration.eps import canonical_eps, eps_name, eps_value
from robust_transfer.configuration.load import DEFAULT, ConfigurationError, extended, load, merge, validate
from support.paths import ROOT


def overlaid(over: dict[str, Any]) -> dict[str, Any]:
    configuration: dict[str, Any] = yaml.safe_load(DEFAULT.read_text())
    merge(configuration, over)
    return configuration


def grid(**part: object) -> dict[str, Any]:
    block = {"architectures": ["resnet8_w8"], "eps": [0, 0.25], **part}
    return {"grid": [block], "figures": {"widths": [], "fixed_eps": None}}


def parquet(**changes: object) -> dict[str, Any]:
    return {"datasets": {"coarse": {"origin": {"kind": "parquet", "path": "x"}, **changes}}}


# What is wrong, and words that the message must hold: the key, the value, the fix.
MISTAKES = [
    ({"epoch": 3}, ["epoch = 3", "unknown key", "known here: experiment"]),
    ({"pretraining": {"traning": {}}}, ["pretraining.traning", "did you mean training?"]),
    ({"pretraining": {"training": {"epochs": 0}}}, ["pretraining.training.epochs = 0", "greater than 0", "Passes"]),
    ({"pretraining": {"training": {"epochs": 2.5}}}, ["pretraining.training.epochs = 2.5", "integer"]),
    ({"pretraining": {"training": {"epochs": True}}}, ["epochs = true", "not a switch"]),
    ({"pretraining": {"training": {"learning_rate": "fast"}}}, ["learning_rate = fast", "number"]),
    ({"pretraining": {"training": {"learning_rate": float("inf")}}}, ["learning_rate = inf", "finite"]),
    ({"pretraining": {"training": {"momentum": 1.0}}}, ["pretraining.training.momentum = 1.0", "less than 1"]),
    ({"pretraining": {"training": {"schedule": "onecycle"}}}, ["schedule = onecycle", "did you mean one-cycle?"]),
    ({"pretraining": {"training": {"augmentation": "crop"}}}, ["augmentation = crop", "crop-flip"]),
    ({"pretraining": {"training": {"precision": "fp16"}}}, ["precision = fp16", "fp32, tf32 or bf16"]),
    ({"pretraining": {"training": {"nesterov": True, "momentum": 0}}}, ["pretraining.training", "momentum above 0"]),
    ({"pretraining": {"training": {"batchnorm_group": 100}}}, ["batchnorm_group 100 does not divide batch_size 32"]),
    ({"pretraining": {"training": {"batchnorm_group": 1}}}, ["batchnorm_group = 1", "greater than or equal to 2"]),
    ({"pretraining": {"attack": {"steps": 0}}}, ["pretraining.attack.steps = 0", "Gradient steps"]),
    ({"pretraining": {"attack": {"restarts": 3, "random_start": False}}}, ["restarts: 3", "random_start: true"]),
    ({"pretraining": {"recipe": "fast", "training": {"batch_size": 100}}}, ["batchnorm_group 64 does not divide"]),
    ({"pretraining": {"training": {"start_scale": 0}}}, ["start_scale = 0", "share of `input_size`"]),
    ({"pretraining": {"training": {"average_decay": 1}}}, ["average_decay = 1", "less than 1"]),
    ({"running": {"save_seconds": -1}}, ["running.save_seconds = -1", "greater than or equal to 0"]),
    ({"pretraining": {"recipe": "My Recipe"}}, ["pretraining.recipe = My Recipe", "pattern"]),
    (grid(eps=[0, -1]), ["grid[0].eps[1] = -1", "0 (standard training) or a positive radius"]),
    (grid(eps=[0, "abc"]), ["grid[0].eps[1] = abc", "4/255"]),
    (grid(eps=[0, "4/254"]), ["grid[0].eps[1] = 4/254", "fraction of 255"]),
    (grid(eps=["4/255"]), ["grid[0]", "4/255 is a fraction of 255, which only norm: linf takes"]),
    (grid(eps=[8], norm="linf"), ["grid[0]", "write 8/255"]),
    (grid(eps=[0.1, 0.10]), ["grid[0].eps", "named twice: 0.1"]),
    (grid(eps=[]), ["grid[0].eps", "at least 1"]),
    (grid(eps=[float("nan")]), ["grid[0].eps[0] = nan", "positive radius"]),
    (grid(norm="l1"), ["grid[0].norm = l1", "l2 or linf"]),
    (grid(seeds=[-1]), ["grid[0].seeds[0] = -1", "greater than or equal to 0"]),
    (grid(targets=["flowers"]), ["grid[0].targets[0] = flowers", "not a target; targets names coarse"]),
    (grid(modes=["full"]), ["grid[0].modes[0] = full", "fixed-feature or full-network"]),
    (grid(views=[24]), ["grid[0].views[0] = 24", "smaller than input_size 24", "use 8, 12 or 16"]),
    (grid(views=["small"]), ["grid[0].views[0] = small", "`native` or a short side in pixels"]),
    (grid(architectures=["resnet_18"]), ["grid[0].architectures[0] = resnet_18", "did you mean resnet18"]),
    (grid(architectures=["resnet9_w16"]), ["grid[0].architectures[0] = resnet9_w16", "6n + 2", "resnet8_w16"]),
    ({"grid": []}, ["grid", "at least 1"]),
    ({"source": "imagenet"}, ["source = imagenet", "no such dataset; datasets defines coarse"]),
    ({"targets": ["coarse", "coarse"]}, ["targets = coarse, coarse", "named twice"]),
    ({"targets": []}, ["targets", "at least 1"]),
    ({"input_size": 4}, ["input_size = 4", "greater than or equal to 16"]),
    ({"experiment": "a/b"}, ["experiment = a/b", "pattern"]),
    ({"datasets": {"coarse": {"origin": {"kind": "zip"}}}}, ["no such kind of origin: zip", "parquet"]),
    ({"datasets": {"new": {"origin": {"path": "x"}}}}, ["datasets.new.origin", "says no kind"]),
    ({"datasets": {"new": {"origin": {"kind": "parquet"}}}}, ["datasets.new.origin.path", "required and not there"]),
    ({"datasets": {"new": {"origin": {"kind": "folder", "path": "x", "split": 1}}}}, ["origin.split", "unknown key"]),
    ({"datasets": {"coarse": {"stored_side": 64}}}, ["datasets.coarse", "above the generator's side 24"]),
    ({"datasets": {"coarse": {"train_limit": 0}}}, ["datasets.coarse.train_limit = 0", "At most this many"]),
    ({"datasets": {"coarse": {"metric": "accuracy"}}}, ["datasets.coarse.metric = accuracy", "mean_per_class"]),
    ({"datasets": {"my set": {"origin": {"kind": "folder", "path": "x"}}}}, ["my set", "pattern"]),
    ({"probing": {"strengths": [0.1, 0]}}, ["probing.strengths[1] = 0", "greater than 0"]),
    ({"probing": {"strengths": [0.1, 0.1]}}, ["probing", "strengths names a value twice"]),
    ({"probing": {"solver": "liblinear"}}, ["probing.solver = liblinear", "write lbfgs or scikit-learn"]),
    ({"knn": {"neighbours": [0]}}, ["knn.neighbours[0] = 0", "greater than 0"]),
    ({"knn": {"neighbours": [5, 5]}}, ["knn", "neighbours names a number twice"]),
    ({"knn": {"weights": "uniform", "temperature": 0.1}}, ["knn", "temperature is not read with weights: uniform"]),
    ({"probing": {"validation_fraction": 1}}, ["probing.validation_fraction = 1", "less than 1"]),
    ({"finetuning": {"learning_rates": []}}, ["finetuning.learning_rates", "at least 1"]),
    ({"finetuning": {"training": {"learning_rate": 1.0}}}, ["finetuning", "list the rates in learning_rates"]),
    ({"figures": {"draw": ["headlines"]}}, ["figures.draw[0] = headlines", "did you mean headline?"]),
    ({"figures": {"fixed_eps": 7}}, ["figures.fixed_eps = 7", "not a robust eps of the grid"]),
    ({"figures": {"widths": ["resnet50"]}}, ["figures.widths[0] = resnet50", "not in the grid"]),
    ({"selection": ["train"]}, ["selection[0] = train", "validation"]),
    ({"preprocessing": {"resize_ratio": 0.5}}, ["preprocessing.resize_ratio = 0.5", "greater than or equal to 1"]),
    ({"pretraining": "fast"}, ["pretraining = fast", "dictionary"]),
]


@pytest.mark.parametrize(("over", "words"), MISTAKES, ids=lambda value: str(value)[:50])
def test_a_mistake_gets_one_message_that_names_key_value_and_fix(
    tmp_path: Path, over: dict[str, Any], words: list[str]
) -> None:
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(yaml.safe_dump({"extends": "default"} | over))
    with pytest.raises(ConfigurationError) as error:
        load([overlay])
    message = str(error.value)
    assert len(message.splitlines()) == 1, message
    assert message.startswith(f"{overlay}: "), message
    for word in words:
        assert word in message


def test_the_message_names_the_file_that_states_the_mistake(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("title: Mine\n")
    bad.write_text("pretraining: {training: {epochs: -3}}\n")
    with pytest.raises(ConfigurationError, match=re.escape(f"{bad}: pretraining.training.epochs = -3")):
        load([DEFAULT, bad, good])


def test_a_mistake_on_the_command_line_is_called_so() -> None:
    with pytest.raises(ConfigurationError, match=r"^--config: source = nothing"):
        validate(overlaid({"source": "nothing"}), [DEFAULT])
    with pytest.raises(ConfigurationError, match=r"^--config: epochs = 3: unknown key"):
        validate(overlaid({"epochs": 3}), [DEFAULT])


def test_every_mistake_is_listed(tmp_path: Path) -> None:
    overlay = tmp_path / "mine.yaml"
    overlay.write_text("pretraining: {training: {epochs: 0, batch_size: 0}}\ninput_sise: 3\n")
    with pytest.raises(ConfigurationError) as error:
        load([DEFAULT, overlay])
    assert len(str(error.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [("- a\n- b\n", "holds a list"), ("a: [1\n", "not YAML"), (None, "no such file")],
)
def test_files_that_are_no_configuration(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=words) as error:
        load([DEFAULT, path])
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("value", "canonical", "name"),
    [
        (0.1, "0.1", "eps0.1"),
        ("0.10", "0.1", "eps0.1"),
        ("1e-1", "0.1", "eps0.1"),
        (3, "3", "eps3"),
        (3.0, "3", "eps3"),
        (10, "10", "eps10"),
        ("0.0", "0", "eps0"),
        ("4/255", "4/255", "eps4of255"),
        (" 4.0 / 255", "4/255", "eps4of255"),
        (".5/255", "0.5/255", "eps0.5of255"),
        ("0/255", "0", "eps0"),
    ],
)
def test_an_eps_has_one_spelling(value: object, canonical: str, name: str) -> None:
    assert canonical_eps(value) == canonical
    assert canonical_eps(canonical) == canonical
    assert eps_name(canonical) == name


def test_a_fraction_of_255_has_its_value() -> None:
    assert eps_value("4/255") == pytest.approx(4 / 255)
    assert eps_value("0.25") == 0.25


def test_numbers_that_yaml_reads_as_text_are_numbers() -> None:
    """YAML 1.1 reads 5e-4, without a dot, as a string."""
    experiment = validate(overlaid({"pretraining": {"training": {"weight_decay": "5e-4"}}}))
    assert experiment.pretraining.training.weight_decay == 5e-4


def test_lists_are_replaced_and_mappings_merged() -> None:
    experiment = validate(overlaid({"targets": ["fine"], **grid()}))
    assert experiment.targets == ("fine",)
    assert experiment.source == "objects"
    assert experiment.figures.draw[0] == "headline"


@pytest.mark.parametrize("path", [DEFAULT, *sorted((ROOT / "experiments").glob("*.yaml"))], ids=lambda path: path.name)
def test_configurations_in_the_repository_are_valid_and_name_the_schema(path: Path) -> None:
    load([path])
    assert {*yaml.safe_load(path.read_text())} <= {*schema.schema()["properties"]}  # as an editor checks it
    named = re.match(r"# yaml-language-server: \$schema=(\S+)", path.read_text())
    assert named
    assert (path.parent / named[1]).resolve() == schema.PATH


def test_the_schema_on_disk_is_the_models() -> None:
    assert json.loads(schema.PATH.read_text()) == schema.schema(), "run `make docs`"
    assert schema.PATH.read_text() == schema.text(), "run `make docs`"


def test_a_recipe_of_another_name_brings_its_own_values() -> None:
    paper = validate(overlaid({"pretraining": {"recipe": "paper"}})).pretraining
    assert (paper.training.epochs, paper.training.batch_size, paper.training.colour_jitter) == (90, 512, 0.1)
    assert paper.training.precision == "fp32"
    assert (paper.attack.steps, paper.attack.use_best) == (3, True)
    fast = validate(overlaid({"pretraining": {"recipe": "fast", "training": {"epochs": 3}}})).pretraining
    assert (fast.training.epochs, fast.training.average_decay, fast.attack.steps) == (3, 0.999, 2)
    kept = validate(overlaid({"pretraining": {"recipe": "short", "training": {"epochs": 3}}})).pretraining
    assert (kept.training.epochs, kept.training.batch_size) == (3, 32)


def test_an_origin_of_another_kind_replaces_the_default_one() -> None:
    origin = {"kind": "folder", "path": "photos"}
    experiment = validate(overlaid({"datasets": {"coarse": {"origin": origin}}}))
    assert experiment.datasets["coarse"].origin.model_dump(exclude_defaults=True) == origin
    assert experiment.datasets["coarse"].label == "Coarse shapes"


def test_every_setting_is_documented() -> None:
    definitions = schema.schema()["$defs"]
    undocumented = [
        f"{name}.{key}"
        for name, model in definitions.items()
        for key, setting in model.get("properties", {}).items()
        if not setting.get("description") and "$ref" not in setting and key not in ("kind", "origin", "architectures")
    ]
    assert undocumented == []


def test_a_notice_speaks_of_the_images_it_came_with(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: default\nexperiment: mine\n")
    assert load([mine]).notice == load([DEFAULT]).notice != ""
    mine.write_text("extends: default\nsource: fine\ntargets: [coarse]\n")
    assert (load([mine]).title, load([mine]).notice) == ("", "")
    mine.write_text("extends: default\nsource: fine\ntargets: [coarse]\nnotice: Mine.\n")
    assert load([mine]).notice == "Mine."
    again = tmp_path / "again.yaml"
    again.write_text("extends: mine.yaml\nsource: objects\n")
    assert (load([again]).title, load([again]).notice) == ("", "Mine.")  # one's own is kept
    mine.write_text("extends: default\ntitle: My title\n")
    again.write_text("extends: mine.yaml\nsource: fine\ntargets: [coarse]\n")
    assert (load([again]).title, load([again]).notice) == ("My title", "")
    assert load([again], {"source": "textures"}).title == "My title"


@pytest.mark.parametrize(
    ("origin", "other"),
    [
        ({"kind": "folder", "path": "data/birds"}, {"kind": "folder", "path": "data/../data/birds/", "seed": 3}),
        ({"kind": "folder", "path": "data/birds"}, {"kind": "parquet", "path": "data/birds"}),
        (
            {"kind": "catalogue", "dataset": "birdsnap"},
            {"kind": "catalogue", "dataset": "birdsnap", "split": "official"},
        ),
        (
            {"kind": "torchvision", "dataset": "CIFAR10", "root": "d"},
            {"kind": "torchvision", "dataset": "CIFAR10", "root": "./d"},
        ),
    ],
)
def test_the_images_of_the_source_are_no_target(origin: dict[str, Any], other: dict[str, Any]) -> None:
    datasets = {"one": {"origin": origin}, "again": {"origin": other, "train_limit": 100}}
    stated = {"datasets": {**datasets, "two": {"origin": {"kind": "folder", "path": "data/two"}}}, "source": "one"}
    grid = [{"architectures": ["resnet8_w8"], "eps": [0]}]
    whole = {"experiment": "mine", "input_size": 32, "grid": grid, **stated}
    assert validate({**whole, "targets": ["two"]}).targets == ("two",)
    with pytest.raises(ConfigurationError, match=r"targets\[1\] = one: the source itself, on which .*; take it out"):
        validate({**whole, "targets": ["two", "one"]})
    with pytest.raises(ConfigurationError, match=r"targets\[0\] = again: the same images as the source, one"):
        validate({**whole, "targets": ["again"]})


def test_a_file_extends_the_experiments_here_by_name(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: own-network\nexperiment: mine\n")
    assert extended([mine]) == [DEFAULT.parent / "experiments" / "own-network.yaml", mine]
    mine.write_text("extends: own-netwrk\n")
    with pytest.raises(ConfigurationError, match=r"extends = own-netwrk: no experiment .*did you mean own-network\?"):
        load([mine])
    (tmp_path / "own-network").write_text("title: A file of that name comes first\n")
    mine.write_text("extends: own-network\n")
    assert extended([mine]) == [tmp_path / "own-network", mine]
