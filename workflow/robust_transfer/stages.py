"""The stages: name, module, whether their entries are dear, and the files an entry of theirs declares."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One stage of the experiment; its entries lie under `store/<name>/`."""

    name: str
    module: str
    """Module with `run(entry, *, threads, device)`; its imports make the stage's fingerprint."""
    dear: bool
    """A dear entry is kept when code changes, and one line says so; a cheap one is made again."""
    files: tuple[str, ...]
    """Outputs beside `card.json` and `timing.json` that every entry of the stage has."""


STAGES = {
    stage.name: stage
    for stage in (
        Stage("datasets", "robust_transfer.datasets.prepare", True, ("train.arrow", "test.arrow")),
        Stage("granularity", "robust_transfer.granularity", True, ("train.arrow", "test.arrow")),
        Stage("pretraining", "robust_transfer.pretraining", True, ("weights.safetensors", "epochs.csv")),
        Stage("evaluation", "robust_transfer.evaluation", False, ("metrics.json",)),
        Stage("features", "robust_transfer.features", False, ("train.arrow", "test.arrow")),
        Stage("probing", "robust_transfer.probing", False, ("metrics.json", "predictions.parquet")),
        Stage("finetuning", "robust_transfer.finetuning", True, ("metrics.json", "predictions.parquet", "epochs.csv")),
    )
}

# What is made for one experiment rather than kept in the store: always cheap.
RESULT_MODULES = {
    "results": "robust_transfer.results",
    "figures": "robust_transfer.figures.draw",
    "report": "robust_transfer.report",
}
