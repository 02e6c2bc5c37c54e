"""How training on a target deviates from what the paper's code did: what the column `variant` says of a number."""

from __future__ import annotations

from robust_transfer.configuration.transfer import Finetuning, LinearHeads
from robust_transfer.configuration.variants import Setting

PAPER_WEIGHT_DECAY = 5e-4
"""Of fine-tuning in the paper's code."""


def deviations_of_heads(heads: LinearHeads) -> dict[str, str]:
    """Of linear heads."""
    plain = _deviations(batchnorm=(heads.batchnorm, "drift"), normalisation=(heads.normalisation, "target"))
    return plain | _of_adversary(heads, "adversarial-head")


def deviations_of_finetuning(finetuning: Finetuning) -> dict[str, str]:
    """Of fine-tuning: what it starts from, what is trained, by which optimiser and under which attack."""
    plain = _deviations(
        normalisation=(finetuning.normalisation, "target"),
        head=(finetuning.head, "random"),
        trainable=(trained_part(finetuning), "all"),
        batchnorm=(finetuning.batchnorm, "train"),
        optimiser=(finetuning.training.optimiser, "sgd"),
        weight_decay=(f"{finetuning.training.weight_decay:g}", f"{PAPER_WEIGHT_DECAY:g}"),
    )
    head_alone = finetuning.trainable == "head"
    return plain | _of_adversary(finetuning, "adversarial-head" if head_alone else "adversarial-full")


def deviations_in_name(finetuning: Finetuning) -> str:
    """What tells an entry of fine-tuning from others in its name; empty for what the section does by default."""
    said = {
        "target": finetuning.normalisation == "target",
        "probe": finetuning.head == "probe",
        trained_part(finetuning).replace(" ", ""): finetuning.trainable != "all",
        "frozenbn": finetuning.batchnorm == "frozen",
        "adversarial": finetuning.attack is not None,
    }
    return "".join(f"_{name}" for name, holds in said.items() if holds)


def _of_adversary(section: LinearHeads | Finetuning, setting: Setting) -> dict[str, str]:
    """The short name of adversarial training, its attack, and what it is chosen by; nothing for standard training."""
    found = {"setting": setting, "attack": section.attack.summary} if section.attack else {}
    if (under := section.choosing) is None:
        return found
    return found | {"choose_by": f"{section.choose_by} at {under.norm} {', '.join(under.eps)}"}


def trained_part(finetuning: Finetuning) -> str:
    """Which part of the network is trained: all, head, or as many of the last blocks."""
    how = finetuning.trainable
    return how if isinstance(how, str) else "last block" if how.last_blocks == 1 else f"last {how.last_blocks} blocks"


def _deviations(**settings: tuple[str, str]) -> dict[str, str]:
    """Settings, each with what the paper's code did, that are something else."""
    return {name: value for name, (value, papers) in settings.items() if value != papers}
