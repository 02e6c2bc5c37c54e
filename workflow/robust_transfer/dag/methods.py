"""The methods section of an experiment's report, written from its configuration in reStructuredText.

Every sentence is of this experiment: what it does not train, measure or choose is not mentioned.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import assert_never
from unicodedata import east_asian_width

from robust_transfer.configuration.conflicts import ShapesConflicts
from robust_transfer.configuration.eps import eps_value
from robust_transfer.configuration.experiment import TRAINED, Experiment, GridPart
from robust_transfer.configuration.training import NORM_LABELS, Attack
from robust_transfer.configuration.transfer import Finetuning, LinearHeads
from robust_transfer.configuration.weights import (
    AresWeights,
    FileWeights,
    ReleasedWeights,
    RobustBenchWeights,
    StylizedWeights,
    TimmWeights,
    TorchvisionWeights,
    Weights,
)
from robust_transfer.dag.training_on_targets import training_on_targets

QUESTION = (
    "Do networks that were trained to withstand small perturbations of their input transfer better to other tasks than "
    "networks trained in the standard way, although they are worse at their own?"
)
STYLE = {
    "phase": "the shapes stay and the textures are another image's, whose Fourier amplitudes are taken with its phase",
    "adain": "the shapes stay and the textures are a style image's, by adaptive instance normalisation",
    "texture-swap": "the outline stays and the texture is that of a class drawn at random",
}
"""What becomes of an image that is stylized."""
STYLIZED = {
    "sin": "Stylized-ImageNet",
    "sin-and-in": "Stylized-ImageNet and ImageNet",
    "sin-and-in-then-in": "Stylized-ImageNet and ImageNet, then ImageNet alone",
}


def methods(experiment: Experiment, dropped: Collection[str] = ()) -> str:
    """Title, notice, and how backbones, transfer, choices and intervals of an experiment came about.

    `dropped` names the datasets that are left out, since their images are missing.
    """
    title = _escaped(experiment.title or experiment.experiment)
    notice = _escaped(" ".join(experiment.notice.split()))
    paragraphs = [
        f"{title}\n{'=' * sum(1 + (east_asian_width(letter) in 'WF') for letter in title)}",
        f".. admonition:: Read this first\n\n   {notice}" if notice else "",
        QUESTION,
        "**Backbones.** "
        + " ".join([*_backbones(experiment), *_robustness(experiment), *_source(experiment, dropped)]),
        _cue_conflict(experiment, dropped),
        _gallery(experiment, dropped),
        _left_out(experiment, dropped),
        "**Transfer.** " + " ".join(_transfer(experiment, dropped)),
        _attacked_models(experiment),
        " ".join(_choice(experiment)),
        " ".join(_uncertainty(experiment)),
    ]
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def made_by(software: Mapping[str, str]) -> str:
    """Which version of this software, and which commit where it is known, writes the report.

    `software` is as `store.provenance.software` gives it. It is no part of `methods`, which says what was done: a new
    commit makes no report out of date.
    """
    commit = f", commit ``{software['commit']}``" if software.get("commit") else ""
    return (
        f"**Software.** This report was written by robust-transfer {software['version']}{commit}. What made each "
        "number stands in ``timings.parquet``, column ``details``."
    )


def _backbones(experiment: Experiment) -> list[str]:
    """Which networks are trained, and which are imported from where."""
    sentences, size = [], f"{experiment.input_size} × {experiment.input_size} pixels"
    training = experiment.pretraining.training
    networks: dict[str, list[str]] = {}
    for part in experiment.grid:
        if part.trained_on == "native":
            networks.setdefault(_recipe(experiment, part), []).extend(part.architectures)
    if trained := networks.pop(TRAINED, []):
        sentences.append(
            f"{_listed(trained)} {_are(trained)} trained on {label(experiment, experiment.source)} at {size}, "
            f"for {_counted(training.epochs, 'epoch')} in batches of {training.batch_size}."
        )
    if networks:
        imported = [
            f"{_listed(names)} {_are(names)} imported from published weights "
            f"({recipe}: {_origin(experiment.weights[recipe])})"
            for recipe, names in networks.items()
        ]
        sentences += ["; ".join(imported) + ".", f"Imported networks see images of {size}."]
    return [*sentences, *_texture_robust(experiment)]


def _texture_robust(experiment: Experiment) -> list[str]:
    """How texture-robust networks are trained; nothing where there are none."""
    parts = [part for part in experiment.grid if part.trained_on != "native"]
    if not parts:
        return []
    how = experiment.pretraining.texture_robust
    images = {
        "stylized": f"stylized images for {_counted(how.stylized.epochs, 'epoch')}",
        "both": f"native and stylized images for {_counted(how.both.epochs, 'epoch')}",
        "both-then-native": f"native and stylized images for {_counted(how.both.epochs, 'epoch')} and then native ones "
        f"for {_counted(how.native.epochs, 'epoch')}",
    }
    start = "from random weights" if how.start == "scratch" else "from the weights of a standard network"
    return [
        "Texture-robust networks, which are neither standard nor robust ones, are trained without an attack, "
        f"{start}, on {_listed([images[part.trained_on] for part in parts], ', or on ')}. "
        f"Of a stylized image, {STYLE[experiment.stylizing.method]}."
    ]


def _origin(weights: Weights) -> str:
    """Whose the weights are."""
    match weights:
        case ReleasedWeights():
            return "the networks that the paper's authors trained and released"
        case TorchvisionWeights():
            return f"torchvision's own, {weights.weights}"
        case TimmWeights():
            return "timm's own" + (f", {weights.tag}" if weights.tag else "")
        case StylizedWeights():
            return f"those that Geirhos et al. (2019) trained on {STYLIZED[weights.trained_on]}"
        case RobustBenchWeights():
            return f"{weights.model} of RobustBench, {weights.dataset}, {weights.threat_model}"
        case AresWeights():
            return f"{weights.model} of ARES"
        case FileWeights():
            return f"checkpoints from ``{weights.path}``"
        case _:
            assert_never(weights)


def _robustness(experiment: Experiment) -> list[str]:
    """What ε is, which there are, and how robust networks came to withstand it."""
    robust = [part for part in experiment.grid if any(eps != "0" for eps in part.eps)]
    if not robust:
        return ["All are standard networks (ε 0)."]
    radii = []
    for norm, name in NORM_LABELS.items():
        eps = {one for part in robust if part.norm == norm for one in part.eps if one != "0"}
        if eps:
            radii.append(f"{_listed(sorted(eps, key=eps_value))} in the {name} norm")
    sentences = [
        "A network's ε is the radius of the ball of perturbations that it was trained to withstand, in units of pixels "
        f"between 0 and 1: {', and '.join(radii)}."
    ]
    if any("0" in part.eps for part in experiment.grid):
        sentences.append("A network of ε 0 is a standard one, any other a robust one.")
    of_network: dict[str, set[str]] = {}
    for part in experiment.grid:
        for architecture in part.architectures:
            of_network.setdefault(architecture, set()).update(part.eps)
    if len({frozenset(eps) for eps in of_network.values()}) > 1:
        sentences.append("Not every network is there at every ε.")
    trained = [_recipe(experiment, part) == TRAINED for part in robust]
    if any(trained):
        sentences.append(
            "A robust network sees, at every step of its training, images that "
            f"{_gradient_descent(experiment.pretraining.attack)} has perturbed within that ball"
            + ("." if all(trained) else "; imported ones were trained on perturbed images by those who published them.")
        )
    else:
        sentences.append(
            "A robust network was trained on images perturbed within that ball, by those who published it."
        )
    return sentences


def _source(experiment: Experiment, dropped: Collection[str]) -> list[str]:
    """How backbones are measured on the source."""
    sentences, evaluation = [], experiment.evaluation
    if experiment.source not in dropped:
        robust = any(eps != "0" for part in experiment.grid for eps in part.eps)
        if evaluation.eps or (robust and evaluation.own_eps):
            how = f"clean, and attacked by {_gradient_descent(evaluation.attack)}"
            how += " and by AutoAttack" if evaluation.autoattack else ""
        else:
            how = "it is evaluated on clean images alone"
        sentences.append(
            f"What a network is worth on the source, {label(experiment, experiment.source)}, is its accuracy on the "
            f"source's test images: {how}."
        )
    if any(_recipe(experiment, part) == TRAINED for part in experiment.grid):
        sentences.append("While a network trains, its accuracy on a small sample of training images is measured too.")
    if any("stylized" in part.source_views for part in experiment.grid) and experiment.source not in dropped:
        sentences.append(
            "Some networks are tested on stylized images of the source too, without training: "
            f"{STYLE[experiment.stylizing.method]}."
        )
    return sentences


def _cue_conflict(experiment: Experiment, dropped: Collection[str]) -> str:
    """What networks decide on where shape and texture are of different classes; empty where that is not measured."""
    section = experiment.cue_conflict
    if section is None or {*section.probe} & {*dropped} or not any(part.cue_conflict for part in experiment.grid):
        return ""
    images = "with the shape of one class and the texture of another"
    if isinstance(section.images, ShapesConflicts):
        images = f"of {label(experiment, experiment.source)} that bear the grating of another class"
    decided = "the network's own outputs decide"
    if section.probe:
        sets = _listed([label(experiment, name) for name in section.probe])
        decided = f"a linear probe on features of {sets}, whose images show no conflict, decides"
    of = f", among {len(section.classes)} classes" if section.classes else ""
    return (
        f"**Shape bias.** On images {images}, {decided}{of}. The shape bias is the share of decisions for the shape "
        "among those for the shape or the texture; images whose two classes agree are left out."
    )


def _attacked_models(experiment: Experiment) -> str:
    """How transferred models are attacked; empty where none is."""
    section, parts = experiment.robustness, [part for part in experiment.grid if part.robustness]
    if not parts:
        return ""
    attack = _gradient_descent(section.attack or experiment.evaluation.attack)
    by = f"{attack}{' and by AutoAttack' if section.autoattack else ''}"
    norms = _listed(NORM_LABELS[experiment.attack_norm(part)] for part in parts)
    images = f"{section.images} test images of each target" if section.images else "all test images of each target"
    return (
        f"**Robustness of transferred models.** Network and head as one model are attacked by {by}, within ε "
        f"{_listed(section.eps)} in the {norms} norm, on {images}, the same ones for every network; an image that is "
        "misclassified before an attack is lost. Networks are chosen by their accuracy on clean images."
    )


def _gallery(experiment: Experiment, dropped: Collection[str]) -> str:
    """What galleries show and measure; empty where there are none."""
    if experiment.source in dropped or not any(part.gallery for part in experiment.grid):
        return ""
    how = experiment.gallery
    start = "grey noise" if how.inversion.start == "noise" else "another image"
    return (
        f"**Gallery.** Some networks are shown by adversarial examples, by gradients of their loss, by images that are "
        f"searched for, from {start}, by {how.inversion.steps} steps of Euclidean length {how.inversion.step_size:g} "
        "towards the representation of a test image, and by images that raise the logit of a class. Numbers beside "
        f"them are means over {how.images} test images of the source."
    )


def _left_out(experiment: Experiment, dropped: Collection[str]) -> str:
    """Datasets whose images are missing; empty where none are."""
    absent = [", ".join(label(experiment, name) for name in experiment.targets if name in dropped)]
    if experiment.source in dropped:
        source = label(experiment, experiment.source)
        absent.append(f"the source, {source}, so that no accuracy on it was measured")
    what = "; and ".join(filter(None, absent))
    return f"**Left out**, since their images were not there: {what}." if what else ""


def _transfer(experiment: Experiment, dropped: Collection[str]) -> list[str]:
    """What backbones are transferred to, and how it is measured."""
    transfers = [part for part in experiment.grid if part.modes]
    if not transfers:
        return ["Nothing is transferred: networks are evaluated on the source alone."]
    targets = [label(experiment, name) for name in experiment.targets if name not in dropped]
    sentences = [f"The {'target is' if len(targets) == 1 else 'targets are'} {_listed(targets)}."]
    scopes = {
        (frozenset(part.modes), experiment.targets if part.targets is None else part.targets)
        for part in experiment.grid
    }
    if len(scopes) > 1:
        alone = len(transfers) < len(experiment.grid) and experiment.source not in dropped
        sentences.append(
            "Not every network is transferred to every target in every way"
            + ("; some are evaluated on the source alone." if alone else ".")
        )
    where = f"in layer {experiment.features.layer}" if experiment.features.layer else "before the head"
    if "frozen" in _protocols(experiment):
        sentences.append(
            "*Fixed-feature*: the network is frozen in evaluation mode, and multinomial logistic regression is fitted "
            f"on its activations {where}."
        )
    if "knn" in _protocols(experiment):
        sentences.append(
            "*Fixed-feature, by the knn protocol*: the network is frozen in evaluation mode, and an image is given the "
            f"class that its nearest training images vote for, by the cosine of activations {where}."
        )
    if "paper" in _protocols(experiment):
        sentences += _linear_heads(experiment)
    if "full-network" in _modes(experiment):
        finetuning = experiment.finetuning
        own = ", on images normalised by the statistics stated for it, if any"
        sentences.append(
            "*Full-network*: the head is replaced and every parameter is trained on the target, with "
            f"{_rates(finetuning)}{own if finetuning.normalisation == 'target' else ''}."
        )
    sentences += training_on_targets(experiment)
    if views := [str(view) for part in transfers for view in part.views if isinstance(view, int)]:
        sentences.append(
            f"To take detail away, targets are also downscaled to {_listed(views)} pixels on their short side and "
            "enlarged again."
        )
    if any("stylized" in (*part.views, *part.transfer_to_source) for part in transfers):
        sentences.append(f"Some transfers are to stylized images: {STYLE[experiment.stylizing.method]}.")
    if images := {number for part in transfers for number in part.images_per_class if number != "all"}:
        numbers = _listed([str(number) for number in sorted(images)], " or ")
        subsets = {
            len(part.transfer_seeds_of(number))
            for part in transfers
            for number in part.images_per_class
            if number != "all"
        }
        counts = _listed([str(count) for count in sorted(subsets)], " or ")
        several = f", drawn anew {counts} times" if subsets != {1} else ", drawn once"
        sentences.append(
            f"To see what few images teach, some transfers have only {numbers} training images of each class{several}."
        )
    if in_total := {number for part in transfers for number in part.training_images}:
        numbers = _listed([str(number) for number in sorted(in_total)], " or ")
        subsets = {len(part.transfer_seeds_of("few")) for part in transfers if part.training_images}
        counts = _listed([str(count) for count in sorted(subsets)], " or ")
        several = f", drawn anew {counts} times" if subsets != {1} else ", drawn once"
        sentences.append(
            f"{'Others have' if images else 'To see what few images teach, some transfers have'} only {numbers} "
            f"training images in total, drawn from all of them alike{several}."
        )
    return sentences


def _linear_heads(experiment: Experiment) -> list[str]:
    """Fixed-feature transfer by the paper's protocol."""
    heads = experiment.linear_heads
    statistics = "stay those of pretraining" if heads.batchnorm == "frozen" else "drift to the target's"
    by = "as in pretraining" if heads.normalisation == "source" else "by the statistics stated for the target, if any"
    deviating = any(
        variant.batchnorm or variant.normalisation
        for part in experiment.grid
        if part.modes
        for variant in part.variants
    )
    return [
        "*Fixed-feature, by the paper's protocol*: all weights but the head's are frozen, and the head is trained by "
        f"stochastic gradient descent on augmented images, with {_rates(heads)}.",
        f"BatchNorm's statistics {statistics}, and images are normalised {by}"
        + (", unless a column says otherwise." if deviating else "."),
    ]


