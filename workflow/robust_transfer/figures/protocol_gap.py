"""How much of a transfer accuracy is the way it was measured: protocols, deviations and selections side by side."""

from __future__ import annotations

from collections.abc import Sequence

from robust_transfer.figures import style
from robust_transfer.figures.cells import (
    FIXED_FEATURE,
    FULL_NETWORK,
    MODE_LABELS,
    NORM_LABELS,
    NOT_MEASURED,
    PAPER,
    Cells,
    Panel,
    Way,
    selections,
    way_details,
)
from robust_transfer.figures.drawing import Drawing, Number, number
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
    selections_of,
    ways_of,
)
from robust_transfer.figures.headline import signed
from robust_transfer.figures.typeset import Block, Table, Text, stacked
from robust_transfer.tables.results import Results, Row, Target, canonical

ABREAST = 4
"""Ways and selections up to which every pair of them has a column; beyond, selections are lines."""
MOST = 48
"""Lines of a mode that a page has room for."""
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


def protocol_gap(results: Results) -> Drawing:
    """Draw one table per mode, one line per backbone and target that was measured in several ways; and mean gaps."""
    chosen = {selection: Cells(results, selection=selection) for selection in selections(results)}
    tables, gaps, notes, numbers = list[Table](), list[Block](), list[str](), list[Number]()
    for mode in (FIXED_FEATURE, FULL_NETWORK):
        lines = list(compared(chosen, mode))
        if not lines:
            continue
        keys = keys_of(lines, list(chosen))
        listed = [line for line in lines if len(line.ways) > 1] or lines
        room = MOST if _abreast(keys) else MOST // len(selections_of(keys))
        tables.append(_table(mode, listed[:room], keys))
        notes += _notes(mode, keys)
        if len(listed) > room:
            notes.append(f"{MODE_LABELS[mode]}: {len(listed) - room} more backbones in protocol_gap.csv.")
        found = [(gap, by_kind(gap, lines)) for gap in gaps_between(mode, keys, next(iter(chosen)))]
        gaps.append(Block(MODE_LABELS[mode], [_gap_line(gap, kinds) for gap, kinds in found]))
        numbers += [_number(line, key) for line in lines for key in line.rows]
        numbers += [one for gap, kinds in found for one in _gap_numbers(mode, gap, kinds)]
        notes += _seed_notes(mode, lines)
    if not tables:
        return Drawing(style.nothing(f"A second way of measuring: {NOT_MEASURED}"), [], f"One way: {NOT_MEASURED}\n")
    columns = ["Mean gap in points [least, most] (n)", "standard", "robust", "robust less standard"]
    tables.append(Table(columns, gaps, [_note(list(chosen)), *notes]))
    return Drawing(stacked(tables), numbers, "\n".join(table.markdown() for table in tables))


def _abreast(keys: Sequence[Key]) -> bool:
    """Whether every way and selection has a column, and every backbone a single line."""
    return len(selections_of(keys)) == 1 or len(ways_of(keys)) * len(selections_of(keys)) <= ABREAST


def _table(mode: str, lines: Sequence[Line], keys: Sequence[Key]) -> Table:
    """Accuracies, with one block per target."""
    ways, chosen = ways_of(keys), selections_of(keys)
    blocks: dict[Target, list[list[Text]]] = {}
    several = len({line.arch for line in lines}) > 1, len({line.norm for line in lines}) > 1
    for line in lines:
        for row in [chosen] if _abreast(keys) else [[one] for one in chosen]:
            block = blocks.setdefault(line.target, [])
            first = row[0] == chosen[0]
            texts = [Text("" if block else line.target.label), Text(_backbone(line, *several) if first else "")]
            texts += [] if _abreast(keys) else [Text(row[0])]
            block.append([*texts, *(_accuracy(line.rows.get((way, one))) for way in ways for one in row)])
    lead = [MODE_LABELS[mode], "", *([] if _abreast(keys) else ["chosen on"])]
    names = [_heading(mode, way) for way in ways]
    if _abreast(keys) and len(chosen) > 1:
        names = [name.replace("\n", " ") + f"\nchosen on {one}" for name in names for one in chosen]
    return Table([*lead, *names], [Block("", block) for block in blocks.values()], [], left=len(lead))


def _heading(mode: str, way: Way) -> str:
    return HEADINGS.get((mode, str(way.protocol), way.deviations), way_details(way).replace(", ", ",\n"))


def _backbone(line: Line, several_archs: bool, several_norms: bool) -> str:
    names = [style.architecture_label(line.arch)] if several_archs else []
    names += ["standard" if line.eps == "0" else f"robust, ε {line.eps}"]
    return ", ".join([*names, *([NORM_LABELS.get(line.norm, line.norm)] if several_norms and line.eps != "0" else [])])


def _accuracy(row: Row | None) -> Text:
    return Text(f"{row.value:.1f} [{row.ci_low:.1f}, {row.ci_high:.1f}]") if row else Text("–", faint=True)


def _gap_line(gap: Gap, kinds: dict[str, list[float]]) -> list[Text]:
    return [Text(gap.name), *(_mean(found) for found in kinds.values())]


def _mean(found: Sequence[float]) -> Text:
    if not found:
        return Text("–", faint=True)
    mean = signed(sum(found) / len(found))
    spread = f" [{signed(min(found))}, {signed(max(found))}]" if len(found) > 1 else ""
    return Text(f"{mean}{spread} ({len(found)})")


def _number(line: Line, key: Key) -> Number:
    way, selection = key
    panel = Panel(line.target, way, line.norm, line.target.label)
    return number(panel, "accuracy", line.arch, line.eps, line.rows[key], selection=selection)


def _gap_numbers(mode: str, gap: Gap, kinds: dict[str, list[float]]) -> list[Number]:
    return [
        {
            "mode": mode,
            "series": gap.name,
            "backbones": kind,
            "value": sum(found) / len(found),
            "least": min(found),
            "most": max(found),
            "n": len(found),
        }
        for kind, found in kinds.items()
        if found
    ]


def _seed_notes(mode: str, lines: Sequence[Line]) -> list[str]:
    """What is said where some ways were measured under more seeds than others."""
    alone = sum(line.alone for line in lines)
    what = "the first seed that all ways share stands alone, since some were measured under more"
    return [f"{MODE_LABELS[mode]}: on {alone} of {len(lines)} lines {what}."] if alone else []


def _notes(mode: str, keys: Sequence[Key]) -> list[str]:
    """What the columns of this mode mean."""
    ways = ways_of(keys)
    if mode == FULL_NETWORK:
        return ["Full-network: the released code normalises by the target's statistics."] if len(ways) > 1 else []
    papers = [way for way in ways if way.protocol == PAPER]
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
