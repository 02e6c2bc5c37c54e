"""Whether datasets can be stylized with what is on this machine, found out before any job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from robust_transfer.configuration.datasets import DatasetSettings, FolderOrigin
from robust_transfer.configuration.paths import resolved
from robust_transfer.configuration.stylizing import StylizingSettings
from robust_transfer.dag.grid import Grid, PlannedEntry
from robust_transfer.store.entry import finished
from robust_transfer.store.finished import read_card

HOME = "the releases of naoto0804/pytorch-AdaIN on GitHub"
"""Where the encoder and the decoder of Stylized-ImageNet are published."""


def missing_networks(grid: Grid, stated: bool | None = None) -> list[str]:
    """A message for each file of an encoder or decoder that is not there and is needed.

    `stated` True: only where the configuration states a path; False: only where it states none. None: both.
    """
    messages = {}
    for settings in (settings for entry, settings in _unfinished(grid) if settings.method == "adain"):
        for name in ("encoder", "decoder"):
            path = grid.experiment.running.weights_folder / resolved(getattr(settings, name))
            is_stated = getattr(settings, name) != StylizingSettings.model_fields[name].default
            if not path.is_file() and stated in (None, is_stated):
                messages[name] = (
                    f"stylizing.{name} = {getattr(settings, name)}: {path}: no such file; fetch "
                    f"{'vgg_normalised.pth' if name == 'encoder' else 'decoder.pth'} from {HOME} and put it there, or "
                    "write where it is"
                )
    return list(messages.values())


def unusable(grid: Grid) -> list[str]:
    """What would stop the stylizing that is still to be done: too few style images, networks that do not fit.

    Lists folders, and reads files of weights, which takes torch: 3 s.
    """
    return list(dict.fromkeys([*_few_styles(grid), *_unfit(grid)]))


def _unfinished(grid: Grid) -> Iterator[tuple[PlannedEntry, StylizingSettings]]:
    store = Path(grid.experiment.store)
    for entry in grid.stage("stylizing").values():
        if not finished(store / entry.id):
            assert isinstance(entry.settings, StylizingSettings)
            yield entry, entry.settings


def _few_styles(grid: Grid) -> Iterator[str]:
    from robust_transfer.datasets.errors import DatasetError
    from robust_transfer.datasets.origins.opening import open_origin

    for entry, _ in _unfinished(grid):
        styles = entry.inputs.get("styles")
        if styles is None:
            continue
        assert isinstance(styles.settings, DatasetSettings)
        if card := read_card(Path(grid.experiment.store) / styles.id):
            images = int(card["facts"]["counts"]["train"])
        elif isinstance(styles.settings.origin, FolderOrigin):
            try:
                images = len(open_origin(styles.settings.origin).splits["train"].labels)
            except DatasetError as error:
                yield f"stylizing.styles = {styles.name}: {error}"
                continue
        else:
            continue
        if images < 2:
            yield (
                f"stylizing.styles = {styles.name}: {images} training image; styles are drawn from two or more, and "
                "from thousands if they are to say nothing of classes"
            )


def _unfit(grid: Grid) -> Iterator[str]:
    files = {(settings.encoder, settings.decoder) for _, settings in _unfinished(grid) if settings.method == "adain"}
    if not files:
        return
    from robust_transfer.stylization.adain import load_style_transfer
    from robust_transfer.weights.pickle_values import CheckpointError

    folder = grid.experiment.running.weights_folder
    for encoder, decoder in files:
        try:
            load_style_transfer(folder / resolved(encoder), folder / resolved(decoder))
        except CheckpointError as error:
            yield f"stylizing: {error}"
