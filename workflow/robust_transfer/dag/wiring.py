"""What the rules need from the grid: inputs, parameters and notices, as plain values and named functions."""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from robust_transfer.architectures import timm_name
from robust_transfer.configuration.load import DEFAULT, ConfigurationError, load
from robust_transfer.configuration.running import VARIABLE
from robust_transfer.configuration.training import PretrainingSettings
from robust_transfer.configuration.transfer import FeaturesSettings, FinetuningSettings, LastBlocks
from robust_transfer.configuration.weights import ImportingSettings, TimmWeights
from robust_transfer.dag import experiment_file, originals
from robust_transfer.dag.about import ABOUT, about
from robust_transfer.dag.availability import absent, planned
from robust_transfer.dag.checks import preprocessing_notices, recipe_notices
from robust_transfer.dag.clock import date_now
from robust_transfer.dag.conflicts import conflict_mistakes
from robust_transfer.dag.engine import Engine
from robust_transfer.dag.gpus import gpu_notices, limit_gpus
from robust_transfer.dag.grid import Grid, PlannedEntry
from robust_transfer.dag.methods import label, made_by, methods
from robust_transfer.dag.namesakes import leftover_notices, namesake_notices, remember
from robust_transfer.dag.sources import foreign_networks
from robust_transfer.dag.stale import Stale
from robust_transfer.dag.stylized import unusable
from robust_transfer.dag.test_sets import class_mistakes
from robust_transfer.registry import COLLECTED, FIGURES, STAGES
from robust_transfer.resuming.scheduler import REQUEUE
from robust_transfer.store.entry import CARD, ENTRY, TIMING, StoreError, finished, open_entry, write_json
from robust_transfer.store.finished import keep_published
from robust_transfer.store.locking import check_locks, lock_notices
from robust_transfer.store.provenance import ROOT, software
from robust_transfer.tables.sanity import eps_flags
from robust_transfer.weights.files import WeightsError, published_file

DROPPED = "ROBUST_TRANSFER_DROPPED"
"""Environment variable with the datasets that this run leaves out, as JSON."""
Function = TypeVar("Function", bound=Callable[..., Any])
BACKBONES = (PretrainingSettings, ImportingSettings)


def wire(files: Sequence[str | Path], options: Mapping[str, Any], engine: Engine) -> Wiring:
    """Plan the experiment of these files, later ones over earlier ones, and over them the values of `--config`.

    Snakemake's own merge is not used: of a dataset that an overlay takes from another kind of origin it keeps the old
    origin's keys. In the main process notices about what is made again or kept, and large eps, go to the terminal.
    Raises ConfigurationError.
    """
    paths = [Path(file) for file in files]
    engine.ignore_usr1()
    experiment = load(paths, options)
    decided = None if engine.is_main or DROPPED not in os.environ else tuple(json.loads(os.environ[DROPPED]))
    wiring = Wiring(planned(experiment, decided), engine, paths)
    os.environ[DROPPED] = json.dumps(wiring.grid.dropped)  # for a cluster's jobs, which plan again
    os.environ[VARIABLE] = wiring.grid.experiment.running.model_dump_json()
    if engine.is_main:
        wiring.check_strictness()
        for line in (*wiring.notices(), *(wiring.absences() if engine.is_dry_run else ())):
            print(line, file=sys.stderr)
    return wiring


def export_environment(package: Path) -> None:
    """Let every job of this run, here or on a cluster, find this Python and the package in that folder."""
    for variable, first in (("PYTHONPATH", package), ("PATH", Path(sys.executable).parent)):
        os.environ[variable] = os.pathsep.join(filter(None, [str(first), os.environ.get(variable)]))


def memory(megabytes: int) -> Callable[[Any, int], int]:
    """Resource function: this much memory, doubled once when a job is tried again."""

    def scaled(wildcards: Any, attempt: int) -> int:
        return megabytes * min(attempt, 2)

    return with_signature(scaled)


