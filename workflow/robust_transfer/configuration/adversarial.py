"""Adversarial training on a target: its adversary, and under which attack hyperparameters are chosen."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from robust_transfer.configuration.eps import Eps, eps_value
from robust_transfer.configuration.training import Attack, Norm

ChooseBy = Literal["clean", "attacked", "expected"]
Share = Annotated[float, Field(ge=0, le=1)]


class TrainingAttack(Attack):
    """The adversary of training on a target: that of pretraining, at a norm and eps of its own.

    With `ramp_start` and `ramp_end` eps is 0 at first and then grows linearly, as Ngnawé et al. (2025, "Robust
    fine-tuning from non-robust pretrained models") schedule it where the backbone is a standard one.
    """

    norm: Norm = "l2"
    """Norm of the threat model."""
    eps: Eps
    """Radius in [0, 1] pixel units at `input_size`, above 0."""
    ramp_start: Share = 0.0
    """Share of the steps before eps begins to grow from 0."""
    ramp_end: Share = 0.0
    """Share of the steps after which eps is whole. Default: from the first step."""

    @property
    def summary(self) -> str:
        """Everything that decides what is trained on, as short text: `linf 4/255, 3 steps`."""
        said = [f"{self.norm} {self.eps}", f"{self.steps} step{'s' * (self.steps > 1)}"]
        said += [f"of {self.relative_step_size:g} ε"] if self.relative_step_size else []
        said += ["random start"] if self.random_start else []
        said += [f"{self.restarts} restarts"] if self.restarts > 1 else []
        said += [] if self.use_best else ["last iterate"]
        said += [f"ramp {self.ramp_start:g} to {self.ramp_end:g}"] if self.ramp_end else []
        return ", ".join(said)

    @model_validator(mode="after")
    def _consistent(self) -> TrainingAttack:
        check_radius(self.norm, self.eps)
        if self.eps == "0":
            raise ValueError("eps = 0: training without an attack; leave `attack` out, or write a positive radius")
        if self.ramp_start > self.ramp_end:
            raise ValueError(f"ramp_start {self.ramp_start:g} is after ramp_end {self.ramp_end:g}: eps is to grow")
        return self


class ChoosingAttack(Attack):
    """The attack on validation images by which hyperparameters are chosen."""

    steps: PositiveInt = 10
    """Gradient steps."""
    relative_step_size: PositiveFloat | None = 0.25
    """Step size as a multiple of eps."""
    random_start: bool = True
    """Start at a random point of the ball, not at the image."""
    norm: Norm = "l2"
    """Norm of the threat model."""
    eps: Annotated[tuple[Eps, ...], Field(min_length=1)]
    """The radius, or for `choose_by: expected` the radii over which accuracy is averaged; 0 are the images as they \
are."""

    @model_validator(mode="after")
    def _radii(self) -> ChoosingAttack:
        for eps in self.eps:
            check_radius(self.norm, eps)
        if len(set(self.eps)) != len(self.eps):
            raise ValueError("eps names a radius twice")
        if self.eps == ("0",):
            raise ValueError("eps = [0]: nothing is attacked; write choose_by: clean, or a positive radius")
        return self


def check_radius(norm: Norm, eps: str) -> None:
    """Raise ValueError for a radius that the norm does not take."""
    if "/" in eps and norm != "linf":
        raise ValueError(f"eps {eps} is a fraction of 255, which only norm: linf takes; for l2 write a decimal")
    if norm == "linf" and eps_value(eps) > 1:
        raise ValueError(f"eps {eps} for norm linf is above 1, the whole pixel range; write {eps}/255?")


def choosing_attack(
    choose_by: ChooseBy, stated: ChoosingAttack | None, attack: TrainingAttack | None
) -> ChoosingAttack | None:
    """The attack under which a choice is made; None where it is made on images as they are.

    Default: PGD of ten steps at the radius of training.
    """
    if choose_by == "clean":
        return None
    return stated or (ChoosingAttack(norm=attack.norm, eps=(attack.eps,)) if attack else None)


def check_choice(
    choose_by: ChooseBy, stated: ChoosingAttack | None, attack: TrainingAttack | None, several: bool
) -> None:
    """Raise ValueError for settings of a choice that contradict each other; `several`: there is something to choose."""
    if choose_by == "clean":
        if stated:
            raise ValueError("chosen_under is not read with choose_by: clean; leave it out, or write attacked")
        return
    if not several:
        raise ValueError(f"choose_by: {choose_by}: there is one learning rate, so nothing is chosen; write clean")
    radii = len(stated.eps) if stated else 0
    if choose_by == "expected" and radii < 2:
        raise ValueError("choose_by: expected is the mean over radii; state two or more as chosen_under.eps")
    if choose_by == "attacked" and radii > 1:
        raise ValueError("choose_by: attacked takes one radius as chosen_under.eps; for several write expected")
    if choose_by == "attacked" and not radii and not attack:
        raise ValueError("choose_by: attacked: there is no attack to take the radius from; state chosen_under.eps")
