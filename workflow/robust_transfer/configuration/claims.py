"""Claims as data: what is claimed, where, which rows of the results table test it, and by which rule.

A file of claims is YAML with one key, `claims`, a mapping of names to claims. `claims/paper.yaml` has the paper's, and
a file beside it is read too. The claims of one file are tested together (`claims/ledger.py`), so that a file of one's
own changes no verdict of another.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from robust_transfer.configuration.base import Line, Model, Name
from robust_transfer.configuration.eps import Eps, canonical_eps, eps_value
from robust_transfer.configuration.files import ConfigurationError, near_file, read_yaml
from robust_transfer.configuration.gallery import METRICS
from robust_transfer.configuration.mistakes import lines_of
from robust_transfer.configuration.training import Norm
from robust_transfer.configuration.transfer import ProtocolName
from robust_transfer.configuration.variants import SETTINGS, Setting

FOLDER = Path(__file__).parents[3] / "claims"


BEST_ROBUST = "best-robust"
SELECTIONS = ("best", "all", "widths", "narrowest")
"""Of architectures, other than by name."""
SIDES = {"robust": BEST_ROBUST, "standard": "0"}
COUNTS = ("each", "most", "some")


def _check_text(text: str, texts: Collection[str], other: str) -> None:
    """Refuse a text that is none of these, in one message, where something else may stand too."""
    if text not in texts:
        near = difflib.get_close_matches(text, texts, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"write {', '.join(texts)}, or {other}{hint}")


def _architectures(value: object) -> object:
    if isinstance(value, str):
        _check_text(value, SELECTIONS, "a list of names")
        return (value,)
    return value


def _side(value: object) -> object:
    if isinstance(value, str):
        _check_text(value, SIDES, "{eps: 3}, with norm and recipe where they matter")
        return {"eps": SIDES[value]}
    return value


def _count(value: object) -> object:
    if isinstance(value, str):
        _check_text(value, COUNTS, "a number")
    elif not isinstance(value, int) or value < 1:
        raise ValueError(f"write {', '.join(COUNTS)}, or a number from 1 up")
    return value


def _eps(value: object) -> object:
    return value if value == BEST_ROBUST else canonical_eps(value)


class Where(Model):
    """Which rows of the results table test a claim; what is not stated is what figures show."""

    mode: Literal["fixed-feature", "full-network", "source", "cue-conflict", "gallery"]
    """`fixed-feature` or `full-network` transfer; networks as they are, on the `source`, on images whose shape and
    texture are of different classes (`cue-conflict`), or by a number of their galleries (`gallery`)."""
    targets: tuple[Name, ...] | None = None
    """Targets by name; `source` is the source itself. Default: all of the experiment."""
    architectures: Annotated[tuple[Name, ...], BeforeValidator(_architectures)] = ("best",)
    """`best`: the best of all, chosen for each side, as in the headline. Else each by itself: `all`, those of the \
