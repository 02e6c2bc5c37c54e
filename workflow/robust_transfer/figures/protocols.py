"""Protocols and selections: how transfers were measured, where they were chosen, and which of these figures show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from robust_transfer.configuration.eps import eps_value
from robust_transfer.configuration.transfer import PROTOCOLS, ProtocolName
from robust_transfer.configuration.variants import SETTINGS
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.key import canonical

FIXED_FEATURE, FULL_NETWORK = "fixed-feature", "full-network"
MODE_LABELS = {FIXED_FEATURE: "Fixed-feature", FULL_NETWORK: "Full-network"}
FROZEN: ProtocolName = "frozen"
PAPER: ProtocolName = "paper"
KNN: ProtocolName = "knn"
IMAGES = "images_per_class"
IN_TOTAL = "training_images"
ADVERSARIAL = "attack"
"""In a variant: training on the target was adversarial, under the attack that it says."""
SETTING = "setting"
"""In a variant: the literature's name for what was trained on the target, if that was adversarial."""
STANDARD_SETTINGS: dict[str, str] = {mode: name for name, (mode, adversarial) in SETTINGS.items() if not adversarial}
"""By mode, the name of what is trained on clean images."""
ODD = (IMAGES, IN_TOTAL, "layer", ADVERSARIAL)
"""Deviations that a figure names although it shows no other way of measuring."""
STYLIZED = "stylized"
"""In a variant: images are stylized, by the method that it says."""
NATIVE = 0
"""Stands in the column `downscaled` for images as they are."""


@dataclass(frozen=True)
class Protocol:
    """How a transfer was measured."""

    mode: str
    name: str | None
    deviations: str
    """JSON of what deviates from the protocol, the view of the images left out."""


def preference(protocol: Protocol) -> int:
    """A protocol's place among all that there are: the frozen one is first."""
    return [*PROTOCOLS, protocol.name].index(protocol.name)


def protocol_details(protocol: Protocol) -> str:
    """A protocol's name, and what deviates from it: `paper protocol, batchnorm: frozen`."""
    details = [f"{protocol.name} protocol"] if protocol.name else []
    return ", ".join([*details, *_said(json.loads(protocol.deviations))])


def distinctions(protocols: Sequence[Protocol]) -> dict[Protocol, str]:
    """What tells each way of measuring from the others of its mode; empty where it is the only one.

    Where some of a protocol's settings have a name, the standard ones have theirs too. What all of a mode and protocol
    share is left out, the attack that all adversarial ones share included.
    """
    said: dict[Protocol, str] = {}
    for one in protocols:
        alike = [other for other in protocols if (other.mode, other.name) == (one.mode, one.name)]
        own = json.loads(one.deviations)
        others = [json.loads(other.deviations) for other in alike]
        named = {name: value for name, value in own.items() if any(other.get(name) != value for other in others)}
        named.pop(SETTING, None)
        setting = own.get(SETTING, "")
        if any(SETTING in other for other in others):
            setting = setting or STANDARD_SETTINGS.get(one.mode, "")
            if len({other[ADVERSARIAL] for other in others if ADVERSARIAL in other}) == 1:
                named.pop(ADVERSARIAL, None)
        several = [other for other in protocols if other.mode == one.mode]
        name = f"{one.name} protocol" if one.name and not setting and len({other.name for other in several}) > 1 else ""
        said[one] = ", ".join(filter(None, [name, setting, *_said(named)])) if len(several) > 1 else ""
    return said


def shared_details(protocols: Sequence[Protocol]) -> list[str]:
    """What `distinctions` leaves out, in words: the deviations that all of one mode and protocol share."""
    said = []
    for mode, name in dict.fromkeys((one.mode, one.name) for one in protocols):
        alike = [json.loads(one.deviations) for one in protocols if (one.mode, one.name) == (mode, name)]
        shared = {key: value for key, value in alike[0].items() if all(other.get(key) == value for other in alike)}
        shared.pop(SETTING, None)
        attacks = {one[ADVERSARIAL] for one in alike if ADVERSARIAL in one} if len(alike) > 1 else set[str]()
        adversarial = {"adversarial under": attacks.pop()} if len(attacks) == 1 and ADVERSARIAL not in shared else {}
        if len([one for one in protocols if one.mode == mode]) > 1 and (shared or adversarial):
            protocol = f", {name} protocol" if name else ""
            said.append(f"{MODE_LABELS.get(mode, mode)}{protocol}: {', '.join(_said(shared | adversarial))}")
    return said


