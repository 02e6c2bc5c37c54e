"""Variants: other settings of the paper protocol than its sections have, side by side in one experiment."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from robust_transfer.configuration.adversarial import ChooseBy, ChoosingAttack, TrainingAttack
from robust_transfer.configuration.base import Model
from robust_transfer.configuration.transfer import (
    BatchNorm,
    Finetuning,
    FinetuningBatchNorm,
    Head,
    LearningRates,
    LinearHeads,
    Mode,
    Normalisation,
    Trainable,
)

Setting = Literal["standard-head", "adversarial-head", "standard-full", "adversarial-full"]
SETTINGS: dict[Setting, tuple[Mode, bool]] = {
    "standard-head": ("fixed-feature", False),
    "adversarial-head": ("fixed-feature", True),
    "standard-full": ("full-network", False),
    "adversarial-full": ("full-network", True),
}
"""What the literature trains on a target, by name: the mode that it is of, and whether it is adversarial."""


class LinearHeadsChanges(Model):
    """Settings in place of those of the section `linear_heads`."""

    learning_rates: LearningRates | None = None
    """In place of `linear_heads.learning_rates`."""
    attack: TrainingAttack | None = None
    """In place of `linear_heads.attack`."""
    choose_by: ChooseBy | None = None
    """In place of `linear_heads.choose_by`."""
    chosen_under: ChoosingAttack | None = None
    """In place of `linear_heads.chosen_under`."""


class FinetuningChanges(Model):
    """Settings in place of those of the section `finetuning`."""

    learning_rates: LearningRates | None = None
    """In place of `finetuning.learning_rates`."""
    head: Head | None = None
    """In place of `finetuning.head`."""
    trainable: Trainable | None = None
    """In place of `finetuning.trainable`."""
    batchnorm: FinetuningBatchNorm | None = None
    """In place of `finetuning.batchnorm`."""
    attack: TrainingAttack | None = None
    """In place of `finetuning.attack`."""
    choose_by: ChooseBy | None = None
    """In place of `finetuning.choose_by`."""
    chosen_under: ChoosingAttack | None = None
    """In place of `finetuning.chosen_under`."""


class Variant(Model):
    """The paper protocol with other settings than the sections `linear_heads` and `finetuning` have."""

    setting: Setting | None = None
    """A setting of the literature, measured in its own mode alone: `standard-head` and `adversarial-head` are of \
fixed-feature, `standard-full` and `adversarial-full` of full-network transfer. Adversarial ones train under the \
`attack` of their section, standard ones under none."""
    batchnorm: BatchNorm | None = None
    """In place of `linear_heads.batchnorm`."""
    normalisation: Normalisation | None = None
    """In place of `linear_heads.normalisation` and `finetuning.normalisation`."""
    linear_heads: LinearHeadsChanges = LinearHeadsChanges()
    """In place of other settings of the section `linear_heads`."""
    finetuning: FinetuningChanges = FinetuningChanges()
    """In place of other settings of the section `finetuning`."""


Section = TypeVar("Section", LinearHeads, Finetuning)


def linear_heads_of(section: LinearHeads, variant: Variant) -> LinearHeads | None:
    """The section as a variant changes it, unchecked; None where the variant is of the other mode."""
    changes = _stated(variant.linear_heads) | {"batchnorm": variant.batchnorm, "normalisation": variant.normalisation}
    return _changed(section, "fixed-feature", variant, changes)


def finetuning_of(section: Finetuning, variant: Variant) -> Finetuning | None:
    """The section as a variant changes it, unchecked; None where the variant is of the other mode."""
    changes = _stated(variant.finetuning) | {"normalisation": variant.normalisation}
    return _changed(section, "full-network", variant, changes)


def check_section(section: LinearHeads | Finetuning, variant: Variant, name: str) -> None:
    """Raise ValueError if a variant makes of a section, by that name, settings that contradict each other."""
    if variant.setting and SETTINGS[variant.setting][1] and section.attack is None:
        raise ValueError(f"setting = {variant.setting}: under which attack? State `{name}: {{attack: {{eps: …}}}}`")
    try:
        type(section).model_validate(dict(section))
    except ValidationError as error:
        said = (str(one["msg"]).removeprefix("Value error, ") for one in error.errors())
        raise ValueError(f"{name}.{'; '.join(said)}") from None


def _stated(changes: Model) -> dict[str, Any]:
    return {name: getattr(changes, name) for name in type(changes).model_fields}


def _changed(section: Section, mode: Mode, variant: Variant, changes: dict[str, Any]) -> Section | None:
    of, adversarial = SETTINGS[variant.setting] if variant.setting else (mode, None)
    if of != mode:
        return None
    given = {key: value for key, value in changes.items() if value is not None}
    if given.get("choose_by") == "clean":
        given.setdefault("chosen_under", None)  # the section's is not read
    changed = section.model_copy(update=given)
    if adversarial is False and changed.attack:
        # What chooses by the radius of training goes on choosing by it.
        changed = changed.model_copy(update={"attack": None, "chosen_under": changed.choosing})
    return changed
