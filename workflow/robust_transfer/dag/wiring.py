"""What the rules need from the grid: inputs, parameters and notices, as plain values and named functions."""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from robust_transfer.architectures import timm_name
from robust_transfer.configuration.load import ConfigurationError, load
from robust_transfer.configuration.running import VARIABLE
from robust_transfer.configuration.training import PretrainingSettings
from robust_transfer.configuration.transfer import FeaturesSettings
from robust_transfer.configuration.weights import ImportingSettings
from robust_transfer.dag import experiment_file
from robust_transfer.dag.availability import absent, planned
from robust_transfer.dag.grid import Grid, PlannedEntry
from robust_transfer.dag.methods import made_by, methods
from robust_transfer.registry import STAGES
from robust_transfer.store.entry import CARD, ENTRY, PLANNED, TIMING, finished, write_json
from robust_transfer.store.fingerprint import changed_modules, fingerprint, module_fingerprints
from robust_transfer.store.provenance import software
from robust_transfer.tables.sanity import eps_flags

DROPPED = "ROBUST_TRANSFER_DROPPED"
"""Environment variable with the datasets that this run leaves out, as JSON."""
BACKBONES = (PretrainingSettings, ImportingSettings)


def wire(files: Iterable[str | Path], options: Mapping[str, Any], main: bool) -> Wiring:
    """Plan the experiment of these files, later ones over earlier ones, and over them the values of `--config`.

    Snakemake's own merge is not used: of a dataset that an overlay takes from another kind of origin it keeps the old
    origin's keys. In the main process notices about large eps and kept entries go to the terminal. Raises
    ConfigurationError.
    """
    experiment = load([Path(file) for file in files], options)
    decided = None if main or DROPPED not in os.environ else tuple(json.loads(os.environ[DROPPED]))
    wiring = Wiring(planned(experiment, decided))
    os.environ[DROPPED] = json.dumps(wiring.grid.dropped)  # for a cluster's jobs, which plan again
    os.environ[VARIABLE] = wiring.grid.experiment.running.model_dump_json()
    if main or PLANNED not in os.environ:  # a cluster's job plans again, perhaps after an edit: the first plan counts
        kept = [name for name, stage in STAGES.items() if stage.expensive]
        os.environ[PLANNED] = json.dumps({name: fingerprint(name) for name in kept})
    for line in [*wiring.dropped_notices(), *wiring.eps_notices(), *wiring.kept_notices()] if main else ():
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

    return scaled


