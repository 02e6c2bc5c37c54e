"""What the methods section says of training on targets where it is not as the paper's: adversaries, starts, parts."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from robust_transfer.configuration.adversarial import TrainingAttack
from robust_transfer.configuration.experiment import Experiment
from robust_transfer.configuration.training import NORM_LABELS
from robust_transfer.configuration.transfer import Finetuning, LinearHeads
from robust_transfer.dag.deviations import trained_part


def training_on_targets(experiment: Experiment) -> list[str]:
    """Sentences, of which there are none for an experiment that trains on its targets as the paper did."""
    heads, networks = _heads(experiment), _networks(experiment)
    sections: list[LinearHeads | Finetuning] = [*heads, *networks]
    sentences = []
    for what, of_mode in (("heads", heads), ("networks", networks)):
        attacks = dict.fromkeys(one.attack for one in of_mode if one.attack)
        if attacks:
            some = "Some" if any(one.attack is None for one in of_mode) else "All"
            sentences.append(
                f"{some} {what} are trained adversarially, at every step on images that the adversary of pretraining "
                f"perturbs against the network as it is then: {' or '.join(map(_said, attacks))}."
            )
    if any(one.head == "probe" for one in networks):
        sentences.append(
            f"{_which(one.head == 'probe' for one in networks)} fine-tuning starts at the head that logistic "
            "regression fits on the frozen network's activations (linear probing, then fine-tuning)."
        )
    parts = dict.fromkeys(_part(one) for one in networks if one.trainable != "all")
    if parts:
        which = _which(one.trainable != "all" for one in networks)
        sentences.append(f"{which} fine-tuning trains {' or '.join(parts)} alone; the rest is frozen.")
    if any(one.batchnorm == "frozen" for one in networks):
        which = _which(one.batchnorm == "frozen" for one in networks)
        sentences.append(f"{which} fine-tuning leaves BatchNorm's statistics those of pretraining.")
    if any(one.training.optimiser == "adamw" for one in networks):
        sentences.append("Networks are fine-tuned by AdamW.")
    under = [one.choosing for one in sections if one.choosing]
    if under:
        radii = ", ".join(dict.fromkeys(f"{NORM_LABELS[one.norm]} {eps}" for one in under for eps in one.eps))
        sentences.append(
            f"{_which(one.choosing is not None for one in sections)} learning rates are chosen by accuracy on "
            f"validation images under attack, averaged where there are several radii ({radii})."
        )
    return sentences


def _heads(experiment: Experiment) -> list[LinearHeads]:
    """The settings under which linear heads are trained, each once."""
    found = (
        experiment.linear_heads_of(variant)
        for part in experiment.grid
        if "fixed-feature" in part.modes and "paper" in part.protocols
        for variant in part.variants
    )
    return list(dict.fromkeys(one for one in found if one))


def _networks(experiment: Experiment) -> list[Finetuning]:
    """The settings under which networks are fine-tuned, each once."""
    found = (
        experiment.finetuning_of(variant)
        for part in experiment.grid
        if "full-network" in part.modes
        for variant in part.variants
    )
    return list(dict.fromkeys(one for one in found if one))


def _said(attack: TrainingAttack) -> str:
    steps = (
        f"{attack.steps} step{'s' * (attack.steps > 1)} within ε {attack.eps} in the {NORM_LABELS[attack.norm]} norm"
    )
    if not attack.ramp_end:
        return steps
    start, end = (round(100 * share) for share in (attack.ramp_start, attack.ramp_end))
    return f"{steps}, where ε is 0 for {start} % of the steps and whole after {end} %"


def _part(finetuning: Finetuning) -> str:
    return f"the {trained_part(finetuning)}" + " with the head" * (finetuning.trainable != "head")


def _which(holds: Iterable[bool]) -> str:
    """`Some` or `All`."""
    every: Collection[bool] = list(holds)
    return "All" if all(every) else "Some"
