"""Test sets: transferred models on the test images of other datasets of the same classes (`also_test_on`).

    python -m robust_transfer test_sets store/test_sets/<entry>

Reads its inputs `model0`, …, transfers of one backbone, what their weights come from, and `images0`, …, test images, or
of probes and nearest neighbours their features. A probe or a search of neighbours is made again with the hyperparameter
that was chosen, on the same training images; linear heads and fine-tuned networks are read from the weights that their
entries keep. Nothing is trained or chosen on the other images. A class of the other dataset counts as the class of the
target that the map says, and images of classes that it leaves out are left out; the model decides among all classes of
its target.

Writes `metrics.json` (rows name their `model` and their `test_set`) and `test_sets.parquet`, what every image was taken
for. On features alone it imports no torch.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from robust_transfer.configuration.test_sets import TestedOn, TestSetsSettings
from robust_transfer.configuration.transfer import KnnSettings, ProbingSettings
from robust_transfer.datasets.class_maps import class_numbers
from robust_transfer.statistics.metrics import measurements
from robust_transfer.store.entry import Entry
from robust_transfer.store.features import open_features, strings
from robust_transfer.store.predictions import predictions_table, write_predictions
from robust_transfer.training.class_probe import regression
from robust_transfer.training.fixed_features import together, training_parts

SPLIT = "other"
"""What the results table calls the split of such images, so that nothing takes them for the target's own."""
TESTED = "test_sets.parquet"

log = logging.getLogger("robust_transfer")


class Answers(NamedTuple):
    """What a model says of some test images."""

    labels: NDArray[np.int64]
    """Classes of their own dataset, [N]."""
    predictions: NDArray[np.int64]
    """Classes of the target, [N]."""


class Classifier(NamedTuple):
    """A transferred model."""

    classes: tuple[str, ...]
    hyperparameters: dict[str, Any]
    answers: Callable[[Entry], Answers]
    """What it says of the test images of an entry of features, or for a trained network of a dataset."""


def run(entry: Entry, *, threads: int, device: str) -> None:
    """Test the models that `entry` names. Raises ClassMapError for classes that do not match, before anything else."""
    settings = TestSetsSettings.model_validate(entry.settings)
    numbers = [_numbers(entry, one) for one in settings.tests]
    rows: list[dict[str, Any]] = []
    tables, images = [], 0
    with entry.writing() as draft:
        every = zip(settings.tests, numbers, strict=True)
        for role, of_model in itertools.groupby(every, lambda one: one[0].model):
            model = classifier(entry.input(role), settings.selection, threads=threads, device=device)
            for one, number in of_model:
                answers = model.answers(entry.input(one.images))
                kept = np.flatnonzero(number[answers.labels] >= 0)
                labels, predictions = number[answers.labels[kept]], answers.predictions[kept]
                measured = measurements(
                    labels, predictions, len(model.classes), split=SPLIT, selection=settings.selection,
                    hyperparameters=model.hyperparameters,
                )  # fmt: skip
                name = {"model": entry.inputs[role], "test_set": one.test_set}
                rows += [{**row, **name} for row in measured]
                tables.append(_table(kept, labels, predictions, name))
                images += len(kept)
                log.info("%s on %s: %.1f %% of %d images", name["model"], one.test_set, measured[0]["value"], len(kept))
        draft.write_json("metrics.json", rows)
        write_predictions(draft.file(TESTED), tables)
        draft.facts = {"backbone": entry.input("backbone").name}
        draft.timing.update(images=images, device=device, threads=threads)


def classifier(transfer: Entry, selection: str, *, threads: int, device: str) -> Classifier:
    """The model behind the test accuracy of a finished transfer, whose hyperparameters `selection` chose."""
    if transfer.stage == "probing":
        return _probe(transfer, selection)
    if transfer.stage == "knn":
        return _neighbours(transfer, selection)
    return _network(transfer, selection, threads=threads, device=device)


def _probe(transfer: Entry, selection: str) -> Classifier:
    """The probe, fitted as its entry did."""
    settings, stored = ProbingSettings.model_validate(transfer.settings), transfer.input("features")
    strength = transfer.facts()["lambda"][selection]
    fit = next(regression(together(*training_parts(stored, settings)), settings).path([strength]))

    def answers(features: Entry) -> Answers:
        asked, labels = open_features(features, "test")
        return Answers(labels.astype(np.int64), fit.predict(fit.scaling(asked)))

    return Classifier(tuple(stored.facts()["classes"]), {"lambda": strength}, answers)


def _neighbours(transfer: Entry, selection: str) -> Classifier:
    """The search among all training images."""
    from robust_transfer.statistics.nearest_neighbours import Neighbours  # 3 s of CPU

    settings, stored = KnnSettings.model_validate(transfer.settings), transfer.input("features")
    k = int(transfer.facts()["k"][selection])
    train = together(*training_parts(stored, settings))
    search = Neighbours(train.features, train.labels, weights=settings.weights, temperature=settings.temperature)

    def answers(features: Entry) -> Answers:
        asked, labels = open_features(features, "test")
        [(_, predictions)] = search.predictions(asked, [k])
        return Answers(labels.astype(np.int64), predictions)

    return Classifier(tuple(stored.facts()["classes"]), {"k": k}, answers)


def _network(transfer: Entry, selection: str, *, threads: int, device: str) -> Classifier:
    """A fine-tuned network, or one with the linear head that was chosen; of several head seeds the first."""
    import torch  # 3 s of CPU, which features do without

    from robust_transfer.datasets.arrow import open_split
    from robust_transfer.datasets.resident import square_blocks
    from robust_transfer.machine.devices import prepare
    from robust_transfer.training.inference import predict
    from robust_transfer.training.transferred import load_transferred

    model = load_transferred(transfer, selection)
    on = prepare(device, threads, model.precision)
    model.network.to(device=on, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def answers(dataset: Entry) -> Answers:
        split = open_split(dataset, "test")
        indices, found = np.arange(len(split)), []
        blocks = square_blocks(split, model.input_size, model.resize_ratio, indices=indices, threads=threads)
        for _, squares in blocks:
            found.append(predict(model.network, torch.from_numpy(squares).to(on), model.precision))
        return Answers(split.labels.astype(np.int64), np.concatenate(found))

    return Classifier(model.classes, model.hyperparameters, answers)


def _numbers(entry: Entry, one: TestedOn) -> NDArray[np.int64]:
    """The target's class of each class of a test set, [its classes]; negative for those left out."""
    target = entry.input(one.model.replace("model", "dataset"))
    known, targets = (stored.facts()["classes"] for stored in (entry.input(one.images), target))
    return np.array(class_numbers(known, targets, one.classes, dataset=one.test_set, target=one.target))


def _table(
    kept: NDArray[np.int64], labels: NDArray[np.int64], predictions: NDArray[np.int64], names: dict[str, str]
) -> pa.Table:
    table = predictions_table(SPLIT, kept, labels, predictions)
    for name, value in reversed(names.items()):
        table = table.add_column(0, name, strings([value] * len(kept)))
    return table