class Wiring:
    """The grid of one experiment as the Snakefile sees it; every path is below the store or the results folder."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.store = Path(grid.experiment.store)
        self.results = Path(grid.experiment.results) / grid.experiment.experiment
        self._stages = {name: grid.stage(name) for name in STAGES}

    def input(self, stage: str, role: str) -> Callable[[Any], str]:
        """Input function: the card of what an entry of this stage is made from in that role."""

        def card_of_input(wildcards: Any) -> str:
            return str(self.store / self._entry(stage, wildcards.entry).inputs[role].id / CARD)

        return card_of_input

    def runs(self, stage: str) -> Callable[[Any], list[str]]:
        """Input function: the cards of the runs that an entry of this stage chooses from, which may be none."""

        def cards_of_runs(wildcards: Any) -> list[str]:
            return [str(self.store / run.id / CARD) for run in self._entry(stage, wildcards.entry).runs.values()]

        return cards_of_runs

    def _entry(self, stage: str, folder: str) -> PlannedEntry:
        if folder not in self._stages[stage]:
            raise ConfigurationError(
                f"{self.store / stage / folder}: not an entry of experiment {self.grid.experiment.experiment}; "
                "`python -m robust_transfer entries` lists those that are"
            )
        return self._stages[stage][folder]

    def code(self, stage: str) -> str | Callable[[Any], str]:
        """Parameter that reruns a cheap stage or figure when its code changed; an expensive stage keeps its entries.

        Of an expensive entry it is always what it was when the entry was planned, even if the code was edited
        before it ran.
        """
        if stage not in STAGES or not STAGES[stage].expensive:
            return fingerprint(stage)
        current = json.loads(os.environ.get(PLANNED, "{}")).get(stage) or fingerprint(stage)

        def code_recorded(wildcards: Any) -> str:
            recorded = self._recorded(stage, wildcards.entry)
            return str(recorded.get("planned", recorded.get("code", current)))

        return code_recorded

    def _recorded(self, stage: str, folder: str) -> dict[str, Any]:
        card = self.store / stage / folder / CARD
        try:
            found: dict[str, Any] = json.loads(card.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return found

    @property
    def measurements(self) -> list[str]:
        """The `metrics.json` of every entry that measures something."""
        return [str(self.store / name / "metrics.json") for name in self.grid.measurements]

    @property
    def timings(self) -> list[str]:
        """The `timing.json` of every entry."""
        return [str(self.store / name / TIMING) for name in self.grid.entries]

    @property
    def experiment_file(self) -> Path:
        """What the results stage reads beside the store: the experiment's settings and the keys of its entries."""
        return self.results / "experiment.json"

    @property
    def experiment_digest(self) -> str:
        """Changes when the experiment file does."""
        return experiment_file.digest(self.grid)

    def print_summary(self) -> None:
        """Show the experiment's summary and where its figures lie, if this run made or kept them."""
        summary = self.results / "summary.txt"
        if summary.exists():
            print(summary.read_text(), file=sys.stderr)

    def prepare(self) -> None:
        """Before the first job: check that data is where the configuration says and that networks have the layers it
        names, and describe the entries."""
        self._check_origins()
        self._check_networks()
        self.write_entries()

    def _check_origins(self) -> None:
        if messages := absent(self.grid):
            raise ConfigurationError("\n".join(messages))

    def _check_networks(self) -> None:
        """Look into the networks, without weights, where a layer is named or timm is to build them."""
        wanted: dict[tuple[str, int, str | None], None] = {}
        for entry in self.grid.entries.values():
            if finished(self.store / entry.id):
                continue
            settings = entry.settings
            if isinstance(settings, BACKBONES) and timm_name(settings.architecture):
                wanted[settings.architecture, settings.input_size, None] = None
            if isinstance(settings, FeaturesSettings) and settings.layer:
                backbone = entry.inputs["backbone"].settings
                assert isinstance(backbone, BACKBONES)
                wanted[backbone.architecture, backbone.input_size, settings.layer] = None
        if wanted:
            from robust_transfer.networks.layers import (  # 3 s for torch, which this process lacks
                LayerError,
                check_layer,
            )

            try:
                for architecture, input_size, layer in wanted:
                    check_layer(architecture, input_size, layer)
            except LayerError as error:
                raise ConfigurationError(str(error)) from error

    def write_entries(self) -> None:
        """Write `entry.json` of every entry that has none, and the experiment file.

        Raises ConfigurationError if an entry with the same hash was written under other settings: a default changed.
        """
        for entry in self.grid.entries.values():
            path = self.store / entry.id / ENTRY
            described = entry.described()
            if path.exists():
                _same_settings(path, described)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, described)
        self.results.mkdir(parents=True, exist_ok=True)
        described = experiment_file.describe(self.grid)
        if not self.experiment_file.exists() or json.loads(self.experiment_file.read_text()) != described:
            write_json(self.experiment_file, described)

    def dropped_notices(self) -> list[str]:
        """One line that names what is left out."""
        names = ", ".join(self.grid.dropped)
        return [f"missing: drop: left out, since the images are not on this machine: {names}"] if names else []

    @property
    def configuration(self) -> dict[str, Any]:
        """What the report's texts need: all settings as plain values, its methods section, and what wrote it."""
        experiment, dropped = self.grid.experiment, self.grid.dropped
        texts = {"methods": methods(experiment, dropped), "made_by": made_by(software())}
        return {**experiment.model_dump(mode="json"), "dropped": list(dropped), **texts}

    def eps_notices(self) -> list[str]:
        """One line for each radius of the grid that is implausibly large at the experiment's input size."""
        size = self.grid.experiment.input_size
        radii = dict.fromkeys((part.norm, eps) for part in self.grid.experiment.grid for eps in part.eps)
        return [f"grid: {flag.message}" for norm, eps in radii for flag in eps_flags(norm, eps, size)]

    def kept_notices(self) -> list[str]:
        """One line for each expensive stage whose entries were made by other code than today's: they are kept."""
        lines = []
        for name, stage in STAGES.items():
            if not stage.expensive:
                continue
            current = module_fingerprints(name)
            differing: dict[str, set[str]] = defaultdict(set)
            for folder in self._stages[name]:
                if changed := changed_modules(self._recorded(name, folder).get("modules", current), current):
                    differing[folder] = changed
            if differing:
                names = ", ".join(sorted(set().union(*differing.values())))
                lines.append(
                    f"{name}: kept {len(differing)} of {len(self._stages[name])} entries made by other code "
                    f"(changed since: {names}); to make one anew, move its folder under {self.store / name} aside"
                )
        return lines


def _same_settings(path: Path, described: dict[str, Any]) -> None:
    for key, found, now in _differing(json.loads(path.read_text())["settings"], described["settings"]):
        raise ConfigurationError(
            f"{path}: made with {key} = {found}, which the same configuration now reads as {now}: "
            "a default changed; state the old value in the configuration, or move the entry aside"
        )


def _differing(found: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Settings that both have, at any depth, and that differ: name, value found, value now."""
    if isinstance(found, dict) and isinstance(now, dict):
        for name in sorted(found.keys() & now.keys()):
            yield from _differing(found[name], now[name], f"{key}.{name}" if key else name)
    elif found != now:
        yield key, found, now
