"""Training curves: loss and accuracies over epochs, one line per backbone, a row of panels a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from robust_transfer.configuration.eps import eps_value
from robust_transfer.configuration.training import NORM_LABELS
from robust_transfer.figures import legends, style
from robust_transfer.figures.cells import NOT_MEASURED
from robust_transfer.figures.drawing import Drawing
from robust_transfer.figures.labels import architecture_label
from robust_transfer.figures.lettering import wrapped
from robust_transfer.figures.numbers import Number
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.training import NULLABLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEASURES = {
    "loss": "Loss\ntraining batches",
    "train_accuracy": "Accuracy (%)\ntraining batches",
    "clean_accuracy": "Clean accuracy (%)\ncheck sample",
    "robust_accuracy": "Robust accuracy (%)\ncheck sample",
}
MOST = 8
"""Networks that a page has room for."""
SHADE, SHADE_HEIGHT = "#e4e4e4", 0.35
"""Of the learning rate behind the loss: its colour, and how much of the panel its peak takes."""
FEW = 12
"""Epochs up to which each bears a dot."""
COLUMNS = ("entry", "arch", "recipe", "norm", "eps", "seed", "epoch", "series", "value")


@dataclass(frozen=True, eq=False)
class Curve:
    """The training of one backbone."""

    entry: str
    arch: str
    recipe: str
    norm: str
    eps: str
    seed: int
    epochs: pd.DataFrame
    """Rows of the training table, indexed by epoch, in order."""

    def points(self, measure: str) -> pd.Series[float]:
        """Values by epoch, wherever there is one."""
        values = self.epochs[measure]
        return values.dropna() if measure in NULLABLE else values


@dataclass(frozen=True, eq=False)
class Group:
    """Backbones of one network, norm and recipe: a row of panels."""

    label: str
    curves: tuple[Curve, ...]

    @property
    def schedule(self) -> pd.Series[float]:
        """Learning rate by epoch, if all backbones had the same and it has more than one epoch; else nothing."""
        first, *others = (curve.points("learning_rate") for curve in self.curves)
        return first if len(first) > 1 and all(first.equals(other) for other in others) else first.iloc[:0]


def training(table: pd.DataFrame) -> Drawing:
    """Draw every backbone of at most eight networks: those with most backbones, where there are more."""
    every = _groups(table)
    if not every:
        return Drawing(style.nothing(f"Training: {NOT_MEASURED}"), [])
    kept = sorted(range(len(every)), key=lambda i: (-len(every[i].curves), i))[:MOST]
    groups = [group for i, group in enumerate(every) if i in kept]
    curves = [curve for group in groups for curve in group.curves]
    measures = [name for name in MEASURES if name in ("loss", "train_accuracy") or _values(curves, name)]
    height = {1: 1.5, 2: 1.3, 3: 1.15}.get(len(groups), 0.95)
    figure = style.figure(style.PAGE if len(measures) > 2 else style.COLUMN, len(groups) * height + 0.5)
    grid = figure.subplots(len(groups), len(measures), squeeze=False)
    colours = style.eps_colours(sorted(table["eps"].unique(), key=eps_value))
    for place, (group, axes) in enumerate(zip(groups, grid, strict=True)):
        axes[0].set_ylabel(wrapped(group.label, height - 0.1, style.RC["axes.labelsize"]))
        _shade(axes[0], group)
        for name, ax in zip(measures, axes, strict=True):
            _panel(ax, group, name, colours)
            _axes(ax, name, curves, labelled=not any(_values(one.curves, name) for one in groups[place + 1 :]))
    for name, ax in zip(measures, grid[0], strict=True):
        ax.set_title(MEASURES[name], pad=3)
    figure.supxlabel("Epoch", fontsize=7)
    missing = [] if "clean_accuracy" in measures else [legends.words(f"check sample: {NOT_MEASURED}")]
    left_out = [group.label.replace("\n", " ") for i, group in enumerate(every) if i not in kept]
    if left_out:
        names = ", ".join([*left_out[:3], *([f"{len(left_out) - 3} more"] if len(left_out) > 3 else [])])
        missing += legends.remarks(figure, [f"in training.parquet, not drawn: {names}"])
    legends.draw(figure, _eps_handles(curves, colours), [*_other_handles(groups), *missing])
    return Drawing(figure, _numbers(groups, measures))


def _curves(table: pd.DataFrame) -> list[Curve]:
    """Every backbone, in the table's order."""
    found = []
    for entry, rows in table.groupby("entry", sort=False):
        first = rows.iloc[0]
        of = {name: str(first[name]) for name in ("arch", "recipe", "norm", "eps")}
        epochs = rows.astype({"epoch": "int64"}).set_index("epoch").sort_index()
        found.append(Curve(str(entry), **of, seed=int(first["seed"]), epochs=epochs))
    return found


