"""Published weights: backbones that are imported instead of trained."""

from __future__ import annotations

import difflib
import functools
import importlib.util
import os
import re
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, field_validator

from robust_transfer.architectures import CATALOGUE, CIFAR_RESNETS, timm_catalogue, timm_name
from robust_transfer.configuration.base import Model
from robust_transfer.configuration.catalogue.models import (
    ModelDataset,
    PublishedModel,
    ThreatModel,
    ares_models,
    robustbench_models,
)
from robust_transfer.configuration.catalogue.weights import TrainedOn, released_files, weights_catalogue
from robust_transfer.configuration.eps import Eps
from robust_transfer.configuration.paths import ReadPath, resolved
from robust_transfer.configuration.training import Architecture, InputSize, Norm

PLACEHOLDERS = ("architecture", "norm", "eps", "seed")


class ReleasedWeights(Model):
    """The 67 ImageNet networks that the paper's authors released, by architecture, norm and eps."""

    kind: Literal["released"]


class TorchvisionWeights(Model):
    """torchvision's own ImageNet weights."""

    kind: Literal["torchvision"]
    weights: str = "IMAGENET1K_V1"
    """Which of them, as torchvision calls it."""


class TimmWeights(Model):
    """timm's own weights of networks named `timm_<name>` or `timm_<name>.<tag>`. Needs `make setup EXTRAS=timm`."""

    kind: Literal["timm"]
    tag: str | None = None
    """Which of them, as timm calls it: `fb_in1k`. So a network keeps one name whatever its weights. Default: the one \
in the architecture's name, or that which timm prefers."""


class StylizedWeights(Model):
    """Networks trained on Stylized-ImageNet by Geirhos et al. (2019): resnet50, vgg16 and alexnet."""

    kind: Literal["stylized-imagenet"]
    trained_on: TrainedOn = "sin"
    """Stylized-ImageNet, both it and ImageNet, or both and then ImageNet alone."""


class RobustBenchWeights(Model):
    """A network of RobustBench's model zoo, by its name there."""

    kind: Literal["robustbench"]
    model: str
    """As RobustBench calls it: `Salman2020Do_R50`."""
    dataset: ModelDataset = "imagenet"
    """What it was trained on."""
    threat_model: ThreatModel = "Linf"
    """The list of RobustBench's that has it."""


class AresWeights(Model):
    """An ImageNet network of ARES, by its name there."""

    kind: Literal["ares"]
    model: str
    """As ARES calls it: `swinb_at`."""


class FileWeights(Model):
    """Any checkpoints that lie on the disk: state dicts, or training checkpoints that hold one."""

    kind: Literal["files"]
    path: ReadPath
    """Below `running.weights`, or absolute; `~` and `$NAME` are resolved. `{architecture}`, `{norm}`, `{eps}` and \
`{seed}` stand for the network's. Of an eps that is a fraction of 255 the numerator is written. `{seed:02}` pads a \
seed. No two networks share a file."""
    key: Annotated[str, Field(min_length=1)] | None = None
    """Which weights to take of a file that has several: their key in it, such as `state_dict_ema` or \
`ema.state_dict`, or what their names begin with, such as `model_ema`. Default: those at `model`, `state_dict` and the \
like; a file that has a moving average beside the raw weights is refused."""

    @field_validator("path")
    @classmethod
    def _known_placeholders(cls, path: str) -> str:
        if not path.strip() or not path.isprintable():
            raise ValueError("no path; write that of a file below running.weights")
        try:
            fields = [found for found in string.Formatter().parse(path) if found[1] is not None]
        except ValueError as error:
            raise ValueError(f"{error}; write a literal brace twice") from None
        for _, name, width, conversion in fields:
            if name not in PLACEHOLDERS:
                raise ValueError(f"no such placeholder: {name or '{}'}; there are {', '.join(PLACEHOLDERS)}")
            if conversion or not (not width or (name == "seed" and re.fullmatch(r"0[1-9]d?", width))):
                raise ValueError(
                    f"{{{name}}} takes no format; write {{{name}}} alone, or of a seed {{seed:02}} for two digits"
                )
        return path