def _choice(experiment: Experiment) -> list[str]:
    """Which images hyperparameters, ε and networks are chosen on; empty where nothing is transferred."""
    if not _modes(experiment):
        return []
    selection, chosen = experiment.selection, []
    if "frozen" in _protocols(experiment):
        chosen.append("the strength of the regression")
    if "knn" in _protocols(experiment):
        chosen.append("the number of neighbours")
    # One learning rate is fixed beforehand: a network is then fine-tuned once, unless test images are to choose.
    once = len(experiment.finetuning.learning_rates) == 1 and "test" not in selection
    fixed = "full-network" in _modes(experiment) and once
    if "paper" in _protocols(experiment) or ("full-network" in _modes(experiment) and not once):
        chosen.append("the learning rate")
    if "validation" in selection:
        choose = 'ε and the network of "best robust" numbers, and'
        if chosen:
            choose = (
                f'{_listed(chosen)}, and in "best robust" numbers ε and the network too; after that, training and '
                "validation images are fitted together, and"
            )
        sentences = [
            f"**Choice.** {'With selection on validation, nothing' if 'test' in selection else 'Nothing'} is chosen on "
            "test images.",
            f"Validation images (a dataset's own, or part of its training images) choose {choose} the test images are "
            "looked at once.",
        ]
        if fixed:
            sentences.append(
                "In full-network transfer the learning rate was fixed beforehand: a network is trained once, on the "
                "training images less the validation ones."
            )
    else:
        sentences = [
            f'**Choice.** As in the paper, {_listed(chosen)}, and in "best robust" numbers ε and the network too, are '
            "chosen on the test images that they are reported on, which flatters them."
        ]
    sentences.append("Figures also show one ε that was fixed beforehand.")
    if len(selection) > 1:
        also = "test images, as the paper did" if selection[0] == "validation" else "validation images"
        sentences.append(
            f"Every choice is also made on {also}; figures show what {selection[0]} images choose, and the table of "
            "protocols compares the two."
        )
    return sentences


