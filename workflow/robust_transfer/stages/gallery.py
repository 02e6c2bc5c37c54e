"""Gallery: what a backbone responds to, as contact sheets, and numbers beside them.

    python -m robust_transfer gallery store/gallery/<entry>

Reads its inputs `backbone` and `source`, of whose test images some are taken, spread over the classes. Writes

- `adversarial.png`: images, and perturbed by PGD within each radius; every perturbation, scaled, with its norm;
- `gradients.png`: the gradient of the loss with respect to the images;
- `inversions.png`: images rebuilt from their representation alone (`gallery/search.py`);
- `visualisations.png`: images on which the logit of a class is large;
- `metrics.json`: the share of the gradients' energy in low frequencies (`gallery/gradients.py`), and of the images
  rebuilt the distance left in the representation, their distance from the original in pixels, their structural
  similarity to it (SSIM, by scikit-image, with the Gaussian window of Wang et al. 2004), and how far they were moved
  from where the search began.

The network computes in float32. Nothing is saved on the way: an interrupted job starts over.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robust_transfer.attacks import Starts, pgd, threat_model
from robust_transfer.configuration.gallery import SHEETS, GallerySettings
from robust_transfer.configuration.training import NORM_LABELS
from robust_transfer.datasets.arrow import Images, Split, open_split
from robust_transfer.datasets.resident import square_images
from robust_transfer.figures.labels import architecture_label
from robust_transfer.gallery import gradients
from robust_transfer.gallery.search import grey_noise, rebuilt, relative_distance, visualised
from robust_transfer.gallery.sheets import SHOWN, Row, write_sheet
from robust_transfer.loading.augmentation import as_images
from robust_transfer.machine.devices import prepare
from robust_transfer.networks.backbones import load_backbone
from robust_transfer.networks.build import Network
from robust_transfer.statistics.means import mean_interval
from robust_transfer.store.entry import Entry, StoreError
from robust_transfer.training.inference import classify
from robust_transfer.weights.outputs import other_classes, outputs_for

ADVERSARIAL, GRADIENTS, INVERSIONS, VISUALISATIONS = SHEETS
TITLES = {
    ADVERSARIAL: "Adversarial examples",
    GRADIENTS: "Gradients of the loss",
    INVERSIONS: "Images rebuilt from their representation",
    VISUALISATIONS: "Class visualisations",
}
"""Of the sheets, by the names of their files."""

log = logging.getLogger("robust_transfer")

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class _Subject:
    """A network and the images that it is shown on."""

    network: Network
    title: str
    images: Tensor
    """Float [N, 3, S, S] in [0, 1]."""
    outputs: Tensor
    """int64 [N]: the output that stands for each image's class."""
    numbers: Tensor
    """int64 [N]: of the images among the source's test images."""
    columns: list[int]
    """Which of the images sheets show."""
    labels: list[str]
    """Of those: the name of the class."""
    outputs_names: list[str]


@dataclass(frozen=True)
class _Exhibit:
    """What a sheet shows, and the numbers beside it."""

    sheet: list[Row]
    says: str
    """In words, for those who do not see it."""
    numbers: list[dict[str, Any]]
    """Rows of the results table."""


def run(entry: Entry, *, threads: int, device: str) -> None:
    """Make the gallery of the backbone that `entry` names."""
    settings = GallerySettings.model_validate(entry.settings)
    on = prepare(device, threads, "fp32")
    backbone, source = entry.input("backbone"), entry.input("source")
    with entry.writing() as draft:
        subject = _subject(backbone, source, settings, on)
        made = {
            ADVERSARIAL: _attacked(subject, settings),
            GRADIENTS: _gradients(subject),
            INVERSIONS: _inversions(subject, settings),
            VISUALISATIONS: _visualisations(subject, settings),
        }
        for name, one in made.items():
            write_sheet(draft.file(f"{name}.png"), f"{TITLES[name]}: {subject.title}", one.sheet)
        rows = [row for one in made.values() for row in one.numbers]
        draft.write_json("metrics.json", rows)
        draft.facts = {
            "backbone": backbone.name,
            "title": subject.title,
            "images": subject.numbers.tolist(),
            "shown": [int(subject.numbers[i]) for i in subject.columns],
            "alternatives": {
                name: f"{TITLES[name]} of {subject.title}, for images of {', '.join(subject.labels)}. {one.says}"
                for name, one in made.items()
            },
        }
        draft.timing.update(images=len(subject.numbers), device=device, threads=threads)
    for row in rows:
        log.info("%s: %s %.1f", subject.title, row["metric"], row["value"])


