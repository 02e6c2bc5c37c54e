"""What figures need to know of an experiment beside its numbers: names, labels and choices.

It travels as metadata of the results file and of the training file, and in the `attrs` of what is read from them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from robust_transfer.tables.errors import TableError
from robust_transfer.tables.key import canonical

if TYPE_CHECKING:
    import pandas as pd

ATTRIBUTE = "experiment"
"""Key of the description in a DataFrame's `attrs` and in a parquet file's metadata."""


@dataclass(frozen=True)
class Target:
    """A downstream dataset as figures show it."""

    name: str
    label: str
    metric: str
    """The accuracy that selection and figures use."""


@dataclass(frozen=True)
class ExperimentInfo:
    """What figures need to know of the experiment beside its numbers."""

    experiment: str
    title: str = ""
    notice: str = ""
    source: str = ""
    source_label: str = ""
    targets: tuple[Target, ...] = ()
    """In the order of figures."""
    architectures: tuple[str, ...] = ()
    widths: tuple[str, ...] = ()
    """Architectures along the x axis of the width figure."""
    fixed_eps: dict[str, str] = field(default_factory=dict)
    """Norm to the eps chosen beforehand."""
    bootstrap: int = 1000
    """Resamples behind the intervals of chosen rows."""
    selection: str = "validation"
    """Where what figures show was chosen, if the table has numbers of several selections."""
    protocol: str | None = None
    """Of fixed-feature transfer, that figures show where several were measured; None: frozen."""
    dropped: tuple[str, ...] = ()
    """Labels of datasets that were left out, since their images are missing."""
    released: tuple[str, ...] = ()
    """Recipes that are networks which the paper's authors released, for which they published accuracies."""
    texture_robust: dict[str, str] = field(default_factory=dict)
    """Recipes of texture-robust networks, which are neither standard nor adversarially robust: to what legends say."""
    on_stylized_imagenet: tuple[str, ...] = ()
    """Those of them that were trained on images stylized as Stylized ImageNet alone, as the paper's own were."""
    source_metric: str = "top1"
    """The accuracy by which transfer to views of the source is judged."""
    drawn_from: str = "ours"
    """What figures are drawn from: `ours`, the `published` numbers, or `both`."""
    norm: str | None = None
    """Norm of the robust networks that figures of one norm show; None: every one, each in panels of its own."""
    predictors: tuple[str, ...] = ()
    """Properties of backbones along the x axes of the figure `predictors`; empty: those that were measured."""

    @property
    def ordered(self) -> tuple[str, ...]:
        """Architectures as figures order them: those of the width figure by width, then the others."""
        return tuple(dict.fromkeys([*self.widths, *self.architectures]))

    @property
    def metrics(self) -> dict[str, str]:
        """The accuracy that selection and figures use, by the dataset transferred to."""
        return {self.source: self.source_metric} | {target.name: target.metric for target in self.targets}

    @classmethod
    def of(cls, table: pd.DataFrame) -> ExperimentInfo:
        """The experiment behind a DataFrame that `read_results` or `read_training` gave.

        Raises TableError if its `attrs` do not hold the description, as where tables of two experiments were joined.
        """
        if ATTRIBUTE not in table.attrs:
            raise TableError(
                f"a table without attrs[{ATTRIBUTE!r}], the experiment's description; copy it from the table as it was "
                "read: `table.attrs = results.attrs`"
            )
        return cls.from_json(table.attrs[ATTRIBUTE])

    def as_json(self) -> dict[str, Any]:
        """The description as plain JSON values, that `from_json` reads."""
        source = {"name": self.source, "label": self.source_label, "metric": self.source_metric}
        described = {**asdict(self), "source": source}
        plain: dict[str, Any] = json.loads(canonical(described))
        return plain

    @classmethod
    def from_json(cls, described: dict[str, Any]) -> ExperimentInfo:
        """Read the experiment file's description; keys that figures do not need are left alone."""
        return cls(
            experiment=described["experiment"],
            title=described.get("title", ""),
            notice=described.get("notice", ""),
            source=described["source"]["name"],
            source_label=described["source"]["label"],
            targets=tuple(Target(**target) for target in described["targets"]),
            architectures=tuple(described["architectures"]),
            widths=tuple(described.get("widths", described["architectures"])),
            fixed_eps=dict(described.get("fixed_eps") or {}),
            bootstrap=int(described.get("bootstrap", 1000)),
            selection=described.get("selection", "validation"),
            protocol=described.get("protocol"),
            dropped=tuple(described.get("dropped") or ()),
            released=tuple(described.get("released") or ()),
            texture_robust=dict(described.get("texture_robust") or {}),
            on_stylized_imagenet=tuple(described.get("on_stylized_imagenet") or ()),
            source_metric=described["source"].get("metric", "top1"),
            drawn_from=described.get("drawn_from", "ours"),
            norm=described.get("norm"),
            predictors=tuple(described.get("predictors") or ()),
        )
