"""Figures and tables: which are drawn, and the choices they need."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from robust_transfer.configuration.base import Model
from robust_transfer.configuration.eps import Eps
from robust_transfer.configuration.training import Architecture
from robust_transfer.configuration.transfer import Protocol

# In the order of the paper (Table 1, Fig. 2, 3, 5, Table 2, Fig. 6, 7), then what it does not show.
FigureName = Literal[
    "headline",
    "fixed_feature",
    "full_network",
    "source_accuracy",
    "fixed_robustness",
    "width",
    "granularity",
    "training",
    "few_images",
    "protocol_gap",
    "imported",
]


class Figures(Model):
    """What is drawn from the results table."""

    draw: Annotated[tuple[FigureName, ...], Field(min_length=1)] = (
        "headline",
        "fixed_feature",
        "full_network",
        "source_accuracy",
        "fixed_robustness",
        "width",
        "granularity",
        "training",
        "few_images",
        "protocol_gap",
    )
    """headline: Table 1; fixed_feature, full_network: Fig. 2 and 3; source_accuracy: Fig. 5; \
fixed_robustness: Table 2; width: Fig. 6; granularity: Fig. 7; training: the backbones' curves over epochs; \
few_images: transfer from few images of each class; protocol_gap: the paper's way of measuring beside the frozen one; \
imported: source accuracies of imported networks beside the published ones."""
    protocol: Protocol | None = None
    """Protocol of fixed-feature transfer that figures show, where several are measured. Default: frozen."""
    fixed_eps: Eps | None = None
    """The eps, chosen beforehand, that figures show beside the best robust one. Default: the middle one."""
    widths: tuple[Architecture, ...] = ()
    """Architectures along the x axis of the width figure, in this order. Default: all, in the grid's order."""
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    """Resamples behind every interval over images."""