def _subject(backbone: Entry, source: Entry, settings: GallerySettings, on: torch.device) -> _Subject:
    facts, split = backbone.facts(), open_split(source, "test")
    known: list[str] = facts["classes"]
    outputs = outputs_for(known, split.classes, imported="imported" in facts)
    if outputs is None:
        raise StoreError(other_classes(str(backbone.path), len(known), str(source.path), len(split.classes)))
    numbers, columns = chosen(split.labels, settings.images)
    ratio = settings.preprocessing.resize_ratio
    pixels = square_images(split, int(facts["input_size"]), ratio, indices=numbers)
    return _Subject(
        load_backbone(backbone).to(on).to(memory_format=torch.channels_last),
        _title(facts, backbone.settings),
        as_images(torch.from_numpy(pixels).to(on)),
        torch.from_numpy(np.array(outputs)[split.labels[numbers]]).to(on),
        torch.from_numpy(numbers).to(on),
        columns,
        [_name(split, int(numbers[i])) for i in columns],
        known,
    )


def chosen(labels: Integers, count: int) -> tuple[Integers, list[int]]:
    """Numbers of `count` images, class after class until there are enough, and which of them sheets show.

    The first images of every class come first, then the second ones; of more classes than images some are taken, evenly
    spread. Sheets show images of as many classes as they have columns.
    """
    classes = np.unique(labels)
    if len(classes) > count:
        classes = classes[np.linspace(0, len(classes) - 1, count).astype(np.int64)]
    rank = np.zeros(len(labels), np.int64)
    for label in classes:
        here = labels == label
        rank[here] = np.arange(here.sum())
    order = np.lexsort((labels, rank))
    numbers = order[np.isin(labels[order], classes)][:count].astype(np.int64)
    different = min(len(classes), len(numbers))
    columns = np.linspace(0, different - 1, min(SHOWN, different)).astype(np.int64).tolist()
    return numbers, [*columns, *range(different, min(SHOWN, len(numbers)))] if different < SHOWN else columns


def _name(split: Split, number: int) -> str:
    return split.classes[int(split.labels[number])]


