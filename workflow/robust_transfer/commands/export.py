"""The command `export`: a transferred model as a file that others load."""

from __future__ import annotations

import argparse
from pathlib import Path

from robust_transfer.commands.options import Commands


def add_export_command(commands: Commands) -> None:
    """Add `export`."""
    export = commands.add_parser(
        "export",
        help="write a transferred model, network and head as one, to a safetensors file, and the lines that load it",
        description="Write the model of a finished transfer to one safetensors file, and beside it a few lines of\n"
        "Python that load it. Probes are fitted again, which takes a moment; fine-tuned networks and linear heads\n"
        "are there if their part of the grid has robustness: true, with which their weights are kept.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    export.add_argument(
        "transfer",
        help="a probing, finetuning or selecting entry: its folder, or in quotes parts of its name that no other has",
    )
    export.add_argument(
        "out", type=Path, help="file to write, such as model.safetensors; model.py is written beside it"
    )
    export.add_argument(
        "--selection",
        choices=("validation", "test"),
        default="validation",
        help="where its hyperparameters were chosen (default: validation)",
    )
    export.add_argument("--store", type=Path, default=Path("store"), help="the store (default: store)")
    export.set_defaults(run=_run_export)


def _run_export(args: argparse.Namespace) -> None:
    from robust_transfer.store.entry import CARD, open_entry
    from robust_transfer.store.names import named_entry
    from robust_transfer.training.exporting import export

    entry = open_entry(named_entry(args.transfer, args.store, holding=CARD))
    lines = export(entry, args.out, args.selection)
    print(f"{args.out}: the model of {entry.stage}/{entry.name}; {lines} loads it")
