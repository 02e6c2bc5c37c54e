"""`results/<experiment>/about.json`: what the page says of an experiment beside its numbers."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from robust_transfer.configuration.experiment import Experiment
from robust_transfer.dag.methods import label, methods

ABOUT = "about.json"
CAPTIONS = Path(__file__).parents[2] / "report"
"""Folder of the captions that Snakemake's report shows too: Jinja templates in reStructuredText."""


def about(experiment: Experiment, dropped: Collection[str] = ()) -> dict[str, Any]:
    """Methods, captions and settings of an experiment, as JSON values; `dropped` names datasets that are left out."""
    settings = experiment.model_dump(mode="json")
    drawn = list(experiment.figures.draw)
    shown = {**settings, "source_label": label(experiment, experiment.source)}
    return {
        "methods": methods(experiment, dropped),
        "figures": drawn,
        "captions": {name: _caption(name, shown) for name in drawn},
        "configuration": settings,
    }


def _caption(figure: str, settings: dict[str, Any]) -> str:
    from jinja2 import Template  # Snakemake has imported it; the commands do without

    text = (CAPTIONS / f"{figure}.rst").read_text(encoding="utf-8")
    return " ".join(Template(text).render(snakemake=SimpleNamespace(config=settings)).split())