Weights = Annotated[
    ReleasedWeights
    | TorchvisionWeights
    | TimmWeights
    | StylizedWeights
    | RobustBenchWeights
    | AresWeights
    | FileWeights,
    Field(discriminator="kind"),
]


class ImportingSettings(Model):
    """Settings of an entry under `store/importing/`: a backbone from published weights."""

    architecture: Architecture
    input_size: InputSize
    norm: Norm | None
    """None for eps 0."""
    eps: Eps
    seed: NonNegativeInt = 0
    weights: Weights


def check_weights(weights: Weights, architecture: str, norm: str, eps: str) -> None:
    """Raise ValueError, saying what there is, for a network of which these weights do not exist."""
    if isinstance(weights, ReleasedWeights):
        released_file(architecture, norm, eps)
    elif isinstance(weights, StylizedWeights):
        stylized_file(weights, architecture)
    elif isinstance(weights, RobustBenchWeights | AresWeights):
        _check_model(published_model(weights), architecture, norm, eps)
        return
    elif isinstance(weights, TorchvisionWeights) and architecture not in {*CATALOGUE} - {WIDEST, *CIFAR_RESNETS}:
        raise ValueError(f"torchvision has no weights of {architecture}")
    elif isinstance(weights, TimmWeights) and not timm_name(architecture):
        raise ValueError(f"timm has no weights of {architecture}; its networks are called timm_<name> here")
    elif isinstance(weights, TimmWeights):
        timm_weights(weights, architecture)
    if eps != "0" and not isinstance(weights, ReleasedWeights | FileWeights):
        raise ValueError(f"eps {eps}: {weights.kind} has standard networks only; set eps: [0]")


def timm_weights(weights: TimmWeights, architecture: str) -> str:
    """What timm calls these weights of a network; raises ValueError, with the tags there are, for those it has not."""
    name = str(timm_name(architecture))
    if weights.tag is None:
        return name
    if "." in name:
        raise ValueError(f"tag: {weights.tag}, and {architecture} has a tag in its name; leave one of them out")
    tagged, known = f"{name}.{weights.tag}", [one for one in timm_catalogue() if one.startswith(f"{name}.")]
    if known and tagged not in known:
        tags = ", ".join(one.partition(".")[2] for one in known)
        raise ValueError(f"tag: {weights.tag}: timm has no such weights of {architecture}; there are {tags}")
    return tagged


def published_model(weights: RobustBenchWeights | AresWeights) -> PublishedModel:
    """A network by the name that it is published under; raises ValueError, with near names, for one that is not."""
    if isinstance(weights, AresWeights):
        models, where = ares_models(), "ARES has"
    else:
        where = f"RobustBench has, of {weights.dataset} and {weights.threat_model},"
        models = {
            name: model
            for (dataset, threat_model, name), model in robustbench_models().items()
            if (dataset, threat_model) == (weights.dataset, weights.threat_model)
        }
    if weights.model in models:
        return models[weights.model]
    near = difflib.get_close_matches(weights.model, models, n=3, cutoff=0.4)
    known = [name for name, model in models.items() if model.architecture]
    fix = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known)}" if known else "nor any other"
    raise ValueError(f"{where} no network {weights.model}; {fix}")


def _check_model(model: PublishedModel, architecture: str, norm: str, eps: str) -> None:
    if model.architecture is None:
        raise ValueError(f"{model.name} cannot be imported: it is {model.lacking}")
    if architecture != model.architecture:
        raise ValueError(f"{model.name} is no {architecture}; write architectures: [{model.architecture}]")
    if eps != model.eps or (model.norm and norm != model.norm):
        of_norm = f"norm: {model.norm}, " if model.norm else ""
        raise ValueError(
            f"{model.name} is published for {f'{model.norm} eps {model.eps}' if model.norm else 'no eps'}, and not for "
            f"{norm} eps {eps}; write {of_norm}eps: [{model.eps}]"
        )


