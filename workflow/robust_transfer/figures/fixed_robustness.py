"""Table 2: at a fixed eps, how much of transfer accuracy does source accuracy explain over networks?"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from robust_transfer.figures.cells import NOT_MEASURED, Cells, Panel
from robust_transfer.figures.labels import signed
from robust_transfer.figures.numbers import PANEL, Number, of_panel
from robust_transfer.figures.protocols import FIXED_FEATURE, FULL_NETWORK, MODE_LABELS, protocol_label
from robust_transfer.figures.tables import Cell, Table, TableRow, Tables
from robust_transfer.statistics.correlation import FEWEST, Correlation, correlation

CAPTION = "Share of the variance of transfer accuracy that source accuracy explains"

LARGE = 6
"""Eps, or targets, above which those without any R² are named below the table instead."""
BESIDE = ("ours", "published", "Δ")
COLUMNS = (
    *PANEL, "eps", "networks", "architectures", "r2", "ci_low", "ci_high", "slope", "r", "r_without_one_low",
    "r_without_one_high",
)  # fmt: skip


@dataclass(frozen=True)
class LinearFit:
    """The line from source to transfer accuracy over networks of one eps."""

    networks: int
    architectures: int
    correlation: Correlation | None
    """None where there are too few networks or either accuracy is constant."""
    slope: float | None
    """Points of transfer accuracy per point of source accuracy."""

    @property
    def r2(self) -> float | None:
        """Share of variance explained, 0 to 1."""
        return self.correlation.r**2 if self.correlation else None


def fixed_robustness(results: pd.DataFrame) -> Tables:
    """Tabulate R² for every target and eps; a network is one backbone, so seeds of an architecture are several."""
    cells = Cells(results)
    every_eps, fits = cells.eps(), dict[Panel, dict[str, LinearFit]]()
    for mode in (FIXED_FEATURE, FULL_NETWORK):
        for panel in cells.panels(mode):
            fits[panel] = {eps: linear_fit(cells, panel, eps) for eps in cells.eps(panel.norm)}
    numbers = [_number(panel, eps, fit) for panel, of_panel in fits.items() for eps, fit in of_panel.items()]
    if not fits:
        return Tables([], [f"Transfer: {NOT_MEASURED}"], [])
    shown, left_out = _fitting(fits, every_eps)
    behind: dict[Panel, dict[str, LinearFit]] = {}
    for panel in fits:
        if cells.published and (twin := cells.behind(panel)):
            behind[panel] = {eps: linear_fit(cells.published, twin, eps) for eps in shown}
            numbers += [_number(twin, eps, fit) for eps, fit in behind[panel].items()]
    rows = [
        TableRow((protocol_label(panel.protocol), panel.label), _row(of_panel, shown, behind, panel))
        for panel, of_panel in fits.items()
        if panel.label not in left_out.get(panel.protocol.mode, ())
    ]
    named = [f"ε {eps}" for eps in shown]
    columns = [(name, of) for name in named for of in BESIDE] if behind else named
    table = Table.of(rows, ["mode", "R²"], columns, CAPTION, headed=True)
    notes = [_too_few(MODE_LABELS[mode], names, fits, mode) for mode, names in left_out.items()]
    few = [eps for eps in every_eps if eps not in shown]
    notes += [f"Fewer than {FEWEST} networks at ε {', '.join(few)}."] * bool(few)
    return Tables([table], [_note(cells), *notes], numbers)


def _fitting(fits: dict[Panel, dict[str, LinearFit]], every_eps: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The eps to show, and by mode the targets to leave out: where the table is large, those without any R².

    A small table says in each cell what it lacks.
    """
    found = {panel: {eps for eps, fit in of_panel.items() if fit.r2 is not None} for panel, of_panel in fits.items()}
    any_eps = set.union(*found.values())
    shown = [eps for eps in every_eps if eps in any_eps or len(every_eps) <= LARGE or not any_eps]
    left_out: dict[str, list[str]] = {}
    for panel, with_r2 in found.items():
        if any_eps and not with_r2 and len(fits) > LARGE:
            left_out.setdefault(panel.protocol.mode, []).append(panel.label)
    return shown, left_out


