"""The work of an entry of the grid: images through networks, images decoded, probes fitted, neighbours searched for,
bytes written.

Work is counted in passes, each worth a forward pass: a forward pass is 1, a step of an attack 2 (forward, and backward
to the image alone), a step of training 3 (forward, and backward to weights and activations). Heads on a frozen network
take a forward pass, in train mode. The heads themselves, optimisers and augmentation are not counted.

An attack is counted for every test image, although misclassified ones are not attacked, and AutoAttack as if every
image were robust: both counts are upper bounds. So is that of an attack whose eps is 0 at first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from robust_transfer.configuration.running import Running
from robust_transfer.configuration.training import Attack, Recipe
from robust_transfer.dag.grid import PlannedEntry
from robust_transfer.planning.images import ImageCounts
from robust_transfer.planning.networks import layer_dimension, size_of
from robust_transfer.training.schedules import side_at

Kind = Literal["forward", "attack", "train", "heads"]
PASSES: dict[Kind, int] = {"forward": 1, "attack": 2, "train": 3, "heads": 1}
"""Cost of one image in one step, in forward passes, by kind."""
AUTOATTACK: dict[Kind, int] = {"attack": 100 + 9 * 100 + 9 * 100, "forward": 9 * 100 + 5000}
"""Steps of the standard version on an image that stays correct: APGD, targeted APGD and FAB against nine classes each,
where a step of FAB adds a forward pass; 5,000 queries of Square."""
ENTRY_BYTES = 12_000
"""Card, timing, settings and log of an entry."""
ARROW_BYTES = 900
"""Overhead of a small Arrow file."""
CONFLICTS, CONFLICT_BYTES = 1280, 90_000
"""Published cue-conflict images, and their mean size."""
GALLERY_SHOWN = 8
"""Columns of a gallery's contact sheets."""
PREDICTION_BYTES = 5
"""A row of predictions, compressed."""
RESIDENT_MB = Running().resident_mb
"""Size of a training set, as pixels, above which its images are decoded anew in each epoch."""


class Pass(NamedTuple):
    """What a network does with an image: the unit in which work is counted and timed."""

    architecture: str
    side: int
    """Of the image as the network sees it, in pixels."""
    precision: str
    kind: Kind

    @property
    def flops(self) -> float:
        """FLOPs per image."""
        return PASSES[self.kind] * size_of(self.architecture, self.side).flops


@dataclass
class Work:
    """The work of one entry or of several."""

    images: Counter[Pass] = field(default_factory=Counter)
    """Images by what a network does with them; a step of an attack counts its images each time."""
    decoded: int = 0
    """Encoded images that the processor decodes."""
    decoded_bytes: float = 0.0
    stored: int = 0
    """Images that are prepared, downscaled or drawn, and written."""
    fitted: float = 0.0
    """Probes: strengths × images × features × classes."""
    compared: float = 0.0
    """Searches for neighbours: images asked about × images searched × features."""
    written: float = 0.0
    """Bytes of the store."""

    def __add__(self, other: Work) -> Work:
        return Work(
            self.images + other.images,
            self.decoded + other.decoded,
            self.decoded_bytes + other.decoded_bytes,
            self.stored + other.stored,
            self.fitted + other.fitted,
            self.compared + other.compared,
            self.written + other.written,
        )

    def of(self, *kinds: Kind) -> int:
        """Images of some kinds of passes."""
        return sum(images for key, images in self.images.items() if key.kind in kinds)

    @property
    def flops(self) -> float:
        """FLOPs of all passes."""
        return sum(images * key.flops for key, images in self.images.items())


class UnknownImagesError(ValueError):
    """The work of an entry depends on a dataset whose size is not known yet; the message names it."""


Lookup = Callable[[PlannedEntry], ImageCounts | None]
"""Counts of an entry of the stages datasets, granularity or stylizing."""


