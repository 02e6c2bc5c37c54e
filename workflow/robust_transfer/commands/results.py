"""Commands of one experiment's results: collect, draw, sum up."""

from __future__ import annotations

import argparse
from pathlib import Path

from robust_transfer.commands.options import Commands, add_log
from robust_transfer.registry import ALL_STAGES, COLLECTED, FIGURES


def add_results_commands(commands: Commands) -> None:
    """Add `results`, `figures`, `report` and `page`."""
    results = commands.add_parser("results", help=ALL_STAGES["results"].summary)
    results.add_argument("experiment", type=Path, help="results/<experiment>/experiment.json")
    results.add_argument("--results", type=Path, required=True, help="parquet file to write: one row per number")
    results.add_argument("--timings", type=Path, required=True, help="parquet file to write: one row per entry")
    results.add_argument("--training", type=Path, required=True, help="parquet file to write: one row per epoch")
    results.add_argument(
        "--backbones", type=Path, required=True, help="CSV file to write: properties of backbones, one row per backbone"
    )
    results.add_argument(
        "--flags", type=Path, required=True, help="CSV file to write: what looks wrong, one row per flag"
    )
    add_log(results)
    results.set_defaults(run=_run_results)

    figures = commands.add_parser("figures", help=ALL_STAGES["figures"].summary)
    figures.add_argument("figure", help=", ".join(FIGURES))
    figures.add_argument("table", type=Path, help="results/<experiment>/results.parquet (training: training.parquet)")
    figures.add_argument(
        "--out",
        type=Path,
        required=True,
        help="path without suffix; .csv and .png, .pdf, .svg, or for a table .html, .tex, .md are added",
    )
    add_log(figures)
    figures.set_defaults(run=_run_figures)

    report = commands.add_parser("report", help=ALL_STAGES["report"].summary)
    report.add_argument("results", type=Path, help="results/<experiment>/results.parquet")
    report.add_argument("--flags", type=Path, help="flags.csv beside it, to list what looks wrong")
    report.add_argument("--out", type=Path, help="file to write (default: the terminal)")
    add_log(report)
    report.set_defaults(run=_run_report)

    page = commands.add_parser("page", help=ALL_STAGES["page"].summary)
    page.add_argument("folder", type=Path, help="results/<experiment>")
    page.add_argument("--out", type=Path, help="file to write (default: index.html in the folder)")
    add_log(page)
    page.set_defaults(run=_run_page)


def _run_results(args: argparse.Namespace) -> None:
    from robust_transfer.stages.results import collect
    from robust_transfer.store.entry import read_json
    from robust_transfer.store.fingerprint import fingerprint
    from robust_transfer.store.made import digest, digest_of_cards, write_made

    described = read_json(args.experiment)
    store = Path(described["store"])
    # Asked first, as below: code and entries may change while the job runs.
    made_from = {"code": fingerprint("results"), "experiment": digest(described)}
    made_from["entries"] = digest_of_cards(store, described["costs"])
    collect(
        args.experiment,
        store,
        results=args.results,
        timings=args.timings,
        training=args.training,
        backbones=args.backbones,
        flags=args.flags,
    )
    files = (args.results, args.timings, args.training, args.backbones, args.flags)
    if all(file.parent == args.experiment.parent for file in files):
        write_made(args.experiment.parent, "results", made_from, files)


def _run_figures(args: argparse.Namespace) -> None:
    from robust_transfer.stages.figures import draw
    from robust_transfer.store.entry import sha256
    from robust_transfer.store.fingerprint import fingerprint
    from robust_transfer.store.made import write_made

    known = args.figure in FIGURES  # `draw` says which there are
    made_from = {"code": fingerprint(f"figures/{args.figure}"), "table": sha256(args.table)} if known else {}
    draw(args.figure, args.table, args.out)
    if args.out == args.table.parent / "figures" / args.figure:  # where a run of the experiment draws it
        files = [args.out.with_name(f"{args.figure}.{suffix}") for suffix in FIGURES[args.figure].suffixes]
        write_made(args.table.parent, f"figure_{args.figure}", made_from, files)


def _run_report(args: argparse.Namespace) -> None:
    from robust_transfer.stages.report import summary
    from robust_transfer.store.entry import sha256, write_text
    from robust_transfer.store.fingerprint import fingerprint
    from robust_transfer.store.made import write_made

    made_from = {"code": fingerprint("report"), "results": sha256(args.results)}
    made_from |= {"flags": sha256(args.flags)} if args.flags else {}
    text = summary(args.results, args.flags)
    if not args.out:
        print(text)
        return
    write_text(args.out, text)
    if args.out.parent == args.results.parent:
        write_made(args.out.parent, "report", made_from, [args.out])


def _run_page(args: argparse.Namespace) -> None:
    from robust_transfer.stages.page import write_page
    from robust_transfer.store.entry import read_json
    from robust_transfer.store.made import page_made_from, write_made

    said, page = args.folder / "about.json", args.folder / COLLECTED["page"]
    described = read_json(said) if said.exists() else {}
    made_from = page_made_from(args.folder, described)  # asked first: code and files may change while the job runs
    out = args.out or page
    write_page(args.folder, out)
    if described and out == page:  # as a run writes it
        write_made(args.folder, "page", made_from, [out])
