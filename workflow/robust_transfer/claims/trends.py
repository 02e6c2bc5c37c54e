"""The rules `trend` and `predicts`: lines over width or eps, and from source accuracy to transfer accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from robust_transfer.claims.comparison import (
    R2,
    Comparison,
    Failed,
    Lacking,
    Outcome,
    cell_name,
    difference_of,
    of_these_weights,
    p_above,
)
from robust_transfer.claims.lookup import Looked
from robust_transfer.configuration.claims import Predicts, Trend
from robust_transfer.figures.cells import Panel
from robust_transfer.figures.estimates import Estimate
from robust_transfer.figures.fixed_robustness import linear_fit
from robust_transfer.statistics.correlation import FEWEST, Correlation
from robust_transfer.statistics.evidence import contrast, one_sided

Line = tuple[str, str, Sequence[tuple[str, str]]]
"""Architecture or empty, eps or empty, and the networks (architecture, eps) along the line."""


def trend(looked: Looked, rule: Trend) -> Iterator[Outcome]:
    """A comparison for every line: of a target and an eps along width, of a target and an architecture along eps."""
    sign = 1 if rule.goes.endswith("up") else -1
    for panel in looked.panels:
        for arch, eps, networks in _lines(looked, panel, rule):
            counted, failed = looked.counted(panel, networks)
            rows = list(counted.values())
            if len(rows) > 1:
                made = (_each_step if rule.steps == "each" else _overall)(panel, arch, eps, rows, sign)
                yield _denied(made) if rule.goes.startswith("not") else made
            elif failed:
                yield Failed(cell_name(panel, arch, eps), failed)
            else:
                points = "width" if rule.along == "width" else "eps"
                yield Lacking(cell_name(panel, arch, eps), f"{len(rows)} {points}, and a trend needs two")


def _lines(looked: Looked, panel: Panel, rule: Trend) -> list[Line]:
    radii = looked.cells.eps(panel.norm)
    if rule.along == "eps":
        return [(arch, "", [(arch, eps) for eps in radii]) for arch in looked.architectures]
    widths, wanted = looked.cells.about.widths, rule.eps or radii
    return [("", eps, [(arch, eps) for arch in widths]) for eps in wanted]


def _each_step(panel: Panel, arch: str, eps: str, rows: Sequence[Estimate], sign: int) -> Comparison:
    """Every step of a line goes one way; the effect is that of the step which does so least."""
    steps = [(later, row) if sign > 0 else (row, later) for row, later in pairwise(rows)]
    least = min(steps, key=lambda step: step[0].value - step[1].value)
    back = min(p_above(other, one) for one, other in steps)
    return Comparison(
        panel.target.label, arch, eps, *difference_of(*least), max(p_above(*step) for step in steps),
        min(1.0, len(steps) * back), least[0].value > least[1].value, these_weights=of_these_weights(rows),
        remark=f"the least of {len(steps)} steps",
    )  # fmt: skip


def _overall(panel: Panel, arch: str, eps: str, rows: Sequence[Estimate], sign: int) -> Comparison:
    """The slope of the straight line through all points, in points per step."""
    middle = (len(rows) - 1) / 2
    squares = sum((i - middle) ** 2 for i in range(len(rows)))
    weights = [sign * (i - middle) / squares for i in range(len(rows))]
    slope, low, high = contrast(weights, [(row.value, row.ci_low, row.ci_high) for row in rows])
    kind, n = rows[0].ci_kind, min(row.n for row in rows)
    return Comparison(
        panel.target.label, arch, eps, slope, low, high, kind, n, *one_sided(slope, low, high, kind, n), slope > 0,
        these_weights=of_these_weights(rows), remark=f"per step, over {len(rows)} points",
    )  # fmt: skip


def _denied(found: Comparison) -> Comparison:
    """The claim that it is not so."""
    return replace(
        found, effect=-found.effect, low=-found.high, high=-found.low, p_for=found.p_against, p_against=found.p_for,
        agrees=not found.agrees,
    )  # fmt: skip


def predicts(looked: Looked, rule: Predicts) -> Iterator[Outcome]:
    """A comparison for every target and eps: R² among networks of that eps less R² over all networks."""
    cells = looked.cells
    for panel in looked.panels:
        every = cells.eps(panel.norm)
        across = linear_fit(cells, panel, *every)
        for eps in rule.within or every:
            within = linear_fit(cells, panel, eps)
            if within.networks < FEWEST:
                yield Lacking(
                    cell_name(panel, "", eps), f"{within.networks} networks, and a correlation needs {FEWEST}"
                )
            elif within.networks == across.networks:
                yield Lacking(cell_name(panel, "", eps), "networks of one eps alone")
            elif within.correlation is None or across.correlation is None:
                yield Lacking(cell_name(panel, "", eps), "accuracies without spread")
            else:
                yield _explained(panel, eps, within.networks, within.correlation, across.correlation)


def _explained(panel: Panel, eps: str, n: int, within: Correlation, across: Correlation) -> Comparison:
    sides = [(one.r**2, one.r2_low, one.r2_high) for one in (within, across)]
    value, low, high = contrast((1.0, -1.0), sides)
    return Comparison(
        panel.target.label, "", eps, value, low, high, "networks", n, *one_sided(value, low, high, "networks", n),
        value > 0, unit=R2, remark=f"R² {within.r**2:.2f} within, {across.r**2:.2f} across",
    )  # fmt: skip