def _title(facts: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """What sheets call a network."""
    norm = NORM_LABELS.get(str(facts["norm"]), "")
    kind = f"ε {facts['eps']} ({norm})" if facts["eps"] != "0" else "ε 0, standard"
    trained = settings.get("trained_on", "native")
    on = "" if trained == "native" else f", trained on images: {trained}"
    seed = f", seed {settings['seed']}" if "seed" in settings and "weights" not in settings else ""
    return f"{architecture_label(str(facts['architecture']))}, {kind}{on}{seed}"


def _pixels(images: Tensor) -> Images:
    """Images float [N, 3, S, S] in [0, 1] as uint8 [N, S, S, 3]."""
    found: Images = (images.detach() * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return found


def _attacked(subject: _Subject, settings: GallerySettings) -> _Exhibit:
    """Adversarial examples of the images that sheets show."""
    images, outputs = subject.images[subject.columns], subject.outputs[subject.columns]
    rows = [Row("image, and its class", _pixels(images), subject.labels)]
    norm, says = NORM_LABELS[settings.norm], []
    for eps in settings.perturbations:
        starts = Starts(settings.seed, 0, subject.numbers[subject.columns])
        found = pgd(subject.network, images, outputs, threat_model(settings.norm, eps), settings.attack, starts)
        delta = found - images
        order = 2.0 if settings.norm == "l2" else float("inf")
        norms = torch.linalg.vector_norm(delta, order, dim=(1, 2, 3)).tolist()
        decided = classify(subject.network, found, "fp32")
        taken = [subject.outputs_names[i] for i in decided.tolist()]
        right = int((decided == outputs).sum())
        says.append(f"Attacked within {norm} {eps}, {right} of {len(found)} are still taken for their class.")
        largest = delta.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
        rows.append(Row(f"attacked within {norm} {eps}; taken for", _pixels(found), taken))
        scaled = _pixels(0.5 + delta / (2 * largest))
        rows.append(Row("perturbation, scaled", scaled, [f"{norm} norm {one:.2g}" for one in norms]))
    return _Exhibit(rows, " ".join([*says, "Below each its perturbation, scaled."]), [])


def _gradients(subject: _Subject) -> _Exhibit:
    """Gradients of the loss, and the share of their energy in low frequencies."""
    found = gradients.loss_gradients(subject.network, subject.images, subject.outputs)
    shares = 100 * gradients.low_frequency_share(found).cpu().numpy()
    here = subject.columns
    captions = [f"{shares[i]:.1f} %" for i in here]
    images, slopes = _pixels(subject.images[here]), _pixels(gradients.shown(found[here]))
    rows = [Row("image, and its class", images, subject.labels)]
    rows.append(Row("gradient of the loss; its energy in low frequencies", slopes, captions))
    noise = round(100 * gradients.noise_share(found.shape[-1]), 2)
    numbers = _row("gradient_low_frequency", shares[~np.isnan(shares)], {"up_to": gradients.LOW, "white_noise": noise})
    said = "".join(f"{row['value']:.1f} % of their energy is in low frequencies. " for row in numbers)
    return _Exhibit(rows, f"{said}White noise has {noise:.0f} % there.", numbers)


def _inversions(subject: _Subject, settings: GallerySettings) -> _Exhibit:
    """Images rebuilt from their representation, and how near they come."""
    how, images = settings.inversion, subject.images
    noise = grey_noise(images.shape[-1], settings.seed).to(images.device)
    start = images.roll(1, 0) if how.start == "image" else noise.expand_as(images)
    start = start.contiguous(memory_format=torch.channels_last)
    found = rebuilt(subject.network, images, start, steps=how.steps, step_size=how.step_size)
    before, after = (_nearness(subject.network, images, one) for one in (start, found))
    before["inversion_moved"], after["inversion_moved"] = np.zeros(len(images)), _distance(start, found)
    here, similar = subject.columns, after["inversion_ssim"]
    left = after["inversion_distance"]
    rows = [
        Row("image, and its class", _pixels(images[here]), subject.labels),
        Row("start of the search", _pixels(start[here])),
        Row(
            f"found in {how.steps:,} steps; SSIM to the image, distance left",
            _pixels(found[here]),
            [f"{similar[i] / 100:.2f}, {left[i]:.0f} %".replace("-", "−") for i in here],
        ),
    ]
    shared = {"start": how.start, "steps": how.steps, "step_size": how.step_size}
    numbers = [
        row
        for metric, values in after.items()
        for row in _row(metric, values, {**shared, "at_start": round(float(before[metric].mean()), 2)})
    ]
    start_is = "another image" if how.start == "image" else "grey noise"
    says = (
        f"From {start_is} images were found whose representations are {left.mean():.0f} % off the original's. Their "
        f"pixels moved by {after['inversion_moved'].mean():.1f} % of the range, and their structural similarity to the "
        f"original is {similar.mean() / 100:.2f}."
    )
    return _Exhibit(rows, says, numbers)


def _nearness(network: Network, images: Tensor, found: Tensor) -> dict[str, Floats]:
    """How near images come to others: in the representation, in pixels, and in structure; float [N] each, percent."""
    from skimage.metrics import structural_similarity  # imports scipy, which other jobs with networks do without

    with torch.no_grad():
        distance = relative_distance(network.features(found), network.features(images))
    pairs = zip(*(one.permute(0, 2, 3, 1).cpu().numpy() for one in (images, found)), strict=True)
    similarity = [
        structural_similarity(
            one, other, channel_axis=-1, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for one, other in pairs
    ]
    return {
        "inversion_distance": 100 * distance.double().cpu().numpy(),
        "inversion_pixels": _distance(images, found),
        "inversion_ssim": 100 * np.array(similarity, np.float64),
    }


def _distance(images: Tensor, others: Tensor) -> Floats:
    """Root mean squared difference of pixels, in percent of their range: float [N]."""
    found: Floats = 100 * (images - others).square().mean(dim=(1, 2, 3)).sqrt().double().cpu().numpy()
    return found


def _visualisations(subject: _Subject, settings: GallerySettings) -> _Exhibit:
    """Images on which the logit of a class is large."""
    how, classes = settings.visualisation, subject.outputs[subject.columns]
    noise = grey_noise(subject.images.shape[-1], settings.seed).to(classes.device)
    start = noise.repeat(len(classes), 1, 1, 1).contiguous(memory_format=torch.channels_last)
    found = visualised(subject.network, classes, start, steps=how.steps, step_size=how.step_size)
    with torch.no_grad():
        before, after = (subject.network(one).gather(1, classes[:, None]).flatten().tolist() for one in (start, found))
    logits = [f"{one:.1f} → {other:.1f}".replace("-", "−") for one, other in zip(before, after, strict=True)]
    rows = [
        Row("a test image of the class", _pixels(subject.images[subject.columns]), subject.labels),
        Row(f"found in {how.steps:,} steps from grey noise; logit before and after", _pixels(found), logits),
    ]
    rise = float(np.mean(after) - np.mean(before))
    return _Exhibit(rows, f"From grey noise, logits of the classes were raised by {rise:.1f} on average.", [])


def _row(metric: str, values: Floats, says: dict[str, Any]) -> list[dict[str, Any]]:
    """The row of the results table of a mean over images; none for fewer than two."""
    if len(values) < 2:
        return []
    shared = {"split": "test", "selection": None, "attack": None, "hyperparameters": says}
    number = {"value": float(values.mean()), "n": len(values), "interval": list(mean_interval(values))}
    return [{"metric": metric, **number, **shared}]
