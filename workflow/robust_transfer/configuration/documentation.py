"""`docs/configuration.md`, the reference of configuration files, generated from the models as the schema is.

A section for every model, in the order of the file; a row for every key: type, default, what it means, and whether it
is in the hash of the entries it defines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from robust_transfer.configuration import (
    adversarial,
    conflicts,
    datasets,
    experiment,
    figures,
    gallery,
    robustness,
    running,
    training,
    transfer,
    variants,
    weights,
)
from robust_transfer.configuration.base import Model, Name
from robust_transfer.configuration.eps import Eps
from robust_transfer.configuration.experiment import Experiment
from robust_transfer.configuration.figures import FigureName
from robust_transfer.configuration.training import RECIPES, Architecture, Recipe

PATH = Path(__file__).parents[3] / "docs" / "configuration.md"

INTRODUCTION = """\
# Configuration

<!-- Written by `make docs` from the models in workflow/robust_transfer/configuration/. Do not edit by hand. -->

An experiment is one YAML file. `config.yaml` is the default one. A file of your own begins with `extends: default` and
states only what differs from it, or stands alone and states everything that is required. `extends` also takes the name
of an experiment in `experiments/` (`extends: own-network`), of another file, relative to this one, or a list of names.
Mappings merge key by key; lists and values replace the earlier ones. A mapping with another `kind` or `recipe` replaces
the earlier mapping as a whole. With another `source`, title, notice and `cue_conflict` of `config.yaml` are let
go.

```yaml experiment
# mine.yaml
extends: default
experiment: mine
grid:
  - architectures: [resnet8_w16]
    eps: [0, 0.25, 0.5]
    modes: [fixed-feature]
figures: {widths: []}
```