def _uncertainty(experiment: Experiment) -> list[str]:
    """What intervals are over, and where there are none."""
    sentences = [
        "**Uncertainty.** Intervals hold the true value in 95 of 100 experiments. Those over test images are exact "
        "binomial intervals; they speak of these weights and say nothing about other seeds of training."
    ]
    if any(
        len(part.seeds) > 1 or len({of_set.seed for of_set in part.training_sets()}) > 1 for part in experiment.grid
    ):
        sentences.append(
            "Where there are several seeds, intervals are Student's over seeds, widened by the error over test images, "
            "which all seeds share."
        )
    if _modes(experiment):
        sentences.append("Robust and standard networks are compared on the same test images.")
        if "test" in experiment.selection:
            sentences.append(
                "What was chosen on the test images that it is reported on has no interval; beside it in the results "
                "stands an estimate on images that the choice did not see."
            )
    return sentences


def _recipe(experiment: Experiment, part: GridPart) -> str:
    """`trained`, or the name of the weights that a part's backbones are imported from."""
    return part.backbones or experiment.backbones


def _modes(experiment: Experiment) -> set[str]:
    return {mode for part in experiment.grid for mode in part.modes}


def _protocols(experiment: Experiment) -> set[str]:
    """Protocols by which fixed-feature transfer is measured."""
    return {name for part in experiment.grid if "fixed-feature" in part.modes for name in part.protocols}


