"""Stage report: the summary that a run ends with, at most 100 columns wide.

    python -m robust_transfer report results/<name>/results.parquet --flags results/<name>/flags.csv \
        --out results/<name>/summary.txt

The HTML report is Snakemake's (`snakemake --report`); its captions lie in `workflow/report/`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from robust_transfer.configuration.eps import eps_value
from robust_transfer.figures.cells import (
    FIXED_FEATURE,
    FULL_NETWORK,
    MODE_LABELS,
    NORM_LABELS,
    NOT_MEASURED,
    Cells,
    Comparison,
    Estimate,
    Panel,
    protocol_label,
    shown_protocol,
)
from robust_transfer.figures.labels import architecture_label, difference_text
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.flags import DAGGER, FLAGS, failures
from robust_transfer.tables.key import BEST_ARCH
from robust_transfer.tables.results import read_results
from robust_transfer.tables.training import read_flags

COLUMNS = 100
LABEL = 30
"""Longest label of a target; longer ones are cut."""
FLAG_LINES = 10
ATTACKS = 4
"""Radii of attacks on the source that the summary has room for; the results table has all."""


def summary(results: Path, flags: Path | None = None, report: Path | None = None) -> str:
    """Title, notice, headline table, what held in one sentence per mode, what looks wrong, and where the files lie.

    `results` is the results table; `flags` the list of sanity flags, if they are to be shown; `report` the HTML report,
    if there is to be one. Raises TableError as `read_results` and `read_flags` do.
    """
    table = read_results(results)
    about, cells = ExperimentInfo.of(table), Cells(table)
    parts = [about.title or about.experiment]
    if about.notice:
        parts.append(textwrap.fill(about.notice, COLUMNS))
    if about.dropped:
        left_out = f"Left out, since the images are missing: {', '.join(about.dropped)}."
        parts.append(textwrap.fill(left_out, COLUMNS))
    sentences, others, marked = [], [], False
    for mode in (FIXED_FEATURE, FULL_NETWORK):
        protocol = cells.shown(mode)
        if protocol is None:
            sentences.append(f"{MODE_LABELS[mode]}: {NOT_MEASURED}.")
            continue
        lines = [(panel, cells.comparison(panel, BEST_ARCH)) for panel in cells.panels(mode)]
        parts.append(_table(protocol_label(protocol), lines))
        marked |= any(comparison.failed for _, comparison in lines)
        sentences += [
            textwrap.fill(said, COLUMNS, subsequent_indent="  ", break_on_hyphens=False)
            for said in _sentences(MODE_LABELS[mode], lines)
        ]
        if cells.others(mode):
            others.append(textwrap.fill(f"{cells.others(mode)} See protocol_gap.", COLUMNS, subsequent_indent="  "))
    parts += _source(cells)
    for heading, lines in _others(table, cells):
        parts.append(_table(heading, lines))
        marked |= any(comparison.failed for _, comparison in lines)
        sentences += [textwrap.fill(said, COLUMNS, subsequent_indent="  ") for said in _sentences(heading, lines)]
    parts.append(
        f"Accuracies in %. Network and eps chosen on {cells.selection}, reported on test. *: interval excludes 0."
    )
    if marked:
        parts[-1] += f"\n{DAGGER}: a training or transfer behind it failed; the target counts for neither side."
    parts.append("\n".join(sentences + others))
    if flags and len(raised := read_flags(flags)):
        parts.append(_flags(raised, flags, table))
    parts.append(_files(results, report))
    return "\n\n".join(parts) + "\n"


def _others(table: pd.DataFrame, cells: Cells) -> Iterator[tuple[str, list[tuple[Panel, Comparison]]]]:
    """Headings and lines of the other ways that targets were transferred to: downscaled, and from few images."""
    for mode in (FIXED_FEATURE, FULL_NETWORK):
        protocol = shown_protocol([one for one in cells.protocols(mode) if len(cells.views(one)) > 1], cells.about)
        for view in cells.views(protocol)[1:] if protocol else []:
            panels = cells.panels(mode, protocol)
            lines = [(panel, cells.comparison(panel, BEST_ARCH, downscaled=view)) for panel in panels]
            if found := _measured(lines):
                yield f"{MODE_LABELS[mode]}, images downscaled to {view} px", found
        sizes = table.loc[table["mode"] == mode, "images_per_class"]
        if not sizes.isna().any():
            continue  # the table above is of the most images that there are
        for size in sorted(int(size) for size in sizes.dropna().unique()):
            few = Cells(table, images_per_class=size)
            if found := _measured([(panel, few.comparison(panel, BEST_ARCH)) for panel in few.panels(mode)]):
                yield f"{MODE_LABELS[mode]}, {size} training images of each class", found


def _measured(lines: list[tuple[Panel, Comparison]]) -> list[tuple[Panel, Comparison]]:
    return [(panel, one) for panel, one in lines if one.standard or one.robust]


def _source(cells: Cells) -> list[str]:
    """A table of accuracies on the source, clean and attacked, for each norm; none where nothing was measured."""
    return [text for norm in cells.every_norm() or ["l2"] if (text := _source_of_norm(cells, norm))]


def _source_of_norm(cells: Cells, norm: str) -> str:
    """One line per architecture and way of measuring, one column per eps: clean, and under attack."""
    every_eps = cells.source_eps(norm)
    lines = [line for arch in cells.about.ordered for line in _source_lines(cells, arch, norm, every_eps)]
    if not lines:
        return ""
    several = f", {NORM_LABELS.get(norm, norm)} networks" if len(cells.every_norm()) > 1 else ""
    heading = f"Accuracy on {cells.about.source_label or cells.about.source}, the source{several}"
    first, second = (max(len(line[i]) for line in lines) for i in (0, 1))
    widths = [max(len(eps) + 4 * (i == 0), 5) for i, eps in enumerate(every_eps)]
    head = [eps.rjust(width) for eps, width in zip([f"eps {every_eps[0]}", *every_eps[1:]], widths, strict=True)]
    rows = [" " * (first + second + 4) + "  ".join(head)]
    for arch, what, numbers in lines:
        texts = [(f"{row.value:.1f}" if row else "").rjust(width) for row, width in zip(numbers, widths, strict=True)]
        rows.append(f"  {arch:<{first}}  {what:<{second}}{'  '.join(texts)}".rstrip())
    return "\n".join([heading, *rows])


def _source_lines(
    cells: Cells, arch: str, norm: str, every_eps: list[str]
) -> Iterator[tuple[str, str, list[Estimate | None]]]:
    """Clean accuracies of an architecture, those under attack at each network's own eps, and at others' too."""
    if norm in cells.every_norm() and not any(cells.source(arch, norm, eps) for eps in every_eps if eps != "0"):
        robust = any(cells.attacked(arch, norm, eps) for eps in every_eps if eps != "0")
        if not robust and len(cells.every_norm()) > 1:
            return  # its networks are of another norm
    clean = [cells.source(arch, norm, eps) for eps in every_eps]
    attacked = [cells.attacked(arch, norm, eps) for eps in every_eps]
    name = architecture_label(arch)
    if any(clean):
        yield name, "clean ", clean
        name = ""
    own = [found.get(eps) for eps, found in zip(every_eps, attacked, strict=True)]
    if any(own):
        yield name, "attacked at its eps ", own
        name = ""
    radii = {radius for eps, found in zip(every_eps, attacked, strict=True) for radius in found if radius != eps}
    for radius in sorted(radii, key=eps_value)[:ATTACKS]:
        yield name, f"attacked at eps {radius} ", [found.get(radius) for found in attacked]
        name = ""


def _table(heading: str, lines: list[tuple[Panel, Comparison]]) -> str:
    """Targets as lines: standard, best robust with what was chosen, paired difference with its 95 % interval."""
    rows = [[heading, "standard", "best robust", "(eps, network)", "difference [95 %]"]]
    marked = any(comparison.failed for _, comparison in lines)
    for panel, comparison in lines:
        robust, difference = comparison.robust, comparison.difference
        rows.append(
            [
                "  " + _short(panel.label),
                _percent(comparison.standard, marked),
                _percent(robust, marked),
                f"({robust.chosen['eps']}, {architecture_label(robust.chosen['arch'])})" if robust else "",
                difference_text(difference) + (DAGGER if comparison.failed else "*" if comparison.decided else " ")
                if difference
                else f"{NOT_MEASURED} ",
            ]
        )
    # The heading may run over the columns of numbers; only targets widen the first column.
    first = max(len(row[0]) for row in rows[1:])
    widths = [max(len(row[i]) for row in rows) for i in range(1, 5)]
    head = "  ".join(f"{name:>{width}}" for name, width in zip(rows[0][1:], widths, strict=True))
    body = ["  ".join([f"{row[0]:<{first}}", *_aligned(row[1:], widths)]).rstrip() for row in rows[1:]]
    return "\n".join([heading, " " * (first + 2) + head.rstrip(), *body])


def _short(label: str) -> str:
    """A label in at most LABEL letters, cut at a word where one ends near."""
    label = " ".join(label.split())
    whole = textwrap.shorten(label, LABEL, placeholder="…")
    return whole if len(whole) > LABEL // 2 or len(label) <= LABEL else f"{label[: LABEL - 1]}…"


def _aligned(row: list[str], widths: list[int]) -> list[str]:
    """Numbers flush right, what was chosen flush left."""
    return [
        f"{text:<{width}}" if i == 2 else f"{text:>{width}}"
        for i, (text, width) in enumerate(zip(row, widths, strict=True))
    ]


def _percent(row: Estimate | None, marked: bool) -> str:
    """A value; in a table where some are marked, those that are not end in a space, so that digits stay aligned."""
    text = f"{row.value:.1f}" if row else "–"
    return text + (DAGGER if row and row.failed else " ") * marked


def _sentences(mode: str, lines: list[tuple[Panel, Comparison]]) -> list[str]:
    """One sentence for each norm of robust networks, so that a target counts once in each."""
    norms = list(dict.fromkeys(panel.norm for panel, _ in lines))
    if len(norms) < 2:
        return [_sentence(mode, lines)]
    return [
        _sentence(f"{mode}, {NORM_LABELS.get(norm, norm)}", [line for line in lines if line[0].norm == norm])
        for norm in norms
    ]


def _sentence(mode: str, lines: list[tuple[Panel, Comparison]]) -> str:
    """Who is ahead on how many targets, and where the interval of the difference excludes 0.

    Targets where a training or transfer behind one of both failed are left out and named.
    """
    found = [(panel.target.label, one) for panel, one in lines if one.difference]
    if not found:
        return f"{mode}: {_one_side(lines)}."
    measured = [(label, one) for label, one in found if not one.failed]
    left_out = _left_out([(label, one) for label, one in found if one.failed], len(found))
    if not measured:
        return f"{mode}: no target counts.{left_out}"
    ahead = {side: [label for label, one in measured if one.ahead == side] for side in ("robust", "standard", "")}
    decided = {side: [label for label, one in measured if one.decided and one.ahead == side] for side in ahead}
    counts = [f"best robust ahead on {len(ahead['robust'])} of {len(measured)} targets"]
    counts.append(f"standard on {len(ahead['standard'])}")
    if ahead[""]:
        counts.append(f"level on {len(ahead[''])}")
    favours = [f"{side} on {', '.join(decided[side])}" for side in ("robust", "standard") if decided[side]]
    known = any(one.difference and one.difference.ci_kind for _, one in measured)
    verdict = "No interval excludes 0." if known else "These numbers have no intervals."
    if favours:
        verdict = f"The interval excludes 0 for {'; for '.join(favours)}."
    return f"{mode}: {', '.join(counts)}. {verdict}{left_out}"


def _one_side(lines: list[tuple[Panel, Comparison]]) -> str:
    """What there is where nothing can be compared."""
    sides = {"standard": [one.standard for _, one in lines], "robust": [one.robust for _, one in lines]}
    counts = {side: sum(row is not None for row in rows) for side, rows in sides.items()}
    measured = [f"{side} networks on {count} of {len(lines)} targets" for side, count in counts.items() if count]
    nothing = "standard and robust were not both measured on any target"
    return f"{nothing}; {' and '.join(measured)}" if measured else nothing


def _left_out(failed: list[tuple[str, Comparison]], found: int) -> str:
    """How many of the targets found count for neither side, which, and what was raised how often; empty for none."""
    if not failed:
        return ""
    raised = [name for _, one in failed for name in one.failed]
    why = ", ".join(f"{name} {raised.count(name)}" for name in FLAGS if name in raised)
    labels = ", ".join(label for label, _ in failed)
    return f" Left out ({DAGGER}), {len(failed)} of {found} targets: {labels}; flags: {why}."


def _flags(raised: pd.DataFrame, path: Path, table: pd.DataFrame) -> str:
    """What looks wrong, one line for each flag and dataset: how many entries, and what one of them says.

    Those come first by which numbers do not count, then those of most entries. What to do stands in the file.
    """
    labels = _datasets(table)
    of = raised.assign(dataset=raised["entry"].map(lambda entry: labels.get(entry, "")))
    groups = [(str(name), str(label), rows) for (name, label), rows in of.groupby(["flag", "dataset"], sort=False)]
    groups.sort(key=lambda group: (not failures(group[0]), -len(group[2])))
    lines = [_flag_line(*group) for group in groups[:FLAG_LINES]]
    if len(groups) > FLAG_LINES:
        rest = groups[FLAG_LINES - 1 :]
        more = f"{sum(len(rows) for *_, rows in rest)} more of {len({name for name, *_ in rest})} kinds"
        lines[-1] = f"  and {more} in {path.name}"
    heading = f"What looks wrong, {len(raised)} {'flags' if len(raised) > 1 else 'flag'}; what to do: {path}"
    return "\n".join([heading, *lines])


def _flag_line(flag: str, dataset: str, rows: pd.DataFrame) -> str:
    """One line on the entries that a flag was raised for: of one its name, of several how many, and a message."""
    entries = list(rows["entry"].unique())
    which = _entry_name(entries[0]) if len(entries) == 1 else f"{len(entries)} entries"
    of = f"{which} on {dataset}" if dataset and len(entries) > 1 else which
    said = str(rows["message"].iloc[0]).partition(";")[0]
    text = f"  {flag}, {of}: {'' if len(entries) == 1 else 'e.g. '}{said}"
    return text if len(text) <= COLUMNS else text[: COLUMNS - 1] + "…"


def _entry_name(entry: str) -> str:
    """An entry's name without stage and hash."""
    return entry.partition("/")[2].rpartition("-")[0] or entry


def _datasets(table: pd.DataFrame) -> dict[str, str]:
    """The label of the dataset that an entry measures a network on; of a backbone, of the source."""
    about = ExperimentInfo.of(table)
    labels = {target.name: target.label for target in about.targets} | {about.source: about.source_label}
    rows = table.loc[table["entry"].notna(), ["entry", "backbone", "target", "source"]].astype("string")
    named = {backbone: source for _, backbone, _, source in rows.itertuples(index=False, name=None)}
    named |= {entry: target for entry, _, target, _ in rows.itertuples(index=False, name=None)}
    return {entry: labels.get(name, name) for entry, name in named.items()}


def _files(results: Path, report: Path | None) -> str:
    lines = [f"figures  {results.parent / 'figures'}/", f"numbers  {results}"]
    return "\n".join([*lines, f"report   {report}"] if report else lines)