def _too_few(label: str, names: list[str], fits: dict[Panel, dict[str, LinearFit]], mode: str) -> str:
    """A line that names the targets that were left out; where those are all of a mode, the mode alone."""
    every = sum(panel.protocol.mode == mode for panel in fits)
    return f"{label}, fewer than {FEWEST} networks: {'every target' if len(names) == every else ', '.join(names)}."


def _row(
    fits: dict[str, LinearFit], shown: list[str], behind: dict[Panel, dict[str, LinearFit]], panel: Panel
) -> list[Cell]:
    """R² at every eps; where there are published networks beside ours theirs, and what ours differs by."""
    cells = [_cell(fits[eps]) if eps in fits else Cell() for eps in shown]
    if not behind:
        return cells
    beside = []
    for eps, cell in zip(shown, cells, strict=True):
        theirs = behind.get(panel, {}).get(eps)
        ours, published = fits[eps].r2 if eps in fits else None, theirs.r2 if theirs else None
        there = ours is not None and published is not None
        difference = Cell(signed(ours - published, 2)) if there else Cell("–", faint=True)  # type: ignore[operator]
        beside += [cell, _cell(theirs) if theirs else Cell("–", faint=True), difference]
    return beside


def linear_fit(cells: Cells, panel: Panel, *radii: str) -> LinearFit:
    """Least squares over the networks of this eps, or of these, for which both accuracies were measured.

    A cell without seeds, as a published one, is one network.
    """
    networks = pd.DataFrame(
        [
            (arch, source.value, one.value)
            for eps in radii
            for arch in cells.about.architectures
            for one in cells.seeds(panel, arch, eps) or filter(None, [cells.cell(panel, arch, eps)])
            if (source := cells.source(arch, panel.norm, eps, one.backbone_seed))
        ],
        columns=["arch", "source", "transfer"],
    )
    counts = len(networks), networks["arch"].nunique()
    found = correlation(networks["source"].tolist(), networks["transfer"].tolist())
    if found is None:
        return LinearFit(*counts, None, None)
    return LinearFit(*counts, found, found.r * float(networks["transfer"].std() / networks["source"].std()))


def _cell(fit: LinearFit) -> Cell:
    if fit.networks == 0:
        return Cell(NOT_MEASURED, faint=True)
    n = f"n = {fit.networks}"
    if fit.networks < FEWEST:
        missing = FEWEST - fit.networks
        return Cell(f"needs {missing} more network{'s' if missing > 1 else ''}", n, faint=True)
    if fit.correlation is None or fit.r2 is None:
        return Cell("no spread", n, faint=True)
    found = fit.correlation
    low, high = (signed(r, 2) for r in found.without_one)
    falls = "(−) " if found.r < 0 else ""
    return Cell(f"{fit.r2:.2f}", f"{falls}[{found.r2_low:.2f}, {found.r2_high:.2f}], {n}, r {low} to {high}")


def _number(panel: Panel, eps: str, fit: LinearFit) -> Number:
    found = fit.correlation
    return {
        **of_panel(panel),
        "eps": eps,
        "networks": fit.networks,
        "architectures": fit.architectures,
        "r2": fit.r2,
        "ci_low": found.r2_low if found else None,
        "ci_high": found.r2_high if found else None,
        "slope": fit.slope,
        "r": found.r if found else None,
        "r_without_one_low": found.without_one[0] if found else None,
        "r_without_one_high": found.without_one[1] if found else None,
    }


def _note(cells: Cells) -> str:
    chosen = " Hyperparameters were chosen on test images." if cells.selection == "test" else ""
    return (
        "R² of the line from source to transfer accuracy over n networks of one ε, with its 95 % interval over "
        "networks (Fisher's); then the least and the greatest correlation r with one network left out: where they lie "
        f"far apart, one network makes the R². Below {FEWEST} networks, how many it lacks. (−): the line falls. Seeds "
        f"of one architecture count as networks of their own.{chosen}"
    )
