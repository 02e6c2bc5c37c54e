"""Configurations: what is accepted, and the one clear message for each thing that is not."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from robust_transfer.configuration import schema
from robust_transfer.configuration.eps import canonical_eps, eps_name, eps_value
from robust_transfer.configuration.files import extended
from robust_transfer.configuration.load import DEFAULT, ConfigurationError, load, merge, validate
from support.mistakes import MISTAKES, NO_WIDTHS, from_files, grid
from support.paths import ROOT


def overlaid(over: dict[str, Any]) -> dict[str, Any]:
    configuration: dict[str, Any] = yaml.safe_load(DEFAULT.read_text())
    merge(configuration, over)
    return configuration


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
    assert message.isprintable(), message
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
    if path.stem == "vit":
        pytest.importorskip("timm", reason="not installed: make setup EXTRAS=timm")
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
    others = "targets: [coarse]\ngrid: [{architectures: [resnet8_w16], eps: [0, 0.4]}]\nfigures: {widths: []}\n"
    mine.write_text("extends: default\nexperiment: mine\n")
    assert load([mine]).notice == load([DEFAULT]).notice != ""
    mine.write_text(f"extends: default\nsource: fine\n{others}")
    assert (load([mine]).title, load([mine]).notice) == ("", "")
    mine.write_text(f"extends: default\nsource: fine\n{others}notice: Mine.\n")
    assert load([mine]).notice == "Mine."
    again = tmp_path / "again.yaml"
    again.write_text("extends: mine.yaml\nsource: objects\n")
    assert (load([again]).title, load([again]).notice) == ("", "Mine.")  # one's own is kept
    mine.write_text("extends: default\ntitle: My title\n")
    again.write_text(f"extends: mine.yaml\nsource: fine\n{others}")
    assert (load([again]).title, load([again]).notice) == ("My title", "")
    assert load([again], {"source": "textures"}).title == "My title"


def test_what_an_alias_shares_is_changed_where_it_is_named_alone(tmp_path: Path) -> None:
    base, mine = tmp_path / "base.yaml", tmp_path / "mine.yaml"
    base.write_text(
        "extends: default\n"
        "datasets:\n"
        "  one: &folder {origin: {kind: folder, path: photos}}\n"
        "  two: *folder\n"
        "  three: {<<: *folder, seed: 3}\n"
    )
    mine.write_text("extends: base.yaml\ndatasets: {one: {train_limit: 5, origin: {path: others}}}\n")
    datasets = load([mine]).datasets
    assert (datasets["one"].train_limit, datasets["two"].train_limit) == (5, None)
    assert [datasets[name].origin.model_dump()["path"] for name in ("one", "two", "three")] == [
        "others",
        "photos",
        "photos",
    ]
    assert datasets["three"].seed == 3


def test_aliases_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    lists = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    path.write_text("\n".join(["a0: &a0 [1]", *lists]))
    with pytest.raises(ConfigurationError, match="aliases make more than 1,000,000 values"):
        load([path])


def test_a_mark_of_byte_order_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes("\ufeffextends: default\ntitle: Café\n".encode())
    assert load([path]).title == "Café"


def test_a_name_in_quotes_may_be_what_yaml_reads_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text('extends: default\nexperiment: "102"\ndatasets: {"no": {origin: {kind: folder, path: x}}}\n')
    experiment = load([path])
    assert experiment.experiment == "102"
    assert "no" in experiment.datasets


def test_each_network_has_a_file_of_its_own() -> None:
    """A standard network is one whatever the norm of its part, and seeds may be padded."""
    experiment = validate(overlaid(from_files("{architecture}_{norm}_{eps}_{seed:03}.pt", eps=[0, 1], seeds=[0, 1])))
    assert experiment.weights["mine"].kind == "files"
    parts = [
        {"architectures": ["resnet8_w8"], "eps": eps, "norm": norm, "backbones": "mine"}
        for norm, eps in (("l2", [0, 1]), ("linf", [0, "1/255"]))
    ]
    weights = {"mine": {"kind": "files", "path": "{eps}.pt"}}
    with pytest.raises(
        ConfigurationError, match=r"one file, 1\.pt, would be resnet8_w8 l2 eps 1 seed 0 and resnet8_w8 linf"
    ):
        validate(overlaid({"weights": weights, **NO_WIDTHS, "grid": parts}))
    weights["mine"]["path"] = "{norm}_{eps}.pt"
    assert len(validate(overlaid({"weights": weights, **NO_WIDTHS, "grid": parts})).grid) == 2
    twice = {"mine": weights["mine"], "again": {"kind": "files", "path": "./{norm}_{eps}.pt"}}
    parts[1] |= {"backbones": "again", "norm": "l2"}
    parts[1]["eps"] = [0]
    with pytest.raises(ConfigurationError, match=r"weights\.again\.path = .* weights\.mine names the same file"):
        validate(overlaid({"weights": twice, **NO_WIDTHS, "grid": parts}))


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
    with pytest.raises(ConfigurationError, match=r"extends = own-netwrk: no such file .*did you mean own-network\?"):
        load([mine])
    (tmp_path / "own-network").write_text("title: A file of that name comes first\n")
    mine.write_text("extends: own-network\n")
    assert extended([mine]) == [tmp_path / "own-network", mine]
