"""Figures and tables: which are drawn, and the choices they need."""

from __future__ import annotations

import difflib
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, field_validator

from robust_transfer.configuration.base import Model
from robust_transfer.configuration.eps import Eps
from robust_transfer.configuration.training import Architecture, Norm
from robust_transfer.configuration.transfer import ProtocolName
from robust_transfer.registry import FIGURES


def _check_figure(name: str) -> str:
    if name not in FIGURES:
        near = difflib.get_close_matches(name, FIGURES, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"no such figure; write {', '.join(FIGURES)}{hint}")
    return name


FigureName = Annotated[str, AfterValidator(_check_figure), WithJsonSchema({"type": "string", "enum": list(FIGURES)})]


class Figures(Model):
    """What is drawn from the results table."""

    draw: Annotated[
        tuple[FigureName, ...],
        Field(
            min_length=1,
            description="; ".join(
                f"{figure.name}: {figure.shows}{f' ({figure.paper})' if figure.paper else ''}"
                for figure in FIGURES.values()
            )
            + ".",
        ),
    ] = tuple(figure.name for figure in FIGURES.values() if figure.default)
    source: Literal["ours", "published", "both"] = "ours"
    """Whose numbers are drawn: ours; the paper's published ones in their place; or both, ours over the published ones,\
 with the difference beside. Both needs a source named imagenet, and draws targets named as in published/."""
    norm: Norm | None = None
    """Norm of the robust networks that figures show, where there are several; `norms` and `eps_table` have them all.\
 Default: every one, each in panels of its own."""
    protocol: ProtocolName | None = None
    """Protocol of fixed-feature transfer that figures show, where several are measured. Default: frozen."""
    fixed_eps: Eps | None = None
    """The eps, chosen beforehand, that figures show beside the best robust one. Default: the one of most networks, \
of equals the middle one."""
    widths: tuple[Architecture, ...] = ()
    """Architectures along the x axis of the width figure, in this order. Default: all, in the grid's order."""
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    """Resamples of test images, for the stability of choices and the error that all seeds share."""

    @field_validator("draw", "widths")
    @classmethod
    def _nothing_twice(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}; name each once")
        return names