def work_of(entry: PlannedEntry, counts: Lookup) -> Work:
    """The work of an entry. Raises UnknownImagesError."""
    work = WORK[entry.stage](entry, counts)
    work.written += ENTRY_BYTES
    return work


def _images_of(entry: PlannedEntry, counts: Lookup) -> ImageCounts:
    images = counts(entry)
    if images is None:
        raise UnknownImagesError(
            f"{entry.stage}/{entry.name}: how many images it has is not known until it is prepared"
        )
    return images


def _decode(work: Work, counts: ImageCounts, images: int) -> None:
    if not counts.raw:
        work.decoded += images
        work.decoded_bytes += images * counts.image_bytes


def squares_mb(augmentation: str, images: int, side: int) -> float:
    """MB of a training set that is kept as square images, of twice the side where parts of them are enlarged."""
    kept = 2 * side if augmentation == "square-resized-crop-flip" else side
    return float(images * kept**2 * 3 / 2**20)


def is_streamed(augmentation: str, images: int, side: int, resident_mb: int = RESIDENT_MB) -> bool:
    """Whether images are read as they are needed, as `loading.loader.open_loader` decides."""
    return augmentation == "resized-crop-flip" or squares_mb(augmentation, images, side) > resident_mb


def _readings(recipe: Recipe, images: int, side: int) -> int:
    """How often a training decodes each image."""
    return recipe.epochs if is_streamed(recipe.augmentation, images, side) else 1


def _datasets(entry: PlannedEntry, counts: Lookup) -> Work:
    dataset = _images_of(entry, counts)
    work = Work(stored=dataset.total, written=dataset.total * (dataset.image_bytes + 12) + dataset.splits * ARROW_BYTES)
    _decode(work, dataset, dataset.total)
    return work


def _granularity(entry: PlannedEntry, counts: Lookup) -> Work:
    dataset, before = _images_of(entry, counts), _images_of(entry.inputs["dataset"], counts)
    work = Work(stored=dataset.total, written=dataset.total * (dataset.image_bytes + 12) + dataset.splits * ARROW_BYTES)
    _decode(work, before, dataset.total)
    return work


def _stylizing(entry: PlannedEntry, counts: Lookup) -> Work:
    work = _granularity(entry, counts)
    work.decoded *= 2  # and as many style images
    work.decoded_bytes *= 2
    return work


def _importing(entry: PlannedEntry, counts: Lookup) -> Work:
    architecture, side = _network(entry)
    return Work(written=size_of(architecture, side).weights_bytes(1000))


