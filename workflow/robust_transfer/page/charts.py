"""Interactive charts of the page, as Vega-Lite specifications built with Altair.

Each chart knows which control stands for which column: the page's script reads that from `usermeta` to fill the table
beside the chart with the same rows, since Vega's tooltips are for the mouse alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from robust_transfer.figures.style import ROBUST, STANDARD, eps_colours

Row = dict[str, Any]
Spec = dict[str, Any]
ALL = "all"
"""The option of a control that leaves nothing out."""
HEIGHT, STEP = 340, 34
"""Of a chart, and of a line in a chart of lines, in pixels."""


@dataclass(frozen=True)
class Control:
    """A select above a chart: it keeps the rows with one value of a column."""

    column: str
    label: str
    options: Sequence[str]
    with_all: bool = False
    """The first option keeps every row."""

    @property
    def name(self) -> str:
        """Of the parameter in the specification."""
        return f"chosen_{self.column}"

    def parameter(self) -> alt.Parameter:
        """The parameter, bound to a native select."""
        options = [ALL, *self.options] if self.with_all else list(self.options)
        return alt.param(name=self.name, value=options[0], bind=alt.binding_select(options=options, name=self.label))

    @property
    def keeps(self) -> str:
        """Vega's expression for the rows that are shown."""
        same = f"datum['{self.column}'] === {self.name}"
        return f"({self.name} === '{ALL}' || {same})" if self.with_all else same


@dataclass(frozen=True)
class Chart:
    """A chart with its controls, and the columns of the table beside it."""

    name: str
    spec: Spec
    controls: Sequence[Control]
    columns: Mapping[str, str]
    """Heading by column."""
    rows: Sequence[Row]


def differences(rows: Sequence[Row], name: str, domain: tuple[float, float]) -> Chart:
    """Best robust less standard for each target, with its interval: a point per row, 0 marked, on an axis of `domain`.

    Rows have `target`, `difference`, `low`, `high`, `standard`, `robust`, `network`, `interval` and `side`, the last of
    `SIDES`.
    """
    targets = [row["target"] for row in rows]
    y = alt.Y("target:N", title=None, sort=targets, axis=alt.Axis(labelLimit=220, ticks=False, domain=False))
    sides = [side for side in SIDES if side in {row["side"] for row in rows}]
    scale = alt.Scale(domain=list(domain), nice=True)
    colour = alt.Color(
        "side:N",
        title=None,
        scale=alt.Scale(domain=sides, range=[SIDES[side] for side in sides]),
        legend=alt.Legend(orient="top", symbolType="circle", labelLimit=400, columns=1),
    )
    title = "Best robust − standard, percentage points"
    tooltip = [alt.Tooltip(f"{column}:N", title=heading) for column, heading in DIFFERENCES.items()]
    axis = alt.Axis(labelSeparation=8)
    base = alt.Chart(alt.InlineData(values=list(rows)))
    zero = (
        alt.Chart(alt.InlineData(values=[{"at": 0}]))
        .mark_rule(strokeDash=[4, 3], color="#8c8c8c")
        .encode(x=alt.X("at:Q"))
    )
    lines = base.mark_rule(strokeWidth=2).encode(
        y=y, x=alt.X("low:Q", title=title, scale=scale, axis=axis), x2="high:Q", color=colour, tooltip=tooltip
    )
    points = base.mark_point(filled=True, size=90, opacity=1).encode(
        y=y, x=alt.X("difference:Q", title=title, scale=scale, axis=axis), color=colour, tooltip=tooltip
    )
    chart = (zero + lines + points).properties(width="container", height=STEP * len(rows), autosize="fit-x")
    return Chart(name, _spec(chart, ()), (), DIFFERENCES, rows)


SIDES = {
    "robust ahead": ROBUST,
    "standard ahead": "#c1440e",
    "undecided: the interval includes 0": STANDARD,
    "does not count: something behind it failed": "#b8b8b8",
}
"""What the colours of differences mean."""
DIFFERENCES = {
    "target": "Target",
    "standard": "Standard, %",
    "robust": "Best robust, %",
    "network": "Network and ε",
    "shown": "Difference [95 %]",
    "n": "n",
    "side": "Says",
}


