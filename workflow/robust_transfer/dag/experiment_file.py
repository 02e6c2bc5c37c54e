"""`results/<experiment>/experiment.json`: what the results stage needs to know beside the entries themselves."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

from robust_transfer.configuration.eps import eps_value
from robust_transfer.configuration.experiment import Experiment
from robust_transfer.configuration.training import TEXTURE_ROBUST, TrainedOn
from robust_transfer.configuration.weights import ReleasedWeights, StylizedWeights
from robust_transfer.dag.grid import Grid
from robust_transfer.tables.published import digest_of_published

TRAINED: dict[TrainedOn, str] = {
    "stylized": "stylized images",
    "both": "stylized + native",
    "both-then-native": "stylized + native, then native",
}
"""What legends say of the images that a texture-robust network was trained on."""


def describe(grid: Grid) -> dict[str, Any]:
    """The experiment's names, labels and choices for figures, and the table key of every entry that measures."""
    experiment = grid.experiment
    architectures = tuple(dict.fromkeys(name for part in experiment.grid for name in part.architectures))
    return {
        "experiment": experiment.experiment,
        "title": experiment.title,
        "notice": experiment.notice,
        "store": experiment.store,
        "input_size": experiment.input_size,
        "source": {
            "name": experiment.source,
            "label": _label(experiment, experiment.source),
            **({"metric": metric} if (metric := experiment.datasets[experiment.source].metric) != "top1" else {}),
        },
        "targets": [
            {"name": name, "label": _label(experiment, name), "metric": experiment.datasets[name].metric}
            for name in experiment.targets
            if name not in grid.dropped
        ],
        **({"released": released} if (released := _released(experiment)) else {}),
        **({"texture_robust": robust} if (robust := _texture_robust(experiment)) else {}),
        **({"on_stylized_imagenet": alone} if (alone := _on_stylized_imagenet(experiment)) else {}),
        **({"dropped": [_label(experiment, name) for name in grid.dropped]} if grid.dropped else {}),
        **_drawn_from(experiment),
        **({"norm": experiment.figures.norm} if experiment.figures.norm else {}),
        **({"predictors": list(named)} if (named := experiment.figures.predictors) else {}),
        "architectures": list(architectures),
        "widths": list(experiment.figures.widths or architectures),
        "fixed_eps": _fixed_eps(experiment),
        "bootstrap": experiment.figures.bootstrap,
        "selection": experiment.selection[0],
        "protocol": experiment.figures.protocol,
        "entries": [measurement.as_json() for measurement in grid.measurements.values()],
        "costs": list(grid.entries),
    }


def _label(experiment: Experiment, name: str) -> str:
    return experiment.datasets[name].label or name


def _released(experiment: Experiment) -> list[str]:
    """Names that the experiment gives to the networks which the paper's authors released."""
    return [name for name, weights in experiment.weights.items() if isinstance(weights, ReleasedWeights)]


def _texture_robust(experiment: Experiment) -> dict[str, str]:
    """Recipes of texture-robust networks, trained here or imported, and what legends call them."""
    trained = _trained_on(experiment)
    return {TEXTURE_ROBUST[one]: f"texture-robust, {label}" for one, label in TRAINED.items() if one in trained} | {
        name: f"texture-robust, {name}" for name in _imported(experiment)
    }


def _on_stylized_imagenet(experiment: Experiment) -> list[str]:
    """Those of them that were trained on Stylized ImageNet alone, or on images stylized as it was."""
    here = experiment.stylizing.method == "adain" and "stylized" in _trained_on(experiment)
    imported = [name for name, weights in _imported(experiment).items() if weights.trained_on == "sin"]
    return [*[TEXTURE_ROBUST["stylized"]] * here, *imported]


def _trained_on(experiment: Experiment) -> set[TrainedOn]:
    return {part.trained_on for part in experiment.grid}


def _imported(experiment: Experiment) -> dict[str, StylizedWeights]:
    names = {part.backbones or experiment.backbones for part in experiment.grid if part.trained_on == "native"}
    return {
        name: weights
        for name, weights in experiment.weights.items()
        if name in names and isinstance(weights, StylizedWeights)
    }


def _drawn_from(experiment: Experiment) -> dict[str, str]:
    """What figures are drawn from, if not from ours alone, and then which published numbers there are."""
    source = experiment.figures.source
    return {} if source == "ours" else {"drawn_from": source, "published": digest_of_published()}


def _fixed_eps(experiment: Experiment) -> dict[str, str]:
    """The eps fixed beforehand for each norm: the configured one, or that of most networks; of equals, the middle."""
    found: dict[str, str] = {}
    for norm in dict.fromkeys(part.norm for part in experiment.grid):
        robust = {eps for part in experiment.grid if part.norm == norm for eps in part.eps if eps != "0"}
        networks = Counter(eps for eps, _, _ in _networks(experiment, norm))
        ordered = sorted((eps for eps in robust if networks[eps] == max(networks.values())), key=eps_value)
        if experiment.figures.fixed_eps in robust:
            found[norm] = str(experiment.figures.fixed_eps)
        elif ordered:
            found[norm] = ordered[(len(ordered) - 1) // 2]
    return found


def _networks(experiment: Experiment, norm: str) -> set[tuple[str, str, int]]:
    """The robust networks of a norm: eps, architecture and seed."""
    parts = [part for part in experiment.grid if part.norm == norm]
    networks = {network for part in parts for network in product(part.eps, part.architectures, part.seeds)}
    return {network for network in networks if network[0] != "0"}
