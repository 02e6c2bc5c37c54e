"""The stages of the experiment in the order data flows: name, module, and whether their entries are dear."""

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


STAGES = {
    stage.name: stage
    for stage in (
        Stage("datasets", "robust_transfer.datasets.prepare", True),
        Stage("granularity", "robust_transfer.granularity", True),
        Stage("importing", "robust_transfer.importing", True),
        Stage("pretraining", "robust_transfer.pretraining", True),
        Stage("evaluation", "robust_transfer.evaluation", False),
        Stage("features", "robust_transfer.features", False),
        Stage("probing", "robust_transfer.probing", False),
        Stage("heads", "robust_transfer.heads", True),
        Stage("finetuning", "robust_transfer.finetuning", True),
        Stage("choosing", "robust_transfer.choosing", False),
    )
}

# What is made for one experiment rather than kept in the store: always cheap.
RESULT_MODULES = {
    "results": "robust_transfer.results",
    "figures": "robust_transfer.figures.draw",
    "report": "robust_transfer.report",
}

# Each figure or table: the module with the function of its name that draws it.
FIGURE_MODULES = {
    name: f"robust_transfer.figures.{module}"
    for name, module in (
        ("headline", "headline"),
        ("fixed_feature", "bars"),
        ("full_network", "bars"),
        ("source_accuracy", "source_accuracy"),
        ("fixed_robustness", "fixed_robustness"),
        ("width", "width"),
        ("granularity", "granularity"),
        ("training", "training"),
        ("few_images", "few_images"),
        ("protocol_gap", "protocol_gap"),
        ("imported", "imported"),
    )
}

TYPESET_FIGURES = ("headline", "fixed_robustness", "protocol_gap", "imported")
"""Those that are tables, and have their text in a .md beside the others."""


def figure_table(figure: str) -> str:
    """The table that a figure is drawn from: a file in `results/<experiment>/`."""
    return "training.parquet" if figure == "training" else "results.parquet"