def _said(deviations: dict[str, object]) -> list[str]:
    """Deviations in words, the name of a setting first."""
    order = sorted(deviations.items(), key=lambda item: item[0] != SETTING)
    return [str(value) if name == SETTING else f"{name.replace('_', ' ')}: {value}" for name, value in order]


def protocol_label(protocol: Protocol) -> str:
    """A protocol in words: mode, name, and what deviates from it."""
    details = protocol_details(protocol)
    return MODE_LABELS.get(protocol.mode, protocol.mode) + (f" ({details})" if details else "")


def shown_protocol(protocols: Sequence[Protocol], about: ExperimentInfo) -> Protocol | None:
    """The protocol that figures show: the experiment's, else the frozen one, else the paper's, and of several ways of
    training the standard one with the fewest deviations.

    None if there are none.
    """

    def order(one: Protocol) -> tuple[bool, int, bool, int]:
        deviations = json.loads(one.deviations)
        return one.name != about.protocol, preference(one), ADVERSARIAL in deviations, len(deviations)

    return min(protocols, key=order, default=None)


def shown_selection(results: pd.DataFrame) -> str:
    """The selection that figures show: the experiment's where the table has numbers of it, else the one there is."""
    return next(iter(selections(results)), ExperimentInfo.of(results).selection)


def selections(results: pd.DataFrame) -> list[str]:
    """Where what the table holds was chosen, the selection that figures show first."""
    about = ExperimentInfo.of(results)
    found = results.loc[results["mode"] != "source", "selection"].dropna().unique()
    return sorted(map(str, found), key=lambda one: (one != about.selection, one != "validation"))


def attacks_on_transfers(results: pd.DataFrame) -> list[str]:
    """What transferred models were measured under, as the column `attack` has it: images as they are, then PGD, then
    AutoAttack, each by growing radius."""
    kinds = ("none", "", "autoattack")
    transfers = results[~results["mode"].isin(["source"]) & results["attack"].notna()]
    said = {str(text): json.loads(text) for text in transfers["attack"].unique()}
    return sorted(said, key=lambda text: (kinds.index(said[text].get("kind", "")), eps_value(said[text]["eps"]), text))


def under(rows: pd.DataFrame, attack: str | None) -> pd.Series[bool]:
    """Which rows are of images under this attack, or with None of clean ones."""
    return rows["attack"].isna() if attack is None else (rows["attack"] == attack).fillna(False).astype(bool)


def with_views(rows: pd.DataFrame, *, said: bool) -> pd.DataFrame:
    """With what the variants say: `downscaled`, the size in pixels or `NATIVE`, and the other `deviations`.

    `said`: how many training images there were is among these, where it were not all.
    """
    parsed = {text: json.loads(text) for text in rows["variant"].unique()}
    for variant in parsed.values():
        variant.pop(STYLIZED, None)
    sizes = {text: int(variant.pop("downscaled", NATIVE)) for text, variant in parsed.items()}
    counts = [IMAGES, IN_TOTAL]
    of = rows[["variant", *counts]].astype(dict.fromkeys(counts, "float64")).fillna(NATIVE)
    deviations = [
        canonical(parsed[variant] | {name: int(n) for name, n in zip(counts, few, strict=True) if said and n})
        for variant, *few in of.itertuples(index=False, name=None)
    ]
    return rows.assign(
        protocol=rows["protocol"].astype("string").fillna(""),
        downscaled=rows["variant"].map(sizes).astype("int64"),
        deviations=pd.Series(deviations, rows.index, dtype="string"),
    )