def _groups(table: pd.DataFrame) -> list[Group]:
    """Backbones by network in the order of figures, then norm and recipe; standard ones stand with every norm."""
    curves = _curves(table)
    known = [curve.arch for curve in curves]
    norms = list(dict.fromkeys(curve.norm for curve in curves if curve.norm != "none")) or ["none"]
    recipes = list(dict.fromkeys(curve.recipe for curve in curves))
    groups = []
    ordered = ExperimentInfo.of(table).ordered
    for arch in dict.fromkeys([*(arch for arch in ordered if arch in known), *known]):
        for recipe in recipes:
            of = [curve for curve in curves if (curve.arch, curve.recipe) == (arch, recipe)]
            own = [norm for norm in norms if any(curve.norm == norm for curve in of)] or ["none"][: len(of)]
            for norm in own:
                inside = [curve for curve in of if curve.norm in (norm, "none")]
                marks = [NORM_LABELS.get(norm, norm)] if len(norms) > 1 and norm != "none" else []
                marks += [recipe] if len(recipes) > 1 else []
                label = "\n".join([architecture_label(arch), *([", ".join(marks)] if marks else [])])
                groups.append(Group(label, tuple(sorted(inside, key=lambda curve: eps_value(curve.eps)))))
    return groups


def _values(curves: Sequence[Curve], measure: str) -> list[float]:
    """What can be drawn: a loss may be infinite."""
    values = np.concatenate([curve.points(measure).to_numpy() for curve in curves]) if curves else np.empty(0)
    return [float(value) for value in values[np.isfinite(values)]]


def _panel(ax: Axes, group: Group, measure: str, colours: dict[str, Any]) -> None:
    if not _values(group.curves, measure):
        standard = measure == "robust_accuracy" and all(curve.eps == "0" for curve in group.curves)
        style.say(ax, "no robust network" if standard else NOT_MEASURED)
        return
    drawn: dict[str, int] = {}
    for curve in group.curves:
        drawn[curve.eps] = drawn.get(curve.eps, 0) + 1
    for curve in group.curves:
        points, eps = curve.points(measure), curve.eps
        if points.empty:
            continue
        look: style.Look = {"color": colours[eps], "ls": style.DASHES if eps == "0" else "-"}
        look |= {"lw": 0.5 if drawn[eps] > 1 else 1.0 if len(drawn) < FEW / 2 else 0.8}
        if len(points) <= FEW:
            look |= {"marker": "o", "ms": 2.0 if len(points) > 1 else 3.5, "mew": 0}
        ax.plot(points.index, points, **look)


def _axes(ax: Axes, measure: str, curves: Sequence[Curve], *, labelled: bool) -> None:
    """One scale for the epochs, one for the losses and one for all accuracies, so that panels compare."""
    from matplotlib.ticker import MaxNLocator

    last = max(curve.epochs.index.max() for curve in curves)
    margin = 0.04 * (last - 1) if last > 1 else 0.5
    ax.set_xlim(1 - min(margin, 0.9), last + margin)  # there is no epoch 0
    if ax.get_xticks().size:  # a panel that says why it is empty has none
        ax.xaxis.set_major_locator(MaxNLocator(4 if last > 6 else 6, steps=[1, 2, 5, 10], integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    ax.tick_params(labelbottom=labelled)
    if measure == "loss":
        values = _values(curves, "loss")
        if values:
            room = 0.08 * (max(values) - min(values)) or 0.1
            ax.set_ylim(min(values) - room, max(values) + room)
    else:
        highest = max((value for name in MEASURES if name != "loss" for value in _values(curves, name)), default=100.0)
        ax.set_ylim(-0.03 * highest, 1.06 * highest or 1.0)


def _shade(ax: Axes, group: Group) -> None:
    """The learning rate as a shade at the foot of the loss."""
    schedule = group.schedule
    if not schedule.empty:
        shares = SHADE_HEIGHT * schedule / schedule.max()
        ax.fill_between(shares.index, 0, shares, transform=ax.get_xaxis_transform(), color=SHADE, lw=0, zorder=0.1)


def _eps_handles(curves: Sequence[Curve], colours: dict[str, Any]) -> list[Any]:
    from matplotlib.lines import Line2D

    shown = {curve.eps for curve in curves}
    return [
        Line2D([], [], color=colour, ls=style.DASHES if eps == "0" else "-", label=f"ε {eps}")
        for eps, colour in colours.items()
        if eps in shown
    ]


def _other_handles(groups: Sequence[Group]) -> list[Any]:
    from matplotlib.patches import Patch

    handles: list[Any] = []
    peaks = {group.schedule.max() for group in groups if not group.schedule.empty}
    if peaks:
        upto = f", up to {peaks.pop():.2g}" if len(peaks) == 1 else ""
        handles.append(Patch(color=SHADE, label=f"learning rate{upto}"))
    if any(len({curve.eps for curve in group.curves}) < len(group.curves) for group in groups):
        handles.append(legends.words("thin lines: single seeds"))
    return handles


def _numbers(groups: Sequence[Group], measures: Sequence[str]) -> list[Number]:
    """What is drawn, standard backbones once although they stand with every norm."""
    numbers: dict[tuple[str, str, int], Number] = {}
    for group in groups:
        for curve in group.curves:
            for name in [*measures, *([] if group.schedule.empty else ["learning_rate"])]:
                points = curve.points(name)
                for epoch, value in zip(points.index.tolist(), points.tolist(), strict=True):
                    numbers[curve.entry, name, epoch] = {
                        "entry": curve.entry,
                        "arch": curve.arch,
                        "recipe": curve.recipe,
                        "norm": curve.norm,
                        "eps": curve.eps,
                        "seed": curve.seed,
                        "epoch": epoch,
                        "series": name,
                        "value": value,
                    }
    return list(numbers.values())