def label(experiment: Experiment, name: str) -> str:
    """What figures call a dataset, as reStructuredText."""
    return _escaped(experiment.datasets[name].label or name)


def _rates(settings: LinearHeads | Finetuning) -> str:
    rates = [f"{rate:g}" for rate in settings.learning_rates]
    return f"{'each of the learning rates' if len(rates) > 1 else 'a learning rate of'} {_listed(rates)}"


def _gradient_descent(attack: Attack) -> str:
    """The attack with everything that decides how strong it is."""
    details = [
        f"{attack.step_size:.3g} ε each",
        "from a random start" if attack.random_start else "from the image",
        *([f"the worst of {attack.restarts} starts"] if attack.restarts > 1 else []),
        "the iterate of highest loss" if attack.use_best else "the last iterate",
    ]
    return f"projected gradient descent of {_counted(attack.steps, 'step')} ({', '.join(details)})"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _are(names: Iterable[str]) -> str:
    return "is" if len({*names}) == 1 else "are"


def _listed(names: Iterable[str], conjunction: str = " and ") -> str:
    """Each name once, in this order: `a, b and c`."""
    *names, last = dict.fromkeys(names)
    return f"{', '.join(names)}{conjunction}{last}" if names else last


def _escaped(text: str) -> str:
    """Plain text in which reStructuredText finds no markup."""
    return re.sub(r"[\\*`|]|_(?!\w)", r"\\\g<0>", text)