width figure (`widths`), the first of these (`narrowest`), or a list of names."""
    norm: Norm | None = None
    """Norm of the robust networks. Default: l2, or the one there is."""
    protocol: ProtocolName | None = None
    """How transfer was measured. Default: the protocol that figures show."""
    setting: Setting | None = None
    """What was trained on the target, of the mode: a standard or an adversarial head, or the whole network on clean or
    attacked images. A standard head is one of a protocol that trains it, not a probe. Default: what figures show."""
    view: Literal["native", "downscaled", "stylized"] = "native"
    """`native` images, `downscaled` ones with the least detail that was measured, or `stylized` ones."""
    attacked: bool = False
    """Accuracy on attacked images in place of clean ones."""
    metric: Name | None = None
    """Metric of the rows. Default: the target's own; top1 on the source; shape_bias of cue-conflict. A claim on
    galleries states one of theirs."""

    @model_validator(mode="after")
    def _setting_is_of_the_mode(self) -> Where:
        if self.setting and SETTINGS[self.setting][0] != self.mode:
            raise ValueError(f"setting = {self.setting}: it is of mode {SETTINGS[self.setting][0]}, not of {self.mode}")
        return self

    @model_validator(mode="after")
    def _states_the_metric_of_galleries(self) -> Where:
        if self.mode == "gallery" and self.metric not in METRICS:
            raise ValueError(
                f"mode = gallery and metric = {self.metric}: write metric: {', '.join(METRICS[:-1])} or {METRICS[-1]}"
            )
        return self


class Networks(Model):
    """One side of a comparison."""

    eps: Annotated[str, BeforeValidator(_eps)] = BEST_ROBUST
    """Radius of pretraining; 0 is standard, `best-robust` the best of all others."""
    norm: Norm | None = None
    """Norm of the robust networks. Default: that of the claim."""
    recipe: Name | None = None
    """How they were pretrained, such as `texture-robust-stylized`. Default: all but the texture-robust ones."""


Side = Annotated[Networks, BeforeValidator(_side)]
ROBUST, STANDARD = Networks(), Networks(eps="0")
"""The sides that are called `robust`, the best of all robust networks, and `standard`."""


class Difference(Model):
    """One side is better than the other, by the difference of their accuracies on the same images."""

    kind: Literal["difference"]
    better: Side
    """The side that is claimed to be ahead: `robust`, `standard`, or `{eps, norm, recipe}`."""
    than: Side
    """The other side."""
    by_more_than: float = 0.0
    """Percentage points by which it is claimed to be ahead."""
    by_less_than: float | None = None
    """Percentage points by which it is claimed to be ahead at most."""

    @model_validator(mode="after")
    def _two_sides(self) -> Difference:
        if self.better == self.than:
            raise ValueError("better and than name the same networks; a difference is between two sides")
        if self.by_less_than is not None and self.by_less_than <= self.by_more_than:
            raise ValueError(f"by_less_than = {self.by_less_than:g}: write more than by_more_than")
        return self


class BestEps(Model):
    """The best eps of an architecture lies in a range."""

    kind: Literal["best_eps"]
    at_least: Eps = "0"
    """Smallest eps of the range, in pixel units of images of 224 px; at other sizes it is scaled by the side."""
    at_most: Eps | None = None
    """Largest eps of the range. Default: no bound."""
    among: Literal["robust", "all"] = "robust"
    """Best of the robust networks, or of all, the standard one included."""

    @model_validator(mode="after")
    def _is_a_range(self) -> BestEps:
        if self.at_most is not None and eps_value(self.at_most) < eps_value(self.at_least):
            raise ValueError(f"at_most = {self.at_most}: write at least {self.at_least}, which is at_least")
        if self.at_most is None and self.at_least == "0":
            raise ValueError("every eps lies in this range; state at_least or at_most")
        return self


class Optimum(Model):
    """The best robust eps moves as detail is taken away: from native images to those with the least detail."""

    kind: Literal["optimum"]
    moves: Literal["up", "down"]
    """`up`: to a larger eps."""


class Trend(Model):
    """Accuracy rises, or falls, along the width of the network or along eps."""

    kind: Literal["trend"]
    along: Literal["width", "eps"]
    """`width`: over the architectures of the width figure; `eps`: over all eps of an architecture."""
    goes: Literal["up", "down", "not-up", "not-down"]
    """What is claimed; `not-up` is claimed where accuracy does not go up."""
    steps: Literal["each", "overall"] = "overall"
    """`each`: every step goes that way; `overall`: the straight line through all points does."""
    eps: tuple[Eps, ...] | None = None
    """Along width: the eps to look at, each by itself. Default: all."""


class Predicts(Model):
    """Source accuracy predicts transfer better among networks of one eps than over all: R² is larger."""

    kind: Literal["predicts"]
    within: Annotated[tuple[Eps, ...], Field(min_length=1)] | None = None
    """The eps at which it is claimed to predict better. Default: every eps with networks enough."""


Rule = Annotated[Difference | BestEps | Optimum | Trend | Predicts, Field(discriminator="kind")]


class Claim(Model):
    """One claim: a sentence, and what decides whether it holds."""

    statement: Line
    """What is claimed, in one sentence."""
    paper: Line = ""
    """Where the paper says so."""
    published: Line = ""
    """The published value, in words."""
    where: Where
    """Which rows test it."""
    rule: Rule
    """What is compared, and which way it is claimed to go."""
    holds_on: Annotated[str | int, BeforeValidator(_count)] = "each"
    """On how many of the comparisons (targets, architectures, eps) it is claimed: `each`, `most` (more than half), \
`some` (at least one), or a number."""
    answer: Line = ""
    """A clause that follows "it holds that"; the answer at the top of the report is made of those of all claims."""

    @model_validator(mode="after")
    def _fits(self) -> Claim:
        kind, arch = self.rule.kind, self.where.architectures
        if kind in ("best_eps", "optimum") and arch == ("best",):
            raise ValueError(
                f"where.architectures = best: rule {kind} looks at one architecture; write widths, all, or a list"
            )
        if isinstance(self.rule, Trend) and self.rule.along == "eps" and arch == ("best",):
            raise ValueError(
                "where.architectures = best: a trend along eps is of one architecture; write widths, or all"
            )
        if kind in ("optimum", "predicts") and self.where.mode not in ("fixed-feature", "full-network"):
            raise ValueError(
                f"where.mode = {self.where.mode}: rule {kind} needs transfer; write fixed-feature or full-network"
            )
        return self


class Claims(Model):
    """A file of claims."""

    claims: Annotated[dict[Name, Claim], Field(min_length=1)]
    """Claims by name, as the ledger lists them."""


@dataclass(frozen=True)
class Family:
    """The claims of one file, which are tested together."""

    file: str
    """Its name without suffix."""
    claims: dict[str, Claim]


def claim_files() -> list[Path]:
    """The files in `claims/`, the paper's first."""
    return sorted(FOLDER.glob("*.yaml"), key=lambda path: (path.stem != "paper", path.stem))


def read_claims(paths: Sequence[Path] = ()) -> list[Family]:
    """The claims of these files; without files, those of every file in `claims/`, the paper's first.

    Raises ConfigurationError with one line for each mistake, which names the file, the key, its value and the fix.
    """
    files = list(paths) or claim_files()
    families = [Family(path.stem, _read(path)) for path in files]
    first: dict[str, str] = {}
    for path, family in zip(files, families, strict=True):
        for name in family.claims:
            if name in first:
                raise ConfigurationError(
                    f"{path}: claims.{name}: {first[name]} has a claim of that name; give this one another"
                )
            first[name] = str(path)
    return families


def _read(path: Path) -> dict[str, Claim]:
    if not path.is_file():
        raise ConfigurationError(f"{path}: no such file{near_file(path)}")
    content = read_yaml(path)
    if "claims" not in content:
        near = difflib.get_close_matches("claims", content, n=1)
        hint = f"; did you mean it where {near[0]} stands?" if near else ", a mapping of names to claims"
        raise ConfigurationError(f"{path}: claims: required and not there{hint}")
    try:
        return dict(Claims.model_validate(content).claims)
    except ValidationError as error:
        raise ConfigurationError("\n".join(lines_of(error.errors(), content, [path], Claims))) from None