`--config 'key=value'` of Snakemake lies over all files. Editors that know YAML schemas complete every key from
`workflow/robust_transfer/configuration/schema.json`, which the first line of each file in `experiments/` names. A
mistake gets one message before any job starts: the file, the key, its value, and what to write instead.
`python -m robust_transfer check --configfile mine.yaml` gives it too, and of files that are no YAML a better one than
`snakemake`, [which reads them first](running.md#what-is-wrong-with-a-configuration). A key that stands twice in one
mapping is a mistake, and so is a name without quotes that YAML reads as something else: `no`, `on`, `102`.

*In the hash* says whether a key is part of the hash in the names of the entries that it defines
([architecture](architecture.md#the-life-of-an-entry)). A change of such a key makes other entries beside the old ones.

| | |
|---|---|
| always | Its value is always part of the hash. |
| unless default | It is left out while it has its default value, so that a new setting changes no old hash. |
| never | It changes how something is run, shown or named, and never what comes out. |
| its keys | The key holds other keys: see their section below. |

Types: a *name* has letters, digits, `.`, `_` and `-`. An *eps* is a radius in units of pixels in [0, 1] at the
network's input size, written as a decimal (0.25) or, for norm `linf`, as a fraction of 255 (4/255); 0 is standard
training. An *architecture* is a torchvision classification network by name, one of its ResNets with a stem for images
of about 32 pixels (`resnet18_cifar`, `resnet34_cifar`, `resnet50_cifar`), `timm_<name>`, or a small ResNet such as
`resnet8_w16` (8 layers, width 16). YAML reads `5e-4` as text, which is accepted where a number is meant.
"""

# Sections whose keys become the settings of an entry under other names or types than their own.
SETTINGS: dict[type[Model], type[Model]] = {
    datasets.Dataset: datasets.DatasetSettings,
    training.Pretraining: training.PretrainingSettings,
    training.Evaluation: training.EvaluationSettings,
    conflicts.CueConflict: conflicts.CueConflictSettings,
    gallery.Gallery: gallery.GallerySettings,
    transfer.Features: transfer.FeaturesSettings,
    transfer.Probing: transfer.ProbingSettings,
    transfer.LinearHeads: transfer.LinearHeadsSettings,
    transfer.Finetuning: transfer.FinetuningSettings,
    robustness.Robustness: robustness.RobustnessSettings,
}
# Keys that the grid takes apart: what becomes of them in the settings of entries.
ALWAYS, UNLESS_DEFAULT, NEVER = "always", "unless default", "never"
TAKEN_APART: dict[tuple[type[Model], str], str] = {
    **{(Experiment, key): ALWAYS for key in ("input_size", "source", "targets")},
    **{(Experiment, key): UNLESS_DEFAULT for key in ("backbones", "selection")},
    **{(Experiment, key): NEVER for key in ("experiment", "title", "notice", "store", "results", "missing")},
    **{(experiment.GridPart, key): ALWAYS for key in ("architectures", "norm", "eps", "seeds", "modes", "protocols")},
    (experiment.GridPart, "targets"): ALWAYS,
    **{
        (experiment.GridPart, key): UNLESS_DEFAULT
        for key in (
            "backbones",
            "images_per_class",
            "training_images",
            "views",
            "cue_conflict",
            "gallery",
            "robustness",
            "transfer_seeds",
        )
    },
    (gallery.Gallery, "seeds"): ALWAYS,  # as one of the backbones
    (variants.Variant, "batchnorm"): ALWAYS,
    (variants.Variant, "normalisation"): ALWAYS,
    (variants.Variant, "setting"): UNLESS_DEFAULT,
    (datasets.Dataset, "metric"): UNLESS_DEFAULT,  # of transfers: it decides what selection compares
    (training.Evaluation, "own_eps"): ALWAYS,  # as one of the radii
    **{(figures.Figures, key): NEVER for key in figures.Figures.model_fields},
    **{(running.Running, key): NEVER for key in running.Running.model_fields},
}

IN_WORDS: dict[tuple[type[Model], str], str] = {
    (datasets.CatalogueOrigin, "revision"): "the newest",
    (experiment.GridPart, "transfer_seeds"): "0, of few images 0 to 4",
}
"""Defaults that are not what the model says before it is validated."""
WORDS = {
    "integer": "integer",
    "number": "number",
    "string": "text",
    "boolean": "`true` or `false`",
    "object": "mapping",
    "date-time": "time",
}
PLURAL = ("integer", "number", "name", "architecture", "figure")
LONG = 6
"""A list of more numbers than this is shown by its ends."""


def in_hash(model: type[Model], key: str) -> str:
    """`always`, `unless default` or `never`: whether a key of a section is in the hash of the entries it defines."""
    if (model, key) in TAKEN_APART:
        return TAKEN_APART[model, key]
    fields = SETTINGS.get(model, model).model_fields
    field = fields[key] if key in fields else model.model_fields[key]
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    if mark := extra.get("identity"):
        return str(mark)
    return ALWAYS if field.is_required() else UNLESS_DEFAULT


def text() -> str:
    """The reference as it stands in `docs/configuration.md`."""
    return "\n".join(_Reference().lines())


class _Reference:
    """The document in the making: which models have been described, and where."""

    def __init__(self) -> None:
        self.schema = Experiment.model_json_schema()
        self.models = _models()
        self.described: dict[str, str] = {}
        """Model to the heading of its section."""
        kinds = ((Eps, "eps"), (Architecture, "architecture"), (Name, "name"), (FigureName, "figure"))
        self.named = {_canonical(TypeAdapter(kind).json_schema()): name for kind, name in kinds}

    def lines(self) -> Iterator[str]:
        """The document, a string for each line, table or paragraph."""
        yield INTRODUCTION
        yield from self.section("The whole file", "", "Experiment", level=2)

    def section(self, heading: str, path: str, name: str, level: int) -> Iterator[str]:
        """Heading, description and table of a model's keys, then the sections of those keys that hold models."""
        self.described[name] = heading
        schema, model = self.schema["$defs"].get(name, self.schema), self.models[name]
        yield f"{'#' * level} {heading}\n"
        yield _paragraphs(schema.get("description", "")) + "\n"
        yield "| key | type | default | in the hash | |\n|---|---|---|---|---|"
        if model is Experiment:
            yield "| `extends` | file, or list of files | not set | never | What this file builds upon. |"
        for key, setting in schema["properties"].items():
            held = _references(setting)
            mark = "its keys" if held else in_hash(model, key)
            about = _cell(setting.get("description") or self.about(held))
            yield f"| `{key}` | {self.kind(setting)} | {_default(model, key)} | {mark} | {about} |"
        yield ""
        level = 2 if model is Experiment else 3
        for key, setting in schema["properties"].items():
            many = {"array": "[]", "object": ".<name>"}.get(setting.get("type", ""), "")
            for reference in _references(setting):
                below = f"{path}.{key}{many}".lstrip(".")
                yield from self.subsection(below, reference, setting, model.model_fields[key], level)

    def subsection(self, path: str, name: str, setting: Any, field: FieldInfo, level: int) -> Iterator[str]:
        """The section of a model below a key; of one described before, where, and the defaults that differ here."""
        kind = self.schema["$defs"][name]["properties"].get("kind", {}).get("const")
        heading = f"`{path}`" + (f" of kind `{kind}`" if len(_references(setting)) > 1 else "")
        if name not in self.described:
            yield from self.section(heading, path, name, level)
            if self.models[name] is training.Pretraining:
                yield from _recipes()
            return
        before, differing = self.described[name], _differing(field)
        yield f"{'#' * level} {heading}\n"
        yield f"The keys of [{before}](#{anchor(before)}){', with other defaults:' if differing else '.'}\n"
        if differing:
            yield "| key | default |\n|---|---|"
            yield from (f"| `{key}` | {_value(value)} |" for key, value in differing.items())
            yield ""

    def kind(self, setting: Mapping[str, Any]) -> str:
        """The type of a setting, in words."""
        held = _references(setting)
        if held and any(one.get("enum") for one in setting.get("anyOf", ())):  # words, or a mapping
            kinds = [one for one in setting["anyOf"] if one.get("type") != "null"]
            return " or ".join("mapping" if _references(one) else self.kind(one) for one in kinds)
        if held:
            one = "mapping" if len(held) == 1 else "mapping with a `kind`"
            lists = {"array": "list of mappings", "object": f"names, each with a {one}"}
            return lists.get(setting.get("type", ""), one)
        bare = {key: value for key, value in setting.items() if key not in ("default", "title", "identity")}
        for candidate in (bare, {key: value for key, value in bare.items() if key != "description"}):
            if _canonical(candidate) in self.named:
                return self.named[_canonical(candidate)]
        if "anyOf" in setting:
            kinds = [self.kind(one) for one in setting["anyOf"] if one.get("type") != "null"]
            return "eps" if kinds == ["number ≥ 0", "text"] else " or ".join(kinds)
        if "enum" in setting:
            *most, last = (f"`{value}`" for value in setting["enum"])
            return f"{', '.join(most)} or {last}"
        if "const" in setting:
            return f"`{setting['const']}`"
        if setting.get("type") == "array":
            each = setting.get("prefixItems") or [setting["items"]]
            kind, _, bounds = self.kind(each[0]).partition(" ")
            number = f"{len(each)} " if "prefixItems" in setting else "list of "
            return f"{number}{kind}{'s' * (kind in PLURAL)} {bounds}".strip()
        return WORDS[setting.get("format", setting["type"])] + _bounds(setting)

    def about(self, held: list[str]) -> str:
        """What a key without a description of its own holds."""
        if len(held) == 1:
            return str(self.schema["$defs"][held[0]].get("description", ""))
        return "One of the kinds below." if held else "Which kind it is."


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _models() -> dict[str, type[Model]]:
    """The models of all sections by name."""
    modules = (
        adversarial, conflicts, datasets, experiment, figures, gallery, robustness, running, training, transfer,
        variants, weights,
    )  # fmt: skip
    return {
        name: found
        for module in modules
        for name, found in vars(module).items()
        if isinstance(found, type) and issubclass(found, Model)
    }


def _references(setting: Any) -> list[str]:
    """The models that a setting holds, at any depth, each once."""
    found: list[str] = []
    if isinstance(setting, Mapping):
        found += [str(setting["$ref"]).rpartition("/")[2]] if "$ref" in setting else []
        parts = [value for key, value in setting.items() if key not in ("default", "discriminator")]
    else:
        parts = list(setting) if isinstance(setting, list) else []
    return list(dict.fromkeys(found + [name for part in parts for name in _references(part)]))


def _bounds(setting: Mapping[str, Any]) -> str:
    signs = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
    found = [f"{sign} {setting[name]:g}" for name, sign in signs if name in setting]
    return f" {', '.join(found)}" if found else ""


def _default(model: type[Model], key: str) -> str:
    field = model.model_fields[key]
    if field.is_required():
        return "**required**"
    return IN_WORDS.get((model, key)) or _value(field.get_default())


def _value(value: Any) -> str:
    """A default as it is written in YAML; a long list of numbers by its ends."""
    if value is None:
        return "not set"
    if isinstance(value, Model):
        return "below"
    if isinstance(value, tuple) and len(value) > LONG and not isinstance(value[0], str):
        return f"`[{_plain(value[0])}, {_plain(value[1])}, …, {_plain(value[-1])}]` ({len(value)} values)"
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, Model):
        return _plain(value.model_dump(exclude_defaults=True))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain(one)}" for key, one in value.items()) + "}"
    return '""' if value == "" else str(value)


