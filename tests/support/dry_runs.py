"""Many dry runs of Snakemake in one process, since it takes seconds to start and a tenth of a second to refuse a file.

    python -m support.dry_runs < calls.json > outcomes.json

`calls.json` is a list of pairs: the program, `snakemake` or `robust_transfer`, and its arguments. Each outcome is its
exit status and all that it wrote.
"""

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from support.paths import ROOT

Call = tuple[str, list[str]]
Outcome = tuple[int, str]


def outcomes(calls: Sequence[Call], folder: Path) -> list[Outcome]:
    """Run the calls, one after the other, in a process of their own in that folder."""
    paths = [str(ROOT / "tests"), str(folder / "workflow")]
    run = subprocess.run(
        [sys.executable, "-m", "support.dry_runs"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return [(status, text) for status, text in json.loads(run.stdout)]


def outcome(program: str, arguments: list[str]) -> Outcome:
    """Run one of the programs as its command line does."""
    from robust_transfer import cli
    from snakemake.cli import main

    written = io.StringIO()
    environment = dict(os.environ)
    status: object = 0
    with contextlib.redirect_stdout(written), contextlib.redirect_stderr(written):
        logging.getLogger().handlers.clear()  # those of the call before write elsewhere
        try:
            status = main(arguments) if program == "snakemake" else cli.main(arguments)
        except SystemExit as left:
            status = left.code
    os.environ.clear()
    os.environ.update(environment)
    return int(status or 0) if isinstance(status, int | None) else 1, written.getvalue()


if __name__ == "__main__":
    calls = json.load(sys.stdin)
    json.dump([outcome(program, arguments) for program, arguments in calls], sys.stdout)
