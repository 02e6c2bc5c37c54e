"""Captions of figures, `workflow/report/<figure>.rst`, as text."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from jinja2 import Environment

from robust_transfer.tables.experiment_info import ExperimentInfo

FOLDER = Path(__file__).parents[2] / "report"


def caption(figure: str, about: ExperimentInfo) -> str:
    """The caption of a figure for an experiment, in one line.

    Snakemake's report renders the same file; of its `config` captions read `selection` and `source_label` alone.
    """
    config = {"selection": [about.selection], "source_label": about.source_label or about.source}
    template = Environment(autoescape=False).from_string((FOLDER / f"{figure}.rst").read_text(encoding="utf-8"))
    return " ".join(template.render(snakemake=SimpleNamespace(config=config)).split())
