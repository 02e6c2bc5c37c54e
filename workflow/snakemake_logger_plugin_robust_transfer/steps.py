"""Steps of a run: how many there are and have ended, how long they took, and how long the rest will take."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TARGET = "all"
"""The rule that only names what is to be made, and takes no time."""
SHORT = 10.0
"""Seconds: a lower bound on the time left that is below this says nothing."""


@dataclass(frozen=True)
class Step:
    """A job that has started, at `start` in seconds since the epoch."""

    name: str
    kind: str
    start: float
    logs: Sequence[str]


@dataclass
class Taken:
    """What the jobs of a rule that have finished took, in seconds."""

    jobs: int = 0
    seconds: float = 0.0
    shortest: float = math.inf

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.jobs, self.seconds, self.shortest = self.jobs + 1, self.seconds + seconds, min(self.shortest, seconds)


class Steps:
    """What has been heard of the jobs of a run, by Snakemake's numbers of them."""

    def __init__(self) -> None:
        self.total = 0
        self.finished = 0
        self._planned: dict[str, int] = {}
        self._running: dict[int, Step] = {}
        self._failed: dict[int, Step] = {}
        self._taken: defaultdict[str, Taken] = defaultdict(Taken)
        self._begun: float | None = None

    @property
    def failed(self) -> int:
        """Jobs that failed and have not been tried again."""
        return len(self._failed)

    def plan(self, jobs: Mapping[str, int]) -> None:
        """Take the number of jobs to run, by rule."""
        self.total = sum(jobs.values())
        self._planned = {}
        for rule, count in jobs.items():
            self._planned[_kind(rule)] = self._planned.get(_kind(rule), 0) + count

    def start(self, job: int, rule: str, wildcards: Mapping[str, str], logs: Sequence[str], now: float) -> None:
        """Note that a job has started or was submitted, for the first time or again."""
        self._failed.pop(job, None)
        self._begun = now if self._begun is None else self._begun
        # Of an entry's folder, the name without the hash, as in what the job itself says.
        names = [value.rpartition("-")[0] or value for value in wildcards.values()]
        self._running[job] = Step(" ".join([rule, *names]), _kind(rule), now, tuple(logs))

    def finish(self, job: int, now: float) -> tuple[str, float | None]:
        """Note that a job has finished; its name, and its seconds, None where its start was not heard of."""
        self.finished += 1
        step = self._running.pop(job, None)
        if step is None:
            return f"job {job}", None
        self._taken[step.kind].add(now - step.start)
        return step.name, now - step.start

    def fail(self, job: int, rule: str, now: float) -> str:
        """Note that a job has failed; its name."""
        step = self._running.pop(job, None) or Step(rule, _kind(rule), now, ())
        self._failed[job] = step
        return step.name

    def time_left(self, now: float) -> str:
        """How long the rest will take, in words; empty where nothing can be said.

        The sum over rules of the jobs left times the mean time of those that have finished in this run, divided by the
        number of jobs that were running at a time so far. Of a rule of which none has finished, a job counts as long as
        the longest that is running, and at least as the shortest of this run; the whole is then a lower bound, `at
        least`. After a failure nothing is said, since what depends on it does not run.
        """
        if self._begun is None or self._failed:
            return ""
        shortest = min((taken.shortest for taken in self._taken.values() if taken.jobs), default=0.0)
        seconds, jobs, is_bound = 0.0, 0, False
        for kind, planned in self._planned.items():
            taken = self._taken[kind]
            left = planned - taken.jobs
            if kind == TARGET or left <= 0:
                continue
            running = [now - step.start for step in self._running.values() if step.kind == kind]
            mean = taken.seconds / taken.jobs if taken.jobs else max([shortest, *running])
            is_bound |= not taken.jobs
            seconds += mean * (left - len(running)) + sum(max(0.0, mean - spent) for spent in running)
            jobs += left
        worked = sum(taken.seconds for taken in self._taken.values())
        worked += sum(now - step.start for step in self._running.values())
        if not jobs:
            return ""
        left_seconds = seconds / max(1.0, min(worked / max(now - self._begun, 1e-9), jobs))
        if left_seconds < (SHORT if is_bound else 1.0):
            return ""
        return f"{'at least' if is_bound else 'about'} {span(left_seconds)} left"


def span(seconds: float) -> str:
    """A time in the unit that suits it, as the package's own messages word it (`robust_transfer.quantities`)."""
    for unit, length, longest in (("s", 1, 100), ("min", 60, 100 * 60), ("h", 3600, 48 * 3600)):
        if seconds < longest:
            return f"{max(seconds, 0) / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


def _kind(rule: str) -> str:
    """What rules have in common whose jobs take equally long: `figure` of `figure_width`, one for each figure."""
    return "figure" if rule.startswith("figure_") else rule