WIDEST = "wide_resnet50_4"
"""The paper's own architecture, which torchvision lacks."""


def unknown_name(name: str, architecture: str) -> str | None:
    """What is wrong if torchvision has no weights of that name, with a near one and all there are; else None."""
    names = torchvision_weights().get(architecture, ())
    if not names or name in names:
        return None
    near = difflib.get_close_matches(name, names, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"torchvision has no such weights of {architecture}; {meant}There are {', '.join(names)}"


@functools.cache
def torchvision_weights() -> dict[str, tuple[str, ...]]:
    """What torchvision calls its weights, by architecture; nothing of those that its files do not say it of.

    Read from the files of the installed version, since importing it imports torch (5 ms, where the import takes 8 s of
    processor time). A test holds the names equal to those of torchvision's own enumerations.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return {}
    text = "\n".join(path.read_text() for path in sorted(Path(found.origin).parent.glob("models/*.py")))
    enumerations = {
        name: tuple(re.findall(r"^    (\w+) = ", body, re.MULTILINE))
        for name, body in re.findall(r"^class (\w+)\(WeightsEnum\):\n((?:[ )].*\n|\n)*)", text, re.MULTILINE)
    }
    builder = r"^@register_model\(.*\)\n(?:@.*\n)*def (\w+)\(\s*\*,\s*weights: (?:Optional\[)?(\w+)"
    return {name: enumerations.get(weights, ()) for name, weights in re.findall(builder, text, re.MULTILINE)}


def released_file(architecture: str, norm: str, eps: str) -> str:
    """File name of a released network; raises ValueError, saying which there are, for another one."""
    files = released_files()
    key = (architecture, "l2" if eps == "0" else norm, eps)
    if key not in files:
        of_norm = [one[2] for one in files if one[:2] == key[:2]]
        if of_norm:
            raise ValueError(f"no {architecture} was released for {key[1]} eps {eps}; there are {', '.join(of_norm)}")
        architectures = dict.fromkeys(one[0] for one in files if one[1] == key[1])
        raise ValueError(f"no {architecture} was released for {key[1]}; there are {', '.join(architectures)}")
    return files[key]


def stylized_file(weights: StylizedWeights, architecture: str) -> str:
    """Address of a network trained on Stylized-ImageNet; raises ValueError, saying which there are."""
    known = weights_catalogue().stylized_imagenet
    path = known.files.get(architecture, {}).get(weights.trained_on)
    if path is None:
        there = [f"{name} ({', '.join(files)})" for name, files in known.files.items()]
        raise ValueError(f"no {architecture} trained on {weights.trained_on}; there are {'; '.join(there)}")
    return f"{known.address}/{path}"


def shared_file(networks: Iterable[tuple[str, FileWeights, str, Norm, str, int]]) -> str | None:
    """What is wrong if one file stands for several networks; None if each has its own.

    Networks are given as the name of their weights, these, architecture, norm, eps and seed.
    """
    found: dict[str, tuple[str, str]] = {}
    for name, weights, architecture, norm, eps, seed in networks:
        file = os.path.normpath(named_file(weights, architecture, norm, eps, seed))
        network = f"{architecture} {f'{norm} eps {eps}' if eps != '0' else 'eps 0'} seed {seed}"
        before = found.setdefault(file, (name, network))
        if before[0] != name:
            return (
                f"weights.{name}.path = {weights.path}: weights.{before[0]} names the same file; leave one of them out"
            )
        if before[1] != network:
            return (
                f"weights.{name}.path = {weights.path}: one file, {file}, would be {before[1]} and {network}; "
                "name each network's own file by {architecture}, {norm}, {eps} or {seed}, or list one network in grid"
            )
    return None


def named_file(weights: FileWeights, architecture: str, norm: str | None, eps: str, seed: int) -> str:
    """The path of `files` with its placeholders filled in, `~` and variables resolved."""
    path = weights.path.format(architecture=architecture, norm=norm or "l2", eps=eps.partition("/")[0], seed=seed)
    return str(resolved(path))
