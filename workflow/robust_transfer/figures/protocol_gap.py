"""How much transfer accuracy depends on how it is measured: protocols, deviations and selections side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from robust_transfer.configuration.training import NORM_LABELS
from robust_transfer.figures.cells import NOT_MEASURED, Cells, Panel
from robust_transfer.figures.estimates import Estimate
from robust_transfer.figures.gaps import (
    NO_DRIFT,
    NO_TARGET,
    Gap,
    Key,
    Line,
    by_kind,
    compared,
    gaps_between,
    keys_of,
    protocols_of,
    selections_of,
)
from robust_transfer.figures.headline import UNSEEN, difference_cell
from robust_transfer.figures.labels import architecture_label, signed
from robust_transfer.figures.numbers import Number, columns, number
from robust_transfer.figures.protocols import (
    FIXED_FEATURE,
    FULL_NETWORK,
    MODE_LABELS,
    PAPER,
    Protocol,
    protocol_details,
    protocol_label,
    selections,
)
from robust_transfer.figures.tables import FAILED, Cell, Table, TableRow, Tables
from robust_transfer.tables.key import BEST_ARCH, canonical

COLUMNS = (*columns("selection"), "backbones", "least", "most")

ABREAST = 4
"""Columns up to which every protocol has one for each selection; beyond, selections are rows."""
MOST = 48
"""Rows of a mode; the CSV has them all."""
HEADINGS = {
    (FIXED_FEATURE, "frozen", "{}"): "frozen",
    (FIXED_FEATURE, "paper", "{}"): "paper,\nas released",
    (FIXED_FEATURE, "paper", canonical(NO_DRIFT)): "paper,\nBatchNorm frozen",
    (FIXED_FEATURE, "paper", canonical(NO_TARGET)): "paper, source\nnormalisation",
    (FIXED_FEATURE, "paper", canonical(NO_DRIFT | NO_TARGET)): "paper,\nboth",
    (FIXED_FEATURE, "knn", "{}"): "nearest\nneighbours",
    (FULL_NETWORK, "paper", "{}"): "target\nnormalisation",
    (FULL_NETWORK, "paper", canonical(NO_TARGET)): "source\nnormalisation",
}


def protocol_gap(results: pd.DataFrame) -> Tables:
    """Tabulate, for each mode, the backbones and targets that were measured by several protocols, and the mean gaps."""
    chosen = {selection: Cells(results, selection=selection) for selection in selections(results)}
    tables, mean_gaps, notes, numbers = list[Table](), list[TableRow](), list[str](), list[Number]()
    for mode in (FIXED_FEATURE, FULL_NETWORK):
        lines = list(compared(chosen, mode))
        if not lines:
            continue
        keys = keys_of(lines, list(chosen))
        listed = [line for line in lines if len(line.protocols) > 1] or lines
        room = MOST if _abreast(keys) else MOST // len(selections_of(keys))
        tables.append(_table(mode, listed[:room], keys))
        notes += _notes(mode, keys)
        if len(listed) > room:
            notes.append(f"{MODE_LABELS[mode]}: {len(listed) - room} more backbones in protocol_gap.csv.")
        experiment = chosen[next(iter(chosen))].about.experiment
        numbers += [_number(line, key, experiment) for line in lines for key in line.rows]
        for gap in gaps_between(mode, keys, next(iter(chosen))):
            kinds = by_kind(gap, lines)
            mean_gaps.append(TableRow((MODE_LABELS[mode], gap.name), [_mean(of_kind) for of_kind in kinds.values()]))
            numbers += _gap_numbers(mode, gap, kinds)
        notes += _seed_notes(mode, listed[:room])
    if not tables:
        return Tables([], [f"A second way of measuring: {NOT_MEASURED}"], [])
    if mean_gaps:
        names = ["mode", "Mean gap in points [least, most] (n)"]
        kinds_of_backbones = ["standard", "robust", "robust less standard"]
        tables.append(Table.of(mean_gaps, names, kinds_of_backbones, "Mean gaps between protocols", headed=True))
    choices = [row for mode in (FIXED_FEATURE, FULL_NETWORK) for row in _choices(chosen, mode)]
    if choices:
        columns = ["chosen on test", "the same, unseen", "chosen on validation"]
        tables.append(
            Table.of(choices, ["", "Best robust less standard"], columns, "Choices on test images", headed=True)
        )
        notes.append(UNSEEN)
    failed = [FAILED] * any(cell.failed for table in tables for cell in table.frame.to_numpy().flat)
    return Tables(tables, [_note(list(chosen)), *notes, *failed], numbers)


def _choices(chosen: dict[str, Cells], mode: str) -> Iterator[TableRow]:
    """Where eps and architecture were chosen on test images: the difference to standard, what it is worth on images
    that the choice did not see, and the one that validation chose."""
    on_test, elsewhere = chosen.get("test"), chosen.get("validation")
    if on_test is None:
        return
    for protocol in on_test.protocols(mode):
        for panel in on_test.panels(mode, protocol):
            comparison = on_test.comparison(panel, BEST_ARCH)
            if comparison.unseen is None:
                continue
            other = elsewhere.comparison(panel, BEST_ARCH) if elsewhere else None
            found = [
                (comparison.difference, comparison.failed),
                (comparison.unseen, comparison.failed),
                (other.difference if other else None, other.failed if other else ()),
            ]
            cells = [difference_cell(row, failed=bool(failed)) for row, failed in found]
            yield TableRow((protocol_label(protocol), panel.label), cells)


def _abreast(keys: Sequence[Key]) -> bool:
    """Whether every protocol and selection has a column, and every backbone a single line."""
    return len(selections_of(keys)) == 1 or len(protocols_of(keys)) * len(selections_of(keys)) <= ABREAST


def _table(mode: str, lines: Sequence[Line], keys: Sequence[Key]) -> Table:
    """Accuracies by target and backbone, and where selections do not stand abreast also by selection."""
    protocols, chosen, abreast = protocols_of(keys), selections_of(keys), _abreast(keys)
    several = len({line.arch for line in lines}) > 1, len({line.norm for line in lines}) > 1
    rows = []
    for line in lines:
        for of_row in [chosen] if abreast else [[selection] for selection in chosen]:
            labels = (line.target.label, _backbone(line, *several), *([] if abreast else of_row))
            accuracies = [
                _accuracy(line.rows.get((protocol, selection))) for protocol in protocols for selection in of_row
            ]
            rows.append(TableRow(labels, accuracies))
    names = [MODE_LABELS[mode], "", *([] if abreast else ["chosen on"])]
    columns = [_heading(mode, protocol) for protocol in protocols]
    if abreast and len(chosen) > 1:
        columns = [name.replace("\n", " ") + f"\nchosen on {one}" for name in columns for one in chosen]
    return Table.of(rows, names, columns, f"{MODE_LABELS[mode]} transfer by protocol")


def _heading(mode: str, protocol: Protocol) -> str:
    return HEADINGS.get(
        (mode, str(protocol.name), protocol.deviations), protocol_details(protocol).replace(", ", ",\n")
    )


def _backbone(line: Line, several_archs: bool, several_norms: bool) -> str:
    names = [architecture_label(line.arch)] if several_archs else []
    names += ["standard" if line.eps == "0" else f"robust, ε {line.eps}"]
    return ", ".join([*names, *([NORM_LABELS.get(line.norm, line.norm)] if several_norms and line.eps != "0" else [])])


def _accuracy(row: Estimate | None) -> Cell:
    if row is None:
        return Cell("–", faint=True)
    interval = "" if math.isnan(row.ci_low) else f"[{row.ci_low:.1f}, {row.ci_high:.1f}]"
    return Cell(f"{row.value:.1f}", interval, failed=bool(row.failed))


def _mean(gaps: Sequence[float]) -> Cell:
    if not gaps:
        return Cell("–", faint=True)
    spread = f"[{signed(min(gaps))}, {signed(max(gaps))}] " if len(gaps) > 1 else ""
    return Cell(signed(sum(gaps) / len(gaps)), f"{spread}({len(gaps)})")


def _number(line: Line, key: Key, experiment: str) -> Number:
    protocol, selection = key
    panel = Panel(line.target, protocol, line.norm, line.target.label, experiment)
    return number(panel, "accuracy", line.arch, line.eps, line.rows[key], selection=selection)


def _gap_numbers(mode: str, gap: Gap, kinds: dict[str, list[float]]) -> list[Number]:
    return [
        {
            "mode": mode,
            "series": gap.name,
            "backbones": kind,
            "value": sum(gaps) / len(gaps),
            "least": min(gaps),
            "most": max(gaps),
            "n": len(gaps),
        }
        for kind, gaps in kinds.items()
        if gaps
    ]


def _seed_notes(mode: str, lines: Sequence[Line]) -> list[str]:
    """A note where some protocols were measured under more seeds than others, on the lines that the table has."""
    alone = sum(line.alone for line in lines)
    what = "the first seed that all ways share stands alone, since some were measured under more"
    return [f"{MODE_LABELS[mode]}: on {alone} of {len(lines)} lines {what}."] if alone else []


def _notes(mode: str, keys: Sequence[Key]) -> list[str]:
    """Notes on the columns of this mode."""
    protocols = protocols_of(keys)
    if mode == FULL_NETWORK:
        return ["Full-network: the released code normalises by the target's statistics."] if len(protocols) > 1 else []
    papers = [protocol for protocol in protocols if protocol.name == PAPER]
    if not papers:
        return []
    others = "; the columns beside it change the one, the other, or both" if len(papers) > 1 else ""
    return [
        "Paper, as released: BatchNorm's statistics drift to the target, and images are normalised by the target's "
        f"statistics{others}."
    ]


def _note(chosen: Sequence[str]) -> str:
    return (
        "Test accuracy in %, with 95 % intervals in brackets, from all training images at their native size; –: not "
        "measured. Gaps: means over n backbones on targets, each between numbers that differ in nothing else and whose "
        f"hyperparameters were chosen on {chosen[0]} images{', unless said otherwise' if len(chosen) > 1 else ''}."
    )