def _pretraining(entry: PlannedEntry, counts: Lookup) -> Work:
    settings: Any = entry.settings
    datasets = [_images_of(entry.inputs[role], counts) for role in ("source", "stylized") if role in entry.inputs]
    recipe, train = settings.training, sum(dataset.train for dataset in datasets)
    architecture, side = _network(entry)
    work = Work(written=size_of(architecture, side).weights_bytes(datasets[0].classes))
    attack = settings.attack if settings.norm else None
    _train(work, "train", architecture, side, recipe, train, attack)
    for dataset in datasets:
        _decode(work, dataset, dataset.train * _readings(recipe, train, side))

    def add(kind: Kind, images: int) -> None:
        work.images[Pass(architecture, side, recipe.precision, kind)] += images

    check = settings.check
    checks = recipe.epochs // check.every + (recipe.epochs % check.every > 0)
    checked = checks * max(1, min(check.images, train // 16))
    add("forward", checked * (2 if attack else 1))
    add("attack", checked * check.steps if attack else 0)
    if recipe.average_decay:
        group = recipe.batchnorm_group or recipe.batch_size
        estimated = min(train, group * math.ceil(recipe.average_images / group))
        add("forward", estimated * (1 + (_forwards(attack) if attack else 0)))
        add("attack", estimated * (attack.steps * attack.restarts if attack else 0))
    work.images = +work.images
    return work


def _train(
    work: Work, kind: Kind, architecture: str, side: int, recipe: Recipe, images: int, attack: Attack | None = None
) -> None:
    for epoch in range(recipe.epochs):
        at = side_at(recipe, epoch, side)
        work.images[Pass(architecture, at, recipe.precision, kind)] += images
        if attack:
            work.images[Pass(architecture, at, recipe.precision, "attack")] += images * attack.steps * attack.restarts
            work.images[Pass(architecture, at, recipe.precision, "forward")] += images * _forwards(attack)
    work.images = +work.images


def _forwards(attack: Attack) -> int:
    """Forward passes beside the steps: the loss at the last iterate of every start, where the worst one is kept."""
    return attack.restarts if attack.use_best or attack.restarts > 1 else 0


def _evaluation(entry: PlannedEntry, counts: Lookup) -> Work:
    settings: Any = entry.settings
    dataset, backbone = _images_of(entry.inputs["source"], counts), entry.inputs["backbone"]
    architecture, side = _network(backbone)
    precision = settings.precision or _precision(backbone)
    radii, attack = len(settings.eps), settings.attack
    work = Work()
    forward, attacked = (Pass(architecture, side, precision, kind) for kind in ("forward", "attack"))
    work.images[forward] += dataset.test * (1 + radii * (1 + _forwards(attack)))
    work.images[attacked] += dataset.test * radii * attack.steps * attack.restarts
    if settings.autoattack:
        attacked_images = min(settings.autoattack_images or dataset.test, dataset.test) * radii
        work.images[forward] += attacked_images * AUTOATTACK["forward"]
        work.images[attacked] += attacked_images * AUTOATTACK["attack"]
    work.images = +work.images
    _decode(work, dataset, dataset.test)
    return work


def _test_sets(entry: PlannedEntry, counts: Lookup) -> Work:
    settings: Any = entry.settings
    architecture, side = _network(entry.inputs["backbone"])
    work = Work()
    for one in settings.tests:
        model, images = entry.inputs[one.model], entry.inputs[one.images]
        on_features = images.stage == "features"
        tested = _images_of(images.inputs["dataset"] if on_features else images, counts)
        work.written += PREDICTION_BYTES * tested.test
        if not on_features:
            work.images[Pass(architecture, side, _transfer_precision(model), "forward")] += tested.test
            _decode(work, tested, tested.test)
    return work


def _robustness(entry: PlannedEntry, counts: Lookup) -> Work:
    settings: Any = entry.settings
    architecture, side = _network(entry.inputs["backbone"])
    radii, attack, work = len(settings.eps), settings.attack, Work()
    for role, model in entry.inputs.items():
        if not role.startswith("model"):
            continue
        number = role.removeprefix("model")
        dataset = _images_of(entry.inputs[f"dataset{number}"], counts)
        images = min(settings.images or dataset.test, dataset.test)
        precision = _transfer_precision(model)
        forward, attacked = (Pass(architecture, side, precision, kind) for kind in ("forward", "attack"))
        work.images[forward] += images * (1 + radii * (1 + _forwards(attack)))
        work.images[attacked] += images * radii * attack.steps * attack.restarts
        if settings.autoattack:
            work.images[forward] += images * radii * AUTOATTACK["forward"]
            work.images[attacked] += images * radii * AUTOATTACK["attack"]
        if model.stage == "probing":  # fitted once more
            of_probe: Any = model.settings
            trained, _ = dataset.transfer(
                "final", of_probe.validation_fraction, of_probe.images_per_class, of_probe.training_images
            )
            work.fitted += _dimension(model.inputs["features"]) * dataset.classes * trained
        _decode(work, dataset, images)
        work.written += PREDICTION_BYTES * images * (1 + radii * (1 + settings.autoattack))
    work.images = +work.images
    return work


def _transfer_precision(model: PlannedEntry) -> str:
    """The precision at which a transferred model computes."""
    if model.stage == "probing":
        of_features: Any = model.inputs["features"].settings
        return str(of_features.precision)
    of_training: Any = (model.runs["final0"] if model.stage == "selecting" else model).settings
    return str(of_training.training.precision)


def _conflicts(entry: PlannedEntry, counts: Lookup) -> Work:
    images = _conflict_images(entry)
    side = getattr(getattr(entry.settings, "world", None), "side", None)
    return Work(stored=images, written=images * (3 * side**2 if side else CONFLICT_BYTES) + ARROW_BYTES)


def _cue_conflict(entry: PlannedEntry, counts: Lookup) -> Work:
    backbone, images = entry.inputs["backbone"], _conflict_images(entry.inputs["conflicts"])
    architecture, side = _network(backbone)
    work = Work(written=40 * images)  # a line of decisions.csv
    work.images[Pass(architecture, side, _precision(backbone), "forward")] += images
    settings: Any = entry.settings
    for features in entry.runs.values():
        dataset, strengths = _images_of(features.inputs["dataset"], counts), len(settings.probing.strengths)
        work.fitted += _dimension(features) * dataset.classes * strengths * dataset.train
    return work


def _gallery(entry: PlannedEntry, counts: Lookup) -> Work:
    settings: Any = entry.settings
    dataset, (architecture, side) = _images_of(entry.inputs["source"], counts), _network(entry.inputs["backbone"])
    images, attack = min(settings.images, dataset.test), settings.attack
    work = Work(written=300_000)  # four contact sheets
    shown, radii = min(GALLERY_SHOWN, images), len(settings.perturbations)
    of_shown = settings.visualisation.steps + radii * attack.steps * attack.restarts
    steps = images * (settings.inversion.steps + 1) + shown * of_shown
    work.images[Pass(architecture, side, "fp32", "attack")] += steps
    work.images[Pass(architecture, side, "fp32", "forward")] += images * 3 + shown * radii * (1 + _forwards(attack))
    _decode(work, dataset, images)
    return work


def _conflict_images(conflicts: PlannedEntry) -> int:
    """About how many conflict images there are: of files, as many as were published."""
    settings: Any = conflicts.settings
    return int(getattr(settings.images, "images", CONFLICTS))


def _features(entry: PlannedEntry, counts: Lookup) -> Work:
    settings: Any = entry.settings
    dataset = _images_of(entry.inputs["dataset"], counts)
    architecture, side = _network(entry.inputs["backbone"])
    row = _dimension(entry) * (2 if settings.dtype == "float16" else 4) + 4  # features, and a label of int32
    work = Work(written=dataset.total * row + dataset.splits * ARROW_BYTES)
    work.images[Pass(architecture, side, settings.precision, "forward")] += dataset.total
    _decode(work, dataset, dataset.total)
    return work


def _dimension(features: PlannedEntry) -> int:
    architecture, side = _network(features.inputs["backbone"])
    layer: str | None = getattr(features.settings, "layer", None)
    return layer_dimension(architecture, side, layer) if layer else size_of(architecture, side).dimension


def _probing(entry: PlannedEntry, counts: Lookup) -> Work:
    settings: Any = entry.settings
    features = entry.inputs["features"]
    dataset = _images_of(features.inputs["dataset"], counts)
    fraction, few = settings.validation_fraction, (settings.images_per_class, settings.training_images)
    fitted, held = dataset.transfer("search", fraction, *few)
    everything, tested = dataset.transfer("final", fraction, *few)
    work, unit = Work(), _dimension(features) * dataset.classes
    for selection in settings.selections:
        searched, again = (fitted, everything) if selection == "validation" else (everything, 0)
        work.fitted += unit * (len(settings.strengths) * searched + again)
        work.written += PREDICTION_BYTES * (tested + (held if selection == "validation" else 0))
    return work


def _knn(entry: PlannedEntry, counts: Lookup) -> Work:
    settings: Any = entry.settings
    features = entry.inputs["features"]
    found = _images_of(features.inputs["dataset"], counts)
    fraction, few = settings.validation_fraction, (settings.images_per_class, settings.training_images)
    searched, held = found.transfer("search", fraction, *few)
    everything, tested = found.transfer("final", fraction, *few)
    work, dimension = Work(), _dimension(features)
    for selection in settings.selections:
        choosing = held if selection == "validation" else 0
        work.compared += dimension * (choosing * searched + tested * everything)
        work.written += PREDICTION_BYTES * (choosing + tested)
    return work


def _linear_heads(entry: PlannedEntry, counts: Lookup) -> Work:
    settings: Any = entry.settings
    runs = len(settings.learning_rates) * len(settings.weight_decays) * len(settings.head_seeds)
    return _transfer(entry, counts, "heads", runs)


def _finetuning(entry: PlannedEntry, counts: Lookup) -> Work:
    settings: Any = entry.settings
    # Blocks that are frozen save part of a backward pass, which is not counted out.
    work = _transfer(entry, counts, "heads" if settings.trainable == "head" else "train", 1)
    if settings.head == "probe":
        dataset = _images_of(entry.inputs["dataset"], counts)
        work.fitted += _dimension(entry.inputs["features"]) * dataset.classes * dataset.train
    return work


def _transfer(entry: PlannedEntry, counts: Lookup, kind: Kind, runs: int) -> Work:
    settings: Any = entry.settings
    dataset, recipe = _images_of(entry.inputs["dataset"], counts), settings.training
    architecture, side = _network(entry.inputs["backbone"])
    trained, measured = dataset.transfer(
        settings.purpose, settings.validation_fraction, settings.images_per_class, settings.training_images
    )
    work = Work(written=PREDICTION_BYTES * measured * runs)
    _train(work, kind, architecture, side, recipe, trained, settings.attack)
    forward, attacked = (Pass(architecture, side, recipe.precision, kind) for kind in ("forward", "attack"))
    work.images[forward] += measured
    if settings.chosen_under and settings.purpose == "search":
        attack, radii = settings.chosen_under, sum(eps != "0" for eps in settings.chosen_under.eps)
        work.images[attacked] += measured * runs * radii * attack.steps * attack.restarts
        work.images[forward] += measured * runs * radii * (1 + _forwards(attack))
    _decode(work, dataset, trained * _readings(recipe, trained, side) + measured)
    if settings.keep_weights:
        work.written += size_of(architecture, side).weights_bytes(dataset.classes)
    return work


def _network(backbone: PlannedEntry) -> tuple[str, int]:
    """Architecture and input size of a backbone, whether it is trained here or imported."""
    settings: Any = backbone.settings
    return str(settings.architecture), int(settings.input_size)


def _precision(backbone: PlannedEntry) -> str:
    """The precision that a backbone was trained at, and is evaluated at; fp32 for one that is not trained here."""
    recipe: Any = getattr(backbone.settings, "training", None)
    return str(getattr(recipe, "precision", "fp32"))


def _selecting(entry: PlannedEntry, counts: Lookup) -> Work:
    return Work()  # only the start of its job


WORK: dict[str, Callable[[PlannedEntry, Lookup], Work]] = {
    "datasets": _datasets,
    "granularity": _granularity,
    "stylizing": _stylizing,
    "importing": _importing,
    "pretraining": _pretraining,
    "evaluation": _evaluation,
    "conflicts": _conflicts,
    "features": _features,
    "probing": _probing,
    "knn": _knn,
    "cue_conflict": _cue_conflict,
    "gallery": _gallery,
    "linear_heads": _linear_heads,
    "finetuning": _finetuning,
    "selecting": _selecting,
    "robustness": _robustness,
    "test_sets": _test_sets,
}
"""The work of an entry, by stage. A test compares the stages with those of the registry."""