def _differing(field: FieldInfo) -> dict[str, Any]:
    """The defaults of a section at this place that are not those of its model."""
    default = field.get_default()
    if not isinstance(default, Model):
        return {}
    usual = {key: one.get_default() for key, one in type(default).model_fields.items()}
    return {key: getattr(default, key) for key in usual if getattr(default, key) != usual[key]}


def _recipes() -> Iterator[str]:
    """What the names of recipes bring, as a table."""
    yield "### Recipes by name\n"
    yield (
        "`pretraining.recipe` brings these values; those that a file states count over them. Keys that are not listed "
        "have their defaults, and any other name brings no values.\n"
    )
    usual = {"training": Recipe(), "attack": training.Attack()}
    stated = [(part, key) for part in usual for recipe in RECIPES.values() for key in recipe[part]]
    yield f"| key | {' | '.join(f'`{name}`' for name in RECIPES)} |\n|---|{'---|' * len(RECIPES)}"
    for part, key in dict.fromkeys(stated):
        values = (_value(recipe[part].get(key, getattr(usual[part], key))) for recipe in RECIPES.values())
        yield f"| `{part}.{key}` | {' | '.join(values)} |"
    yield ""


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)


def _cell(description: str) -> str:
    """A description on one line of a table."""
    return " ".join(description.split()).replace("|", "\\|")


def _paragraphs(description: str) -> str:
    """A docstring's paragraphs, each on one line."""
    return "\n\n".join(" ".join(part.split()) for part in description.split("\n\n"))
