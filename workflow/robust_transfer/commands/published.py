"""Command `published`: the paper's figures from its published numbers, with nothing trained, downloaded or measured."""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from robust_transfer.commands.options import Commands, add_log
from robust_transfer.registry import FIGURES, Figure

INDEX = "index.md"


def add_published_command(commands: Commands) -> None:
    """Add `published`."""
    published = commands.add_parser(
        "published", help="draw the paper's figures and tables from its published numbers, without training"
    )
    published.add_argument(
        "--out", type=Path, default=Path("results/published"), help="folder to write (default: results/published)"
    )
    add_log(published)
    published.set_defaults(run=_run_published)


def _run_published(args: argparse.Namespace) -> None:
    from robust_transfer.stages.figures import draw
    from robust_transfer.tables.published_experiment import paper, published_results
    from robust_transfer.tables.results import write_results

    table = args.out / "results.parquet"
    write_results(table, published_results(), paper().as_json())
    drawn = [figure for figure in FIGURES.values() if figure.published]
    with ProcessPoolExecutor(min(len(drawn), os.cpu_count() or 1), get_context("spawn")) as pool:
        jobs = [pool.submit(draw, figure.name, table, args.out / "figures" / figure.name) for figure in drawn]
        for job in jobs:
            job.result()
    (args.out / INDEX).write_text(_index(args.out, drawn), encoding="utf-8")
    print(f"Figures: {args.out / INDEX}")


def _index(out: Path, figures: list[Figure]) -> str:
    """A page of Markdown with every figure, its caption and its files; tables stand in it as they are."""
    from robust_transfer.dag.captions import caption
    from robust_transfer.tables.published_experiment import paper

    about = paper()
    shown_of = {"source": about.source, "source_label": about.source_label, "selection": [about.selection]}
    parts = [f"# {about.title}", about.notice]
    for figure in figures:
        files = [f"figures/{figure.name}.{suffix}" for suffix in figure.suffixes]
        shown = (out / files[2]).read_text(encoding="utf-8") if figure.is_table else f"![{figure.shows}]({files[0]})"
        heading = f"{figure.paper + ': ' if figure.paper else ''}{figure.shows}"
        links = ", ".join(f"[{Path(file).suffix[1:].upper()}]({file})" for file in files)
        parts += [
            f"## {heading[0].upper()}{heading[1:]}",
            shown.strip(),
            caption(figure.name, shown_of),
            f"Files: {links}",
        ]
    return "\n\n".join(parts) + "\n"
