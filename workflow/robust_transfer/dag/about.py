"""`results/<experiment>/about.json`: what the page says of an experiment beside its numbers."""

from __future__ import annotations

from typing import Any

from robust_transfer.configuration.gallery import SHEETS
from robust_transfer.dag.captions import caption
from robust_transfer.dag.grid import Grid
from robust_transfer.dag.methods import label, methods

ABOUT = "about.json"


def about(grid: Grid) -> dict[str, Any]:
    """Methods, captions and settings of an experiment, and the entries of its contact sheets, as JSON values."""
    experiment = grid.experiment
    settings = experiment.model_dump(mode="json")
    drawn = list(experiment.figures.draw)
    shown = {**settings, "source_label": label(experiment, experiment.source)}
    return {
        "methods": methods(experiment, grid.dropped),
        "figures": drawn,
        "captions": {name: caption(name, shown) for name in drawn},
        "configuration": settings,
        **({"galleries": galleries} if (galleries := _galleries(grid, shown)) else {}),
        **({"stylized": stylized} if (stylized := _stylized(grid, shown)) else {}),
    }


def _galleries(grid: Grid, settings: dict[str, Any]) -> dict[str, Any]:
    """The entries of galleries, in the grid's order, and the captions of their sheets."""
    entries = [entry.id for entry in grid.stage("gallery").values()]
    captions = {sheet: caption(f"gallery_{sheet}", settings) for sheet in SHEETS}
    return {"entries": entries, "captions": captions} if entries else {}


def _stylized(grid: Grid, settings: dict[str, Any]) -> dict[str, Any]:
    """The entries of stylized datasets with the datasets' labels, and the caption of their sheets."""
    entries = {entry.id: entry.inputs["dataset"].name for entry in grid.stage("stylizing").values()}
    labels = {name: grid.experiment.datasets[dataset].label or dataset for name, dataset in entries.items()}
    return {"entries": labels, "caption": caption("stylizing", settings)} if labels else {}
