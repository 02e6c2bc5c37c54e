"""The rule `difference`: one side is better than the other.

Best robust against standard is the comparison of the headline, with its paired difference (`Cells.comparison`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from robust_transfer.claims.comparison import (
    Comparison,
    Failed,
    Lacking,
    Outcome,
    cell_name,
    difference_of,
    of_these_weights,
)
from robust_transfer.claims.lookup import UNTRANSFERRED, Looked, Measured
from robust_transfer.configuration.claims import ROBUST, STANDARD, Difference, Networks, Where
from robust_transfer.configuration.training import NORM_LABELS
from robust_transfer.figures.cells import Panel
from robust_transfer.figures.estimates import Estimate
from robust_transfer.figures.labels import architecture_label
from robust_transfer.statistics.evidence import one_sided
from robust_transfer.tables.key import BEST_ROBUST


def differences(measured: Measured, looked: Looked, where: Where, rule: Difference) -> Iterator[Outcome]:
    """A comparison of the two sides for every target and architecture."""
    sign = {(ROBUST, STANDARD): 1, (STANDARD, ROBUST): -1}.get((rule.better, rule.than), 0)
    for panel in looked.panels:
        for arch in looked.architectures:
            found: Outcome | None = None
            if sign and panel.protocol.mode != UNTRANSFERRED:
                found = _headline(looked, panel, arch, sign)
            if found is None:
                found = _of_sides(measured, looked, where, rule, panel, arch)
            yield _bounded(found, rule) if isinstance(found, Comparison) else found


def _headline(looked: Looked, panel: Panel, arch: str, sign: int) -> Comparison | Failed | None:
    """Best robust less standard as the headline has it, times the sign; None where it has no difference."""
    found = looked.cells.comparison(panel, arch, downscaled=looked.view)
    row, robust = found.difference, found.robust
    if row is None or robust is None:
        return None
    if found.failed:
        return Failed(cell_name(panel, arch), found.failed)
    low, high = sorted((sign * row.ci_low, sign * row.ci_high))
    remarks = [f"ε {robust.chosen['eps']}, {architecture_label(robust.chosen['arch'])}"]
    if found.unseen:
        remarks.append(f"{sign * found.unseen.value:+.1f} points on images that the choice did not see")
    return Comparison(
        panel.target.label, arch, BEST_ROBUST, sign * row.value, low, high, row.ci_kind, row.n,
        paired=True, these_weights=of_these_weights([row]), remark="; ".join(remarks),
    )  # fmt: skip


def _of_sides(
    measured: Measured, looked: Looked, where: Where, rule: Difference, panel: Panel, arch: str
) -> Comparison | Failed | Lacking:
    """Two numbers of the table, as if they were on images of their own."""
    rows = []
    for side in (rule.better, rule.than):
        row = _side(measured, looked, where, side, panel, arch)
        if row is None:
            return Lacking(cell_name(panel, arch), f"no {_said(side)}")
        if row.failed:
            return Failed(f"{cell_name(panel, arch)}, {_said(side)}", row.failed)
        rows.append(row)
    eps = next((side.eps for side in (rule.better, rule.than) if side not in (ROBUST, STANDARD)), BEST_ROBUST)
    return Comparison(
        panel.target.label, arch, eps, *difference_of(rows[0], rows[1]), these_weights=of_these_weights(rows)
    )


def _side(measured: Measured, looked: Looked, where: Where, side: Networks, panel: Panel, arch: str) -> Estimate | None:
    """The number of one side; where nothing was chosen, as without transfer, `robust` is of the fixed eps."""
    if side.norm or side.recipe:
        looked = measured.look(where.model_copy(update={"norm": side.norm or where.norm}), side.recipe)
        panels = {one.target.name: one for one in looked.panels}
        if panel.target.name not in panels:
            return None
        panel = panels[panel.target.name]
    if side.eps != BEST_ROBUST:
        return looked.cell(panel, arch, side.eps)
    if panel.protocol.mode == UNTRANSFERRED or where.attacked:
        return looked.cell(panel, arch, looked.cells.about.fixed_eps.get(panel.norm, ""))
    return _best_robust(looked, panel, arch)


def _best_robust(looked: Looked, panel: Panel, arch: str) -> Estimate | None:
    """The best robust network; of published numbers, whose eps was chosen on test images, the largest."""
    if (row := looked.cell(panel, arch, BEST_ROBUST)) or not looked.chosen_on_test:
        return row
    rows = [looked.cell(panel, arch, eps) for eps in looked.cells.eps(panel.norm) if eps != "0"]
    return max((row for row in rows if row), key=lambda row: row.value, default=None)


def _said(side: Networks) -> str:
    """A side in words."""
    eps = "standard" if side == STANDARD else "robust" if side == ROBUST else ""
    eps = eps or ("best robust" if side.eps == BEST_ROBUST else f"ε {side.eps}")
    norm = f"{NORM_LABELS[side.norm]} " if side.norm else ""
    return f"{norm}{eps} network" + (f" of recipe {side.recipe}" if side.recipe else "")


def _bounded(found: Comparison, rule: Difference) -> Comparison:
    """With the p-values of an effect within the bounds of the rule."""
    interval = (found.effect, found.low, found.high, found.kind, found.n)
    p_for, p_against = one_sided(*interval, bound=rule.by_more_than)
    agrees = found.effect > rule.by_more_than
    if rule.by_less_than is not None:
        beyond, within = one_sided(*interval, bound=rule.by_less_than)
        p_for, p_against = max(p_for, within), min(1.0, 2 * min(p_against, beyond))
        agrees &= found.effect < rule.by_less_than
    return replace(found, p_for=p_for, p_against=p_against, agrees=agrees)
