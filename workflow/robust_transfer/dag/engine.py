"""The little that planning needs of Snakemake beyond its rules: to have jobs run again, and to leave others alone."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from typing import Any


class Engine:
    """Snakemake's workflow, while its Snakefile is read and while it asks rules for their inputs.

    The jobs to run are named to its graph of jobs, once there is one. They could be named as if by `--forcerun`, but
    that would make them targets, and everything stale would run for one figure that is asked for.
    """

    def __init__(self, workflow: Any, ancient: Callable[[str], str]) -> None:
        """Create an engine.

        Args:
            workflow: Snakemake's global of that name.
            ancient: Its flag for an input that makes no job run again, neither by its time nor by being made again.
        """
        self._workflow, self._ancient = workflow, ancient
        self._user_forces = False
        self._refused: dict[str, str] = {}

    @property
    def is_main(self) -> bool:
        """Whether this process runs the workflow, and is not a job on a cluster that plans again to run one job."""
        return bool(self._workflow.is_main_process)

    @property
    def is_dry_run(self) -> bool:
        """Whether jobs are listed and not run."""
        return bool(self._workflow.output_settings.dryrun)

    def ignore_usr1(self) -> None:
        """Let SIGUSR1, which SLURM sends to all processes of a job, reach the stage alone.

        Snakemake would die of it, and the job with it. What is ignored stays ignored in the processes that are started,
        until one of them handles it.
        """
        if not self.is_main:
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    @property
    def executor(self) -> str:
        """Name of the executor, once the workflow runs: `local`, `slurm`, …."""
        return str(self._workflow.executor_plugin.name)

    def force(self, files: Iterable[str]) -> None:
        """Have the jobs with these outputs run, if the targets need them."""
        dag = self._workflow.dag
        self._user_forces = bool(dag.forcerules or dag.forcefiles)
        dag.forcefiles.update(files)

    @property
    def is_local(self) -> bool:
        """Whether jobs run on this machine, and are not handed to a scheduler."""
        return bool(self._workflow.local_exec)

    @property
    def cores(self) -> int | None:
        """Cores of `--cores`; None where there is no such limit, as on a cluster."""
        found: int | None = self._workflow.global_resources["_cores"].value
        return found

    @property
    def uses_containers(self) -> bool:
        """Whether jobs run in containers, where a rule has an image (`--sdm apptainer`)."""
        return "apptainer" in {str(method) for method in self._workflow.deployment_settings.deployment_method}

    def limit(self, resource: str, total: int) -> None:
        """How much of a resource the jobs that run at one time may ask for, unless `--resources` says so."""
        if resource not in self._workflow.global_resources:
            self._workflow.register_resource(resource, total)

    def resource(self, rule: str, name: str) -> Any:
        """What a rule, or `--set-resources`, asks for; None if that depends on the job, or nothing is asked for."""
        found = self._workflow.get_rule(rule).resources.get(name)
        return None if found.is_evaluable() else found.value

    def ask(self, rule: str, **resources: int) -> None:
        """Have all jobs of a rule ask for more than it says."""
        self._workflow.get_rule(rule).resources.update(resources)

    def refuse(self, rule: str, resource: str, message: str) -> None:
        """Let no job of a rule run: `refusals` says so before the first one starts.

        In a dry run the message is raised where Snakemake asks for a resource: it shows what an input function raises
        with a traceback.
        """
        from snakemake.exceptions import ResourceValidationError  # the package's own commands plan without Snakemake

        def refused(wildcards: Any) -> int:
            raise ResourceValidationError(message)

        self._workflow.get_rule(rule).resources.update({resource: refused})
        self._refused[rule] = message

    def refusals(self) -> list[str]:
        """Messages of `refuse` that jobs of this run have."""
        running = {job.rule.name for job in self._workflow.dag.needrun_jobs()}
        return [message for rule, message in self._refused.items() if rule in running]

    def settled(self, path: str) -> str:
        """An input that stays as it is. Where `--forcerun` asks for jobs, what hangs on them is left to Snakemake."""
        return path if self._user_forces and self.is_main else self._ancient(path)
