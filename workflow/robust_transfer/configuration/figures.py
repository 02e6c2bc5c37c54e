"""Figures and tables: which are drawn, and the choices they need."""

from __future__ import annotations

import difflib
import re
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


PREDICTORS = (
    *("source_accuracy", "robust_accuracy", "shape_bias", "inversion_distance", "gradient_low_frequency"),
    *("knn_accuracy", "shape_decisions", "texture_decisions", "inversion_pixels", "inversion_moved", "inversion_ssim"),
    "source_accuracy_stylized",
)
"""Properties of backbones with a fixed name: columns of `backbones.csv`."""
_OTHER_PREDICTORS = re.compile(
    r"source_accuracy_[1-9]\d*px|robust_accuracy_(l2_eps\d+(\.\d+)?|linf_eps\d+(\.\d+)?(of255)?)"
)


def _check_predictor(name: str) -> str:
    if name not in PREDICTORS and not _OTHER_PREDICTORS.fullmatch(name):
        near = difflib.get_close_matches(name, PREDICTORS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(
            f"no such property of backbones; write {', '.join(PREDICTORS)}, source_accuracy_<pixels>px, or "
            f"robust_accuracy_<norm>_eps<radius>, such as robust_accuracy_l2_eps0.5{hint}"
        )
    return name


Predictor = Annotated[str, AfterValidator(_check_predictor)]


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
    predictors: tuple[Predictor, ...] = ()
    """Properties of backbones along the x axes of `predictors` and in the columns of `predictors_table`: columns of\
 `backbones.csv`. Default: those that were measured, of shape bias and galleries one number each."""
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    """Resamples of test images, for the stability of choices and the error that all seeds share."""

    @field_validator("draw", "widths", "predictors")
    @classmethod
    def _nothing_twice(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}; name each once")
        return names
