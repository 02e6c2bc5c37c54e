"""The reference of configuration files is what the models say, and true of the hashes that the grid computes."""

import datetime
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from robust_transfer.configuration import documentation
from robust_transfer.configuration.adversarial import ChoosingAttack, TrainingAttack
from robust_transfer.configuration.base import Model
from robust_transfer.configuration.documentation import anchor, in_hash
from robust_transfer.configuration.experiment import Experiment
from robust_transfer.configuration.load import validate
from robust_transfer.configuration.test_sets import AlsoTestOn
from robust_transfer.dag.grid import plan

ADVERSARY = {"eps": 0.5, "random_start": True, "ramp_start": 0.25, "ramp_end": 0.75}
EVERYTHING = {
    "experiment": "everything",
    "input_size": 32,
    "datasets": {
        "objects": {"origin": {"kind": "shapes", "task": "objects", "train": 100, "test": 50}, "stored_side": 16},
        "coarse": {"origin": {"kind": "shapes", "task": "coarse", "train": 100, "test": 50}},
        "photos": {"origin": {"kind": "folder", "path": "photos"}},
        "rows": {"origin": {"kind": "parquet", "path": "rows"}},
        "digits": {"origin": {"kind": "torchvision", "dataset": "MNIST", "root": "digits"}},
        "birds": {"origin": {"kind": "catalogue", "dataset": "birdsnap"}},
    },
    "source": "objects",
    "targets": ["coarse", "photos", "rows", "digits", "birds"],
    "weights": {
        "mine": {"kind": "files", "path": "{architecture}.pt"},
        "theirs": {"kind": "torchvision"},
        "stylized": {"kind": "stylized-imagenet"},
        "released": {"kind": "released"},
    },
    "grid": [
        {"architectures": ["resnet8_w4"], "eps": [0, 0.5], "protocols": ["frozen", "paper", "knn"], "variants": [{}]},
        {"architectures": ["resnet8_w4"], "eps": [0], "targets": ["coarse"], "views": [12]},
        {"architectures": ["resnet8_w4"], "eps": [0], "targets": ["rows"], "robustness": True},
        {"architectures": ["resnet8_w4"], "eps": [0, 0.5], "seeds": [0, 1], "modes": [], "gallery": True},
        {"architectures": ["resnet50"], "eps": [0], "backbones": "mine", "modes": []},
        {"architectures": ["resnet50"], "eps": [0], "backbones": "theirs", "modes": []},
        {"architectures": ["resnet50"], "eps": [0], "backbones": "stylized", "modes": []},
        {"architectures": ["resnet50"], "eps": [0, 3], "backbones": "released", "modes": []},
        {"architectures": ["resnet8_w4"], "eps": [0], "trained_on": "both-then-native", "modes": []},
        {"architectures": ["resnet8_w4"], "eps": [0], "trained_on": "stylized", "modes": []},
    ],
    "stylizing": {"method": "adain", "styles": "photos"},
    "pretraining": {"training": {"batchnorm_group": None}, "attack": {"random_start": True}},
    "linear_heads": {"attack": ADVERSARY, "choose_by": "attacked", "chosen_under": {"eps": [0.5]}},
    "finetuning": {
        "normalisation": "target",
        "attack": ADVERSARY,
        "choose_by": "attacked",
        "chosen_under": {"eps": [0.5]},
    },
    "robustness": {"eps": [0.5], "attack": {"random_start": True}},
    "cue_conflict": {"images": {"kind": "parquet", "path": "cues"}, "probe": {"coarse": {"cat": ["shape 1"]}}},
}
# Another value where the usual one is none, or where any other would not do.
OTHERS: dict[str, Any] = {
    "also_test_on": {"photos": (AlsoTestOn(dataset="rows"),)},
    "0.5": "0.3",
    "architectures": ("resnet8_w8",),
    "attack": TrainingAttack(eps="0.3"),
    "attack.relative_step_size": 0.3,
    "autoattack_images": 7,
    "backbones": "mine",
    "batchnorm": "frozen",
    "batchnorm_group": 8,
    "birdsnap": "cars",
    "choose_by": "clean",
    "chosen_under": ChoosingAttack(eps=("0.3",)),
    "classes": ("cat", "dog", "car"),
    "container": "robust-transfer.sif",
    "eps": ("0", "0.25"),
    "fixed_eps": "0.5",
    "head": "probe",
    "key": "ema",
    "label": "A label",
    "layer": "layer1",
    "learning_rates": (0.3, 0.2),
    "mean": (0.4, 0.5, 0.6),
    "norm": "linf",
    "normalisation": "source",
    "perturbations": ("0.7",),
    "precision": "bf16",
    "predictors": ("shape_bias",),
    "probe": {"coarse": {"cat": ("shape 2",)}},
    "protocol": "paper",
    "relative_step_size": 0.3,
    "setting": "adversarial-head",
    "source": "coarse",
    "stop_before": datetime.datetime(2030, 1, 31, tzinfo=datetime.UTC),
    "stored_side": 24,
    "split": "official",
    "std": (0.2, 0.3, 0.4),
    "styles": "rows",
    "targets": ("coarse",),
    "test": {"train": False, "split": "test"},
    "test_limit": 40,
    "training_images": (40,),
    "transfer_seeds": (0, 1),
    "transfer_to_source": ("stylized",),
    "trainable": "head",
    "train": {"train": True, "split": "train"},
    "train_limit": 40,
    "validation": {"split": "validation"},
    "views": (12,),
    "widths": ("resnet50",),
    "workers": 2,
}
FIXED = ("kind", "revision")
"""Keys with one value that is allowed where they stand."""


