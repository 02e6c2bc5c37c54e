"""What an interrupted job wants of SLURM: when it ends, and to be queued again without having failed.

SLURM tells a job its end in `SLURM_JOB_END_TIME` from version 22.05 or later on, and the executor's inner `srun` does
not pass that on; so the job's end is asked for, of `squeue` or of `scontrol`.
"""

from __future__ import annotations

import logging
import os
import subprocess
import time
from datetime import datetime

REQUEUE = "ROBUST_TRANSFER_REQUEUE"
"""Environment variable that is set for the jobs of Snakemake's executor for SLURM: they may queue themselves again."""
PATIENCE = 20.0
"""Seconds in which SLURM's programs must answer, and in which it ends a job that it has queued again."""

log = logging.getLogger("robust_transfer")


def end_of_job() -> float | None:
    """When SLURM ends this job, in seconds since 1970; None outside SLURM, without a limit, or if nobody says."""
    stated, job = os.environ.get("SLURM_JOB_END_TIME", ""), os.environ.get("SLURM_JOB_ID")
    if stated.isdigit():
        return float(stated)
    if not job:
        return None
    for command in (
        ["squeue", "--noheader", "--jobs", job, "--format=%e"],
        ["scontrol", "--oneliner", "show", "job", job],
    ):
        try:
            said = _asked(command)
        except (OSError, subprocess.SubprocessError) as error:
            log.info("%s does not say when SLURM job %s ends: %s", command[0], job, error)
            continue
        words = [word.removeprefix("EndTime=") for word in said.split() if command[0] == "squeue" or "EndTime=" in word]
        return _seconds(words[0]) if words else None
    log.warning("the end of SLURM job %s is not known: its time limit may come before the state is saved", job)
    return None


def is_preempted() -> bool:
    """Whether SLURM is taking this job's node for a job of higher priority; False where nobody says.

    With a grace time a job gets SIGTERM and is queued again after it; one that leaves before has failed.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return False
    try:
        said = _asked(["scontrol", "--oneliner", "show", "job", job])
    except (OSError, subprocess.SubprocessError) as error:
        log.info("scontrol does not say whether SLURM job %s is preempted: %s", job, error)
        return False
    return any(word.startswith("PreemptTime=") and word[12:13].isdigit() for word in said.split())


def queue_again() -> bool:
    """Have SLURM end this job and queue it again, which is no failure; False where that is not wanted or refused.

    If SLURM agrees it ends this process while this function waits.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if not job or not os.environ.get(REQUEUE):
        return False
    try:
        _asked(["scontrol", "requeue", job])
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("SLURM job %s is not queued again: %s", job, error)
        return False
    log.info("SLURM job %s is queued again, and goes on there", job)
    time.sleep(PATIENCE)
    return True


def _asked(command: list[str]) -> str:
    """What one of SLURM's programs prints; times are as ISO 8601, whatever the user has set for a terminal."""
    environment = os.environ | {"SLURM_TIME_FORMAT": "standard"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    if ran.returncode:
        raise subprocess.SubprocessError(ran.stderr.strip() or f"exit status {ran.returncode}")
    return ran.stdout


def _seconds(text: str) -> float | None:
    """A time as SLURM writes it; None for its words for none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
