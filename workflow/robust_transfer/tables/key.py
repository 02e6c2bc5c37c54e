"""The key of a measured number, and the entries that measure as `experiment.json` lists them.

The grid builds the keys, the experiment file carries them, and the results table has a column for each of their fields.
No pandas, no pyarrow: planning reads this too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

BEST_ROBUST = "best-robust"
"""The eps of a number whose eps was chosen, on validation, among all robust ones."""
BEST_ARCH = "best"
"""The arch of a number whose architecture was chosen, on validation."""


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values have equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True)
class MeasurementKey:
    """What was measured, and how: the key columns of the results table that a whole entry shares."""

    source: str
    """Dataset that the backbone was pretrained on."""
    target: str
    """Dataset transferred to; the source itself where `mode` is `source`, `cue_conflict` where it is `cue-conflict`."""
    arch: str
    """Architecture, or `best` where it was chosen."""
    recipe: str
    """How the backbone was pretrained, or whose weights it has."""
    norm: str
    """`l2` or `linf`; `none` for eps 0."""
    eps: str
    """Radius of adversarial pretraining in its canonical spelling, or `best-robust` where it was chosen."""
    backbone_seed: int | None
    """None for a mean over seeds of pretraining, and where the network was chosen."""
    transfer_seed: int | None
    """None for a mean over seeds of transfer, where the network was chosen, and where nothing is transferred."""
    mode: str
    """`source`, `cue-conflict`, `gallery`, `fixed-feature` or `full-network`."""
    protocol: str | None
    """`frozen`, `paper` or `knn`; None where nothing is transferred."""
    variant: str
    """Deviations from the protocol, as canonical JSON."""
    images_per_class: int | None
    """Training images of each class of the target; None: all."""
    training_images: int | None = None
    """Training images of all classes together, drawn alike from all of them; None: no such limit."""

    def of_choice(self, *, arch: str, norm: str, eps: str) -> MeasurementKey:
        """The key of a number whose network was chosen, or averaged over seeds, among those measured this way."""
        return replace(self, arch=arch, norm=norm, eps=eps, backbone_seed=None, transfer_seed=None)


@dataclass(frozen=True)
class Measurement:
    """An entry that measures something: where it lies in the store, and the key of its numbers."""

    entry: str
    """`<stage>/<name>-<hash>`."""
    stage: str
    backbone: str
    """Entry of the backbone that is measured."""
    key: MeasurementKey
    model: str | None = None
    """Entry of the transfer whose model was attacked, where the entry attacks several; None: all numbers of the entry
    are of one thing."""

    def as_json(self) -> dict[str, Any]:
        """One of the `entries` of `experiment.json`: a flat object, with the deviations as an object of their own."""
        listed = {"entry": self.entry, "stage": self.stage, "backbone": self.backbone, **asdict(self.key)}
        listed |= {"model": self.model} if self.model else {}
        return {**listed, "variant": json.loads(self.key.variant)}

    @classmethod
    def from_json(cls, listed: dict[str, Any]) -> Measurement:
        """What `as_json` wrote. Raises KeyError for a field that is missing."""
        fields = {name: listed[name] for name in MeasurementKey.__dataclass_fields__ if name != "training_images"}
        fields["training_images"] = listed.get("training_images")  # a list of an earlier version lacks it
        key = MeasurementKey(**{**fields, "variant": canonical(listed["variant"])})
        return cls(listed["entry"], listed["stage"], listed["backbone"], key, listed.get("model"))
