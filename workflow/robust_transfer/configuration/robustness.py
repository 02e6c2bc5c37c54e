"""Robustness of transferred models: which attacks they meet on the test images of their targets."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt, field_validator, model_validator

from robust_transfer.configuration.base import Model
from robust_transfer.configuration.eps import Eps, eps_value
from robust_transfer.configuration.training import Attack, Norm, check_autoattack
from robust_transfer.configuration.transfer import Selection


class _How(Model):
    """What section and settings share."""

    eps: tuple[Eps, ...] = ()
    """Radii of the attacks, at the network's input size. Needed where a part of the grid has `robustness: true`."""
    images: PositiveInt | None = 1000
    """Test images of each target that are attacked, drawn by seed and the same for every network; null: all."""
    autoattack: bool = False
    """Attack by AutoAttack too, at the same radii and on the same images: hundreds of times the work of PGD for each \
image that withstands. Needs `make setup EXTRAS=attacks`."""


class Robustness(_How):
    """How transferred models are attacked on test images of their targets: in parts of the grid with
    `robustness: true`.

    Network and head are attacked as one model, normalisation inside: probes, linear heads and fine-tuned networks
    alike. The knn protocol, which has no gradient, and probes on `features.layer` are left out.
    """

    norm: Norm | None = None
    """Norm of the attacks. Default: that of the part of the grid."""
    attack: Attack | None = None
    """The attack. Default: that of `evaluation`."""

    @field_validator("eps")
    @classmethod
    def _radii(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if any(eps_value(one) == 0 for one in values):
            raise ValueError("a radius of 0 is no attack; clean accuracy on the same images is measured anyway")
        if len(set(values)) != len(values):
            raise ValueError("names a radius twice")
        return tuple(sorted(values, key=eps_value))

    @model_validator(mode="after")
    def _library_is_there(self) -> Robustness:
        check_autoattack(self.autoattack)
        return self


class RobustnessSettings(_How):
    """Settings of an entry under `store/robustness/`. Inputs: `backbone`; `model0`, …, the transfers whose models are
    attacked; `dataset0`, … of each model; and what its weights come from: `features0`, …, or `final0`, …
    """

    norm: Norm
    attack: Attack
    selection: Selection = "validation"
    """Where the hyperparameters of the models were chosen."""
    seed: NonNegativeInt = 0
    """Of which images are attacked, and of random starts."""
