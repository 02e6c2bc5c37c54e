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

from robust_transfer.configuration.training import NORM_LABELS
from robust_transfer.figures.cells import NOT_MEASURED, Cells, Panel, cells_of_few
from robust_transfer.figures.estimates import Comparison
from robust_transfer.figures.plain_text import source_tables, transfer_table
from robust_transfer.figures.protocols import FIXED_FEATURE, FULL_NETWORK, MODE_LABELS, protocol_label, shown_protocol
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.flags import DAGGER, FLAGS, failures
from robust_transfer.tables.key import BEST_ARCH
from robust_transfer.tables.results import read_results
from robust_transfer.tables.training import read_flags

FEW_IMAGES = {"images_per_class": "of each class", "training_images": "in total"}
"""Columns that say how many training images there were, and how they count them."""
COLUMNS = 100
FLAG_LINES = 10


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
        parts.append(transfer_table(protocol_label(protocol), lines))
        marked |= any(comparison.failed for _, comparison in lines)
        sentences += [
            textwrap.fill(said, COLUMNS, subsequent_indent="  ", break_on_hyphens=False)
            for said in _sentences(MODE_LABELS[mode], lines)
        ]
        if cells.others(mode):
            others.append(textwrap.fill(f"{cells.others(mode)} See protocol_gap.", COLUMNS, subsequent_indent="  "))
    parts += source_tables(cells)
    for heading, lines in _others(table, cells):
        parts.append(transfer_table(heading, lines))
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
        sizes = table.loc[table["mode"] == mode, [*FEW_IMAGES]]
        if not sizes.isna().all(axis=1).any():
            continue  # the table above is of the most images that there are
        for name, words in FEW_IMAGES.items():
            for size in sorted(int(size) for size in sizes[name].dropna().unique()):
                few = cells_of_few(table, name, size)
                if found := _measured([(panel, few.comparison(panel, BEST_ARCH)) for panel in few.panels(mode)]):
                    yield f"{MODE_LABELS[mode]}, {size} training images {words}", found


def _measured(lines: list[tuple[Panel, Comparison]]) -> list[tuple[Panel, Comparison]]:
    return [(panel, one) for panel, one in lines if one.standard or one.robust]


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