@pytest.fixture(scope="module")
def everything() -> Experiment:
    experiment = validate(EVERYTHING)
    evaluation = experiment.evaluation.model_copy(update={"autoattack": True})  # without asking for the library
    robustness = experiment.robustness.model_copy(update={"autoattack": False})
    return experiment.model_copy(update={"evaluation": evaluation, "robustness": robustness})


def hashes(experiment: Experiment) -> set[str]:
    return {entry.hash for entry in plan(experiment).entries.values()}


def variations(value: Any, path: str = "") -> Iterator[tuple[type[Model], str, str, Any]]:
    """Every key of a model and of those below it: model, key, where, and `value` with another value there."""
    for key, field in type(value).model_fields.items():
        held, where = getattr(value, key), f"{path}.{key}".lstrip(".")
        if isinstance(held, Model):
            for model, name, place, changed in variations(held, where):
                yield model, name, place, value.model_copy(update={key: changed})
        elif isinstance(held, tuple) and held and isinstance(held[0], Model):
            for i, one in enumerate(held):
                for model, name, place, changed in variations(one, f"{where}[{i}]"):
                    yield model, name, place, value.model_copy(update={key: (*held[:i], changed, *held[i + 1 :])})
        elif isinstance(held, dict) and held and all(isinstance(one, Model) for one in held.values()):
            for label, one in held.items():
                for model, name, place, changed in variations(one, f"{where}.{label}"):
                    yield model, name, place, value.model_copy(update={key: {**held, label: changed}})
        elif key not in FIXED and (key not in OF_THE_SOURCE or getattr(value, "task", "objects") == "objects"):
            yield type(value), key, where, value.model_copy(update={key: other(key, held, field.annotation)})


OF_THE_SOURCE = ("classes", "misleading", "twins")
"""Settings of the generator that the task `objects` alone reads."""
AT_MOST = ("classes",)
"""Numbers whose default is the largest there may be."""


def other(key: str, held: Any, annotation: Any) -> Any:
    """Another value of the same type."""
    if held is None or (held == {} and key in OTHERS):
        return OTHERS[key]
    options = [option for option in choices(annotation) if option not in (held, *(held or ()))] if held != () else []
    if isinstance(held, bool):
        return not held
    if options:
        return (options[0],) if isinstance(held, tuple) else options[0]
    if (
        key in OTHERS
        and not isinstance(held, int | float)
        and isinstance(held, tuple) == isinstance(OTHERS[key], tuple)
    ):
        return OTHERS[key]
    if isinstance(held, tuple):
        return tuple(one + 1 for one in held) if held and isinstance(held[0], int | float) else held[:-1]
    if isinstance(held, int):
        return held - 1 if key in AT_MOST else held + 1
    if isinstance(held, float):
        return held * 0.9 + 0.013
    assert isinstance(held, str), (key, held)
    return OTHERS.get(held, f"{held}x")


def choices(annotation: Any) -> list[str]:
    """The options of a Literal, alone or in a list or a union."""
    if typing.get_origin(annotation) is typing.Literal:
        return [option for option in typing.get_args(annotation) if isinstance(option, str)]
    return [option for part in typing.get_args(annotation) if part is not ... for option in choices(part)]


def test_the_document_on_disk_is_what_the_models_say() -> None:
    assert documentation.PATH.read_text() == documentation.text(), "run `make docs`"


def test_what_the_document_says_of_hashes_is_true(everything: Experiment) -> None:
    before = hashes(everything)
    said: dict[str, set[bool]] = {}
    for model, key, _, changed in variations(everything):
        changes = said.setdefault(f"{model.__name__}.{key}: {in_hash(model, key)}", set())
        if changed != everything:
            changes.add(hashes(changed) != before)
    assert [one for one, changes in said.items() if not changes] == [], "no other value was tried"
    wrong = {one for one, changes in said.items() if any(changes) == one.endswith("never")}
    assert not wrong
    assert len(said) > 100


def test_every_key_has_a_row() -> None:
    text = documentation.PATH.read_text()
    for name, model in documentation._models().items():
        if name in Experiment.model_json_schema()["$defs"]:
            for key in model.model_fields:
                assert f"\n| `{key}` | " in text, (name, key)


def test_tables_are_whole() -> None:
    """Every row of a table has as many cells as its head."""
    for table in re.findall(r"(?:^\|.*\n)+", documentation.PATH.read_text(), re.M):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table


def test_anchors_are_those_of_github() -> None:
    assert anchor("`datasets.<name>.origin` of kind `shapes`") == "datasetsnameorigin-of-kind-shapes"
    assert anchor("What is our own, and why") == "what-is-our-own-and-why"
    assert anchor("`linear_heads`") == "linear_heads"


def test_the_command_writes_both_generated_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from robust_transfer.cli import main
    from robust_transfer.configuration import schema

    for generated in (schema, documentation):
        monkeypatch.setattr(generated, "PATH", tmp_path / "new" / generated.PATH.name)
    assert main(["schema"]) == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"schema.json", "configuration.md"}