def transfers(
    rows: Sequence[Row], controls: Sequence[Control], eps: Sequence[str], architectures: Sequence[str]
) -> Chart:
    """The explorer: accuracy over eps of whatever the controls keep, a line for each architecture.

    Rows have the columns of the controls and `eps`, `value`, `low`, `high`, `is_mean` (over seeds, or of the only one),
    `role` (`ROLES`), and the texts of `TRANSFERS`.
    """
    keeps = " && ".join(control.keeps for control in controls) or "true"
    longest = max(map(len, architectures))
    x = alt.X("eps:O", title="ε of pretraining", sort=list(eps), axis=alt.Axis(labelAngle=0))
    colour = alt.Color(
        "architecture:N",
        title=None,
        scale=alt.Scale(domain=list(architectures), range=_palette(len(architectures))),
        legend=alt.Legend(orient="top", columns=1 if longest > 16 else 3, labelLimit=400, symbolOpacity=1),
    )
    roles = [role for role in ROLES if role != TEXTURE_ROBUST or any(row["role"] == role for row in rows)]
    shape = alt.Shape(
        "role:N",
        title=None,
        scale=alt.Scale(domain=roles, range=[ROLES[role] for role in roles]),
        legend=alt.Legend(orient="top", columns=3),
    )
    tooltip = [alt.Tooltip(f"{column}:N", title=heading) for column, heading in TRANSFERS.items()]
    y_title = "Accuracy, %"
    base = alt.Chart(alt.InlineData(values=list(rows))).transform_filter(keeps)
    means = base.transform_filter("datum.is_mean")
    y = alt.Y("value:Q", title=y_title, scale=alt.Scale(zero=False, nice=True))
    size = alt.condition("datum.is_mean", alt.value(85), alt.value(18))
    opacity = alt.condition("datum.is_mean", alt.value(1), alt.value(0.5))
    layers = [
        means.mark_line(strokeWidth=1.6).encode(x=x, y=y, color=colour, detail="series:N"),
        means.mark_rule(strokeWidth=1.6).encode(x=x, y=alt.Y("low:Q", title=y_title), y2="high:Q", color=colour),
        base.mark_point(filled=True).encode(
            x=x, y=y, color=colour, shape=shape, size=size, opacity=opacity, tooltip=tooltip
        ),
    ]
    chart = alt.layer(*layers).properties(width="container", height=HEIGHT, autosize="fit-x")
    return Chart("explorer", _spec(chart, controls), controls, TRANSFERS, rows)


TEXTURE_ROBUST = "texture-robust"
ROLES = {"standard": "diamond", "best robust": "triangle-up", "other": "circle", TEXTURE_ROBUST: "square"}
"""Symbol of what a network is among those of its architecture."""
TRANSFERS = {
    "architecture": "Architecture",
    "eps": "ε",
    "seed": "Seed",
    "shown": "Accuracy, %",
    "interval": "95 % interval",
    "n": "n",
    "role": "Role",
    "flags": "Flags",
}


def curves(rows: Sequence[Row], controls: Sequence[Control], eps: Sequence[str]) -> Chart:
    """The backbones' curves over epochs.

    Rows have the columns of the controls and `epoch`, `value`, `eps`, `backbone`.
    """
    keeps = " && ".join(control.keeps for control in controls) or "true"
    colour = alt.Color(
        "eps:N",
        title="ε",
        scale=alt.Scale(domain=list(eps), range=_ramp(eps)),
        legend=alt.Legend(orient="top", columns=6),
    )
    tooltip = [alt.Tooltip(f"{column}:N", title=heading) for column, heading in CURVES.items()]
    lines = (
        alt.Chart(alt.InlineData(values=list(rows)))
        .transform_filter(keeps)
        .mark_line(point=True, strokeWidth=1.4)
        .encode(
            x=alt.X("epoch:Q", title="Epoch", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
            color=colour,
            detail="backbone:N",
            tooltip=tooltip,
        )
    )
    chart = lines.properties(width="container", height=HEIGHT, autosize="fit-x")
    return Chart("curves", _spec(chart, controls), controls, CURVES, rows)


CURVES = {"backbone": "Backbone", "epoch": "Epoch", "shown": "Value"}


def _spec(chart: Any, controls: Sequence[Control]) -> Spec:
    """The specification as JSON values: without a title or background of its own, since the page has them."""
    chart = chart.add_params(*(control.parameter() for control in controls)) if controls else chart
    chart = chart.configure(background="transparent", font="system-ui, sans-serif").configure_view(stroke=None)
    chart = chart.configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", gridOpacity=0.5)
    chart = chart.configure_legend(labelFontSize=12, titleFontSize=12)
    found: Spec = chart.to_dict()
    # Below each other: side by side the second legend is cut off on a phone. Vega knows this key, Altair does not.
    found["config"]["legend"]["layout"] = {"top": {"direction": "vertical", "margin": 4}}
    return found


def _palette(several: int) -> list[str]:
    """Colours that people who see no red or green tell apart (Okabe and Ito, 2008), again and again where too few."""
    colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f"]
    return [colours[i % len(colours)] for i in range(several)]


def _ramp(eps: Sequence[str]) -> list[str]:
    """The figures' colours: grey for standard training, and from light to dark as eps grows."""
    from matplotlib.colors import to_hex

    colours = eps_colours(eps)
    return [to_hex(colours[one]) for one in eps]


def options(rows: Sequence[Row], column: str, ordered: Sequence[str] = ()) -> list[str]:
    """The values of a column in the rows, in the given order and then as they come."""
    return list(
        dict.fromkeys([*(one for one in ordered if any(one == row[column] for row in rows)), *_values(rows, column)])
    )


def _values(rows: Sequence[Row], column: str) -> Iterator[str]:
    yield from (row[column] for row in rows)
