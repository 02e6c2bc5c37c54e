"""Whether cue-conflict images are there and someone knows their classes, found out before any job."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robust_transfer.configuration.conflicts import ConflictsSettings, CueConflict
from robust_transfer.configuration.datasets import DatasetSettings
from robust_transfer.dag.grid import Grid
from robust_transfer.dag.sources import classes_known
from robust_transfer.store.entry import finished, open_entry

if TYPE_CHECKING:
    from robust_transfer.datasets.origins.conflicts import Conflicts

SECTION = "cue_conflict"


def conflict_mistakes(grid: Grid) -> list[str]:
    """One line for each reason why backbones could not decide on the images that the configuration names.

    Reads names of files and labels, no image. None where everything was measured already.
    """
    section, store = grid.experiment.cue_conflict, Path(grid.experiment.store)
    planned = grid.stage("cue_conflict").values()
    if section is None or all(finished(store / entry.id) for entry in planned):
        return []
    from robust_transfer.datasets.errors import DatasetError  # numpy and pyarrow, which a plan does without

    prepared = next(iter(planned)).inputs["conflicts"]
    assert isinstance(prepared.settings, ConflictsSettings)
    try:
        cues = _cues(store / prepared.id, prepared.settings)
        return [*_unknown_classes(section, cues), *_unmapped(grid, section), *_undecided(grid, section, cues)]
    except (DatasetError, ValueError) as error:
        return [f"{SECTION}.images: {error}"]


def _cues(made: Path, settings: ConflictsSettings) -> tuple[str, ...]:
    """The classes of the images."""
    from robust_transfer.datasets.origins.conflicts import open_conflicts

    if finished(made):
        return tuple(open_entry(made).facts()["cues"])
    found: Conflicts = open_conflicts(settings)
    return found.classes


def _unknown_classes(section: CueConflict, cues: Sequence[str]) -> Iterator[str]:
    """Classes that the configuration names and that no image shows."""
    named = [("classes", name) for name in section.classes or ()]
    named += [(f"probe.{dataset}", name) for dataset, classes in section.probe.items() for name in classes]
    for key, name in named:
        if name not in cues:
            yield f"{SECTION}.{key}: {name}: no class of the images, {_near(name, cues)}"


def _unmapped(grid: Grid, section: CueConflict) -> Iterator[str]:
    """Classes that `probe` takes from a dataset which does not have them."""
    datasets = {entry.name: entry for entry in grid.stage("datasets").values()}
    for dataset, classes in section.probe.items():
        entry = datasets.get(dataset)
        if entry is None:
            continue
        assert isinstance(entry.settings, DatasetSettings)
        known = classes_known(Path(grid.experiment.store) / entry.id, entry.settings)
        for name, taken in classes.items() if known is not None else ():
            for one in taken:
                if one not in (known or ()):
                    yield f"{SECTION}.probe.{dataset}.{name}: {one}: no class of {dataset}, {_near(one, known or ())}"


def _undecided(grid: Grid, section: CueConflict, cues: Sequence[str]) -> Iterator[str]:
    """Classes that nobody could decide for: the source's outputs do not know them, nor does the probe."""
    from robust_transfer.weights.cue_outputs import outputs_by_class

    wanted = section.classes or cues
    if section.probe:
        decider, known = "the probe", {name for classes in section.probe.values() for name in classes}
    else:
        source = grid.experiment.source
        settings = grid.experiment.datasets[source]
        entry = next((one for one in grid.stage("datasets").values() if one.name == source), None)
        made = Path(grid.experiment.store) / (entry.id if entry else "none")
        classes = classes_known(made, DatasetSettings.model_validate(settings.model_dump()))
        if classes is None:
            return
        decider, known = f"the source {source}", {*outputs_by_class(classes, wanted)}
    lacks = [name for name in wanted if name not in known]
    if lacks:
        there = [name for name in wanted if name in known]
        instead = f", or {SECTION}.classes: [{', '.join(there)}]" if len(there) > 2 else ""
        more = "map more classes in" if section.probe else "name datasets with images of them in"
        yield (
            f"{SECTION}: {decider} knows {len(there)} of the {len(wanted)} classes of the images, not "
            f"{', '.join(lacks)}; {more} {SECTION}.probe{instead}"
        )


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return (
        f"did you mean {near[0]}?" if near else f"which are {', '.join(known[:20])}{', …' if len(known) > 20 else ''}"
    )