def with_signature(function: Function) -> Function:
    """The function, which has its signature at hand: Snakemake asks for it twice for each job and function."""
    function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return function


class Wiring:
    """The grid of one experiment as the Snakefile sees it; every path is below the store or the results folder."""

    def __init__(self, grid: Grid, engine: Engine | None = None, files: Sequence[Path] = ()) -> None:
        self.grid, self._engine, self._files, self._start = grid, engine, files, time.time()
        self._is_forced = False
        self.store = Path(grid.experiment.store)
        self.results = Path(grid.experiment.results) / grid.experiment.experiment
        self._stages = {name: grid.stage(name) for name in STAGES}

    def input(self, stage: str, role: str) -> Callable[[Any], str]:
        """Input function: the card of what an entry of this stage is made from in that role."""

        def card_of_input(wildcards: Any) -> str:
            return self._read(self._entry(stage, wildcards.entry).inputs[role].id, CARD)

        return with_signature(card_of_input)

    def runs(self, stage: str) -> Callable[[Any], list[str]]:
        """Input function: the cards of the runs that an entry of this stage chooses from, which may be none."""

        def cards_of_runs(wildcards: Any) -> list[str]:
            return [self._read(run.id, CARD) for run in self._entry(stage, wildcards.entry).runs.values()]

        return with_signature(cards_of_runs)

    def others(self, stage: str, *roles: str) -> Callable[[Any], list[str]]:
        """Input function: the cards of what an entry of this stage is made from in those of the roles that it has."""

        def cards_of_others(wildcards: Any) -> list[str]:
            inputs = self._entry(stage, wildcards.entry).inputs
            return [self._read(inputs[role].id, CARD) for role in roles if role in inputs]

        return with_signature(cards_of_others)

    def inputs(self, stage: str) -> Callable[[Any], list[str]]:
        """Input function: the cards of everything that an entry of this stage is made from."""

        def cards_of_inputs(wildcards: Any) -> list[str]:
            inputs = self._entry(stage, wildcards.entry).inputs.values()
            return [self._read(one.id, CARD) for one in {one.id: one for one in inputs}.values()]

        return with_signature(cards_of_inputs)

    def measurements(self, wildcards: Any) -> list[str]:
        """Input function: the `metrics.json` of every entry that measures something."""
        return [self._read(entry, "metrics.json") for entry in self.grid.measuring]

    def timings(self, wildcards: Any) -> list[str]:
        """Input function: the `timing.json` of every entry."""
        return [self._read(entry, TIMING) for entry in self.grid.entries]

    def table(self, name: str) -> Callable[[Any], str]:
        """Input function: one of the files that the results stage makes."""
        return self.product("results", name)

    def product(self, product: str, name: str) -> Callable[[Any], str]:
        """Input function: a file in the results folder that one of the collected products consists of."""

        def path_of_product(wildcards: Any) -> str:
            return self._settled(str(self.results / name), product not in self._stale_products)

        return with_signature(path_of_product)

    def figures(self) -> list[Callable[[Any], str]]:
        """Input functions: every file of every figure that is drawn."""
        return [
            self.product(f"figure_{name}", f"figures/{name}.{suffix}")
            for name in self.grid.experiment.figures.draw
            for suffix in FIGURES[name].suffixes
        ]

    def sheets(self, wildcards: Any) -> list[str]:
        """Input function: the card of every gallery and of every stylized dataset, of which there may be none."""
        stages = (self._stages["gallery"], self._stages["stylizing"])
        return [self._read(entry.id, CARD) for of_stage in stages for entry in of_stage.values()]

    @property
    def measured(self) -> list[str]:
        """The files that `measurements` names."""
        return [self._path(entry, "metrics.json") for entry in self.grid.measuring]

    def _path(self, entry: str, name: str) -> str:
        return f"{self.store}/{entry}/{name}"  # a Path would take four times as long, and there are many

    def _read(self, entry: str, name: str) -> str:
        """A file of an entry, as another job's input."""
        return self._settled(self._path(entry, name), entry not in self._stale_entries)

    def _settled(self, path: str, stays: bool) -> str:
        """An input, which makes jobs run again if and only if it is made again itself.

        The first that Snakemake asks for has it run what is stale, and count GPUs: by then it knows where jobs run.
        """
        if self._engine is None:
            return path
        if self._engine.is_main and not self._is_forced:
            self._engine.force(self.stale.files())
            limit_gpus(self._engine, self.grid.experiment.running)
            self._is_forced = True
        return self._engine.settled(path) if stays else path

    @functools.cached_property
    def stale(self) -> Stale:
        """What is to be made again."""
        return Stale(self.grid, self.store, self.results)

    @functools.cached_property
    def _stale_entries(self) -> Collection[str]:
        return self.stale.entries if self._engine and self._engine.is_main else ()

    @functools.cached_property
    def _stale_products(self) -> Collection[str]:
        return self.stale.products if self._engine and self._engine.is_main else ()

    def _entry(self, stage: str, folder: str) -> PlannedEntry:
        if folder not in self._stages[stage]:
            raise ConfigurationError(
                f"{self.store / stage / folder}: not an entry of experiment {self.grid.experiment.experiment}; "
                "`robust-transfer entries` lists those that are"
            )
        return self._stages[stage][folder]

    @property
    def experiment_file(self) -> Path:
        """What the results stage reads beside the store: the experiment's settings and the keys of its entries."""
        return self.results / "experiment.json"

    def print_summary(self) -> None:
        """Show the experiment's summary and where its figures lie, if this run made or kept them."""
        summary = self.results / "summary.txt"
        if summary.exists():
            print(summary.read_text() + self._report_notice(), file=sys.stderr)
        if (page := self.results / COLLECTED["page"]).exists():
            print(f"page     {page}: open it in a browser", file=sys.stderr)

    def _report_notice(self) -> str:
        """How to have Snakemake's report, where it is not there or older than the results."""
        html, results = self.results / "report.html", self.results / "results.parquet"
        if html.exists() and results.exists() and html.stat().st_mtime >= results.stat().st_mtime:
            return ""
        stated = (file.resolve() for file in self._files)
        files = " ".join(os.path.relpath(file) for file in stated if file != DEFAULT.resolve())
        config = f' CONFIG="{files}"' if " " in files else f" CONFIG={files}" if files else ""
        return f"report   `make report{config}` writes {html}\n"

    def print_failures(self) -> None:
        """List the jobs of this run that failed, each with the end of its log."""
        for name, path in self._failed():
            said = path.read_text(errors="replace").strip().splitlines()
            print(f"failed: {name}: {said[-1].strip() if said else 'killed, or it said nothing'}", file=sys.stderr)
            print(f"  its log: {path}", file=sys.stderr)

    def _failed(self) -> Iterator[tuple[str, Path]]:
        """Names and logs of jobs that have started, could start since their inputs are there, and made nothing."""
        logs = {entry.id: self.store / entry.id / f"{entry.stage}.log" for entry in self.grid.entries.values()}
        for entry in self.grid.entries.values():
            ready = all(finished(self.store / one.id) for one in entry.inputs.values())
            if ready and not finished(self.store / entry.id) and self._is_of_this_run(logs[entry.id]):
                yield entry.id, logs[entry.id]
        for product, made in COLLECTED.items():
            path = self.results / "logs" / f"{product}.log"
            if not (self.results / made).exists() and self._is_of_this_run(path):
                yield product, path

    def _is_of_this_run(self, path: Path) -> bool:
        return path.exists() and path.stat().st_mtime >= self._start

    def prepare(self) -> None:
        """Before the first job: check that data is where the configuration says, that networks have the source's
        classes and the layers it names, and describe the entries."""
        if self._engine and self._engine.executor == "slurm":
            os.environ[REQUEUE] = "1"
        if self._engine and (messages := self._engine.refusals()):
            raise ConfigurationError("\n".join(messages))
        self._check_origins()
        self.check_networks()
        try:
            self.write_entries()
            if not all(finished(self.store / entry) for entry in self.grid.entries):
                check_locks(self.store)
            remember(self.results, self._files)
            for entry in self.grid.entries:
                keep_published(self.store / entry)
            self._date_now()
        except StoreError as error:
            raise ConfigurationError(str(error)) from error
        except OSError as error:
            raise ConfigurationError(
                f"store = {self.store}, results = {self.results}: cannot be written ({error}); "
                "make room or set them elsewhere"
            ) from error

    def absences(self) -> list[str]:
        """What a run would not start with, for a dry run: what can be fetched is told of, in a line for each.

        Raises ConfigurationError for a path in the configuration where nothing is, and for a layer or side that a
        network does not have: nobody but the author of the configuration can put that right.
        """
        if messages := absent(self.grid, stated=True) or conflict_mistakes(self.grid) or class_mistakes(self.grid):
            raise ConfigurationError("\n".join(messages))
        self.check_networks()
        if messages := absent(self.grid, stated=False):
            return [*messages, "A run stops there before its first job; this dry run goes on."]
        return []

    def _date_now(self) -> None:
        """Date what jobs read no later than now."""
        read = [self.store / entry / name for entry in self.grid.entries for name in (CARD, TIMING, "metrics.json")]
        if dated := date_now([*read, *self.results.glob("*.*")]):
            print(f"{dated} files were from the future, after a jump of the clock; they are dated now", file=sys.stderr)

    def _check_origins(self) -> None:
        mistakes = absent(self.grid) or foreign_networks(self.grid)
        if messages := mistakes or unusable(self.grid) or conflict_mistakes(self.grid) or class_mistakes(self.grid):
            raise ConfigurationError("\n".join(messages))

    def check_networks(self) -> None:
        """Look into the networks, without weights, where a layer or a number of blocks is named or timm builds them.

        Of weights that are timm's it is asked whether it has them, which only timm itself knows.
        """
        wanted: dict[tuple[str, int, str | None], None] = {}
        blocks: dict[tuple[str, int, int], None] = {}
        of_timm: list[ImportingSettings] = []
        for entry in self.grid.entries.values():
            if finished(self.store / entry.id):
                continue
            settings = entry.settings
            if isinstance(settings, BACKBONES) and timm_name(settings.architecture):
                wanted[settings.architecture, settings.input_size, None] = None
            if isinstance(settings, ImportingSettings) and isinstance(settings.weights, TimmWeights):
                of_timm.append(settings)
            if isinstance(settings, FeaturesSettings) and settings.layer:
                backbone = entry.inputs["backbone"].settings
                assert isinstance(backbone, BACKBONES)
                wanted[backbone.architecture, backbone.input_size, settings.layer] = None
            if isinstance(settings, FinetuningSettings) and isinstance(settings.trainable, LastBlocks):
                backbone = entry.inputs["backbone"].settings
                assert isinstance(backbone, BACKBONES)
                blocks[backbone.architecture, backbone.input_size, settings.trainable.last_blocks] = None
        if blocks:
            from robust_transfer.networks.freezing import check_last_blocks

            try:
                for architecture, input_size, last in blocks:
                    check_last_blocks(architecture, input_size, last)
            except ValueError as error:
                raise ConfigurationError(str(error)) from error
        if wanted:
            from robust_transfer.networks.layers import (  # 3 s for torch, which this process lacks
                LayerError,
                check_layer,
            )

            try:
                for architecture, input_size, layer in wanted:
                    check_layer(architecture, input_size, layer)
                for settings in of_timm:
                    published_file(settings)
            except (LayerError, WeightsError) as error:
                raise ConfigurationError(str(error)) from error

    def write_entries(self) -> None:
        """Write `entry.json` of every entry that has none, and the experiment file.

        Raises ConfigurationError if an entry with the same hash was written under other settings: a default changed.
        """
        for entry in self.grid.entries.values():
            path = self.store / entry.id / ENTRY
            described = entry.described()
            if path.exists():
                _same_settings(path, open_entry(path.parent).settings, described["settings"])
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, described)
        self.results.mkdir(parents=True, exist_ok=True)
        described = experiment_file.describe(self.grid)
        if not self.experiment_file.exists() or json.loads(self.experiment_file.read_text()) != described:
            write_json(self.experiment_file, described)
        said = about(self.grid)
        if not (path := self.results / ABOUT).exists() or json.loads(path.read_text()) != said:
            write_json(path, said)

    def dropped_notices(self) -> list[str]:
        """One line that names what is left out."""
        names = ", ".join(self.grid.dropped)
        return [f"missing: drop: left out, since the images are not on this machine: {names}"] if names else []

    @property
    def configuration(self) -> dict[str, Any]:
        """What the report's texts need: all settings as plain values, its methods section, and what wrote it."""
        experiment, dropped = self.grid.experiment, self.grid.dropped
        texts = {"methods": methods(experiment, dropped), "made_by": made_by(software())}
        texts["source_label"] = label(experiment, experiment.source)
        return {**experiment.model_dump(mode="json"), "dropped": list(dropped), **texts}

    def eps_notices(self) -> list[str]:
        """One line for each radius of the grid that is implausibly large at the experiment's input size."""
        size = self.grid.experiment.input_size
        radii = dict.fromkeys((part.norm, eps) for part in self.grid.experiment.grid for eps in part.eps)
        return [f"grid: {flag.message}" for norm, eps in radii for flag in eps_flags(norm, eps, size)]

    def notices(self) -> list[str]:
        """What to know before a run starts."""
        experiment = self.grid.experiment
        return [
            *self.place_notices(),
            *namesake_notices(experiment, self.results, self._files),
            *leftover_notices(self.results, experiment.figures.draw, "results" in self.stale.products),
            *self.dropped_notices(),
            *recipe_notices(self.grid),
            *preprocessing_notices(experiment),
            *self.eps_notices(),
            *self.original_notices,
            *gpu_notices(),
            *lock_notices(self.store),
            *self.stale.notices(),
        ]

    @functools.cached_property
    def original_notices(self) -> list[str]:
        """One line for each finished entry whose originals are others by now."""
        return originals.notices(self.grid, self.store)

    def check_strictness(self) -> None:
        """Raise ConfigurationError where `running.strict` is set and entries are kept that would be made otherwise."""
        if self.grid.experiment.running.strict and (lines := [*self.original_notices, *self.stale.kept_notices()]):
            raise ConfigurationError(
                "\n".join([*lines, "running.strict = true: renew these entries, or set it to false"])
            )

    def place_notices(self) -> list[str]:
        """One line if the store is to be made anew and not in the checkout, as by `-s` without `--directory`."""
        if self.store.exists() or not ROOT.exists() or Path.cwd() == ROOT:
            return []
        return [
            f"store: {self.store.absolute()} is new; relative paths start at the working directory, "
            f"and --directory {ROOT} takes the checkout's"
        ]


def _same_settings(path: Path, found: dict[str, Any], now: dict[str, Any]) -> None:
    for key, before, value in _differing(found, now):
        raise ConfigurationError(
            f"{path}: made with {key} = {before}, which the same configuration now reads as {value}: "
            "a default changed, or the file was edited; state the old value in the configuration, "
            f"or move the entry aside: robust-transfer store renew {path.parent}"
        )


def _differing(found: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Settings that both have, at any depth, and that differ: name, value found, value now."""
    if isinstance(found, dict) and isinstance(now, dict):
        for name in sorted(found.keys() & now.keys()):
            yield from _differing(found[name], now[name], f"{key}.{name}" if key else name)
    elif found != now:
        yield key, found, now
