"""Images per second of feature extraction: beside the forward pass alone, and from JPEG files beside decoding.

    python benchmarks/features.py [--case resnet18-64 …] [--device cuda] [--rounds 5] [--json FILE]

Resident: the images are decoded, and extraction makes batches of them, runs the network, fetches the features, checks
and rounds them; the forward pass alone has the same batches ready on the device. The goal is 90 % of its speed. From
files: the same from JPEGs in a prepared dataset, which as many workers as there are threads decode meanwhile, beside
one process that only decodes and resizes them; the slower of decoding and forward pass is the limit.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path

import checkout  # noqa: F401  # before robust_transfer
import numpy as np
import torch
from PIL import Image
from robust_transfer.configuration.running import Running
from robust_transfer.configuration.training import Precision, Recipe
from robust_transfer.configuration.transfer import FeaturesSettings
from robust_transfer.datasets.arrow import open_split
from robust_transfer.datasets.storing import SplitWriter
from robust_transfer.loading.loader import Subset, open_loader
from robust_transfer.machine.devices import autocast, prepare
from robust_transfer.networks.build import Network, build
from robust_transfer.networks.layers import activations
from robust_transfer.stages import features
from robust_transfer.store.entry import ENTRY, open_entry, write_json
from side_by_side import Contender, NetworkCase, Speeds, command_line, describe, hardware, measure, show, write

RESIDENT, FORWARD = "extraction, resident", "forward pass alone"
FILES, DECODING = "extraction, from JPEGs", "decoding alone, one process"
COMPARED = [(RESIDENT, FORWARD), (FILES, DECODING), (FILES, FORWARD)]


@dataclass(frozen=True)
class Case(NetworkCase):
    """A network and a dataset."""

    stored: tuple[int, int]
    """Height and width of the JPEGs."""
    images: int


CASES = [
    Case("resnet8_w16", 32, (32, 32), 2048),
    Case("resnet18", 64, (64, 64), 1024),
    Case("resnet18", 224, (375, 500), 166),
]


@dataclass(frozen=True)
class How:
    """Device, precision and threads."""

    precision: Precision
    threads: int
    device: str

    @property
    def settings(self) -> FeaturesSettings:
        """As an entry has them."""
        return FeaturesSettings(precision=self.precision)


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    known = {case.name: case for case in CASES}
    cases = [replace(known[name], images=arguments.images or known[name].images) for name in arguments.case or known]
    how = How(arguments.precision, arguments.threads, arguments.device)
    about = hardware(how.device, how.threads) | {
        "precision": how.precision,
        "alternating rounds": arguments.rounds,
    }
    print(describe(about))
    measured = []
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            measured.append(_measured(case, how, _dataset(case, Path(folder)), arguments))
        show(measured[-1:], COMPARED)
    if arguments.json:
        write(arguments.json, measured, COMPARED, about)


def _arguments() -> argparse.Namespace:
    parser = command_line(__doc__, CASES)
    parser.add_argument("--images", type=int, help="images a round (default: by case)")
    parser.add_argument("--resident", action="store_true", help="only from images in memory")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    return parser.parse_args()


def _measured(case: Case, how: How, dataset: Path, arguments: argparse.Namespace) -> Speeds:
    makers = {RESIDENT: resident, FORWARD: forward, FILES: files, DECODING: decoding}
    names = (RESIDENT, FORWARD) if arguments.resident else makers
    contenders = {name: Contender(makers[name], (case, how, dataset)) for name in names}
    name = f"{case.architecture} at {case.side} px, {case.images} images, JPEGs of {case.stored[1]} × {case.stored[0]}"
    return measure(
        name, contenders, images=case.images, rounds=arguments.rounds, threads=how.threads, device=how.device
    )


def resident(case: Case, how: How, dataset: Path) -> Callable[[], Sequence[Sized]]:
    """Extraction from a split that fits in memory, after it is decoded."""
    network, batches = _given(case, how, dataset)
    read = activations(network, None)
    return lambda: list(features.computed(read, batches(), how.settings))


def forward(case: Case, how: How, dataset: Path) -> Callable[[], object]:
    """The forward pass alone, on the same batches."""
    network, batches = _given(case, how, dataset)
    ready = list(batches())

    def passes() -> None:
        with torch.inference_mode(), autocast(how.precision, ready[0].device):
            for batch in ready:
                network.features(batch)

    return passes


def files(case: Case, how: How, dataset: Path) -> Callable[[], object]:
    """Extraction from a split that does not fit in memory."""
    on = prepare(how.device, how.threads, how.precision)
    read, split = activations(_network(case, on), None), open_split(open_entry(dataset), "train")
    features.RESIDENT_MB = 0

    def extract() -> None:
        chunks = features.extract(split, read, how.settings, case.side, first=0, on=on, threads=how.threads, where="")
        assert sum(map(len, chunks)) == case.images

    return extract


def decoding(case: Case, how: How, dataset: Path) -> Callable[[], Sized]:
    """Decode and resize every image, in this process."""
    part = Subset(open_split(open_entry(dataset), "train"), np.arange(case.images))
    ratio = how.settings.preprocessing.resize_ratio
    return lambda: [part.squares(np.array([i]), case.side, ratio) for i in range(case.images)]


def _network(case: Case, on: torch.device) -> Network:
    network = build(case.architecture, 10, seed=0).eval()
    return network.to(device=on, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _given(case: Case, how: How, dataset: Path) -> tuple[Network, Callable[[], Iterator[torch.Tensor]]]:
    """The network, and a function that makes batches of decoded images."""
    on, size = prepare(how.device, how.threads, how.precision), features.batch_size(case.side)
    parts = [Subset(open_split(open_entry(dataset), "train"), np.arange(case.images))]
    loader = open_loader(
        parts, Recipe(augmentation="none", batch_size=size), input_size=case.side,
        resize_ratio=how.settings.preprocessing.resize_ratio, seed=0, device=on, threads=how.threads, running=Running(),
    )  # fmt: skip
    groups = torch.split(torch.arange(case.images), size)
    return _network(case, on), lambda: loader.batches(0, groups, case.side)


def _dataset(case: Case, folder: Path) -> Path:
    """A prepared dataset of smooth images with some noise, as JPEGs of quality 90."""
    path = folder / "store" / "datasets" / "jpegs"
    path.mkdir(parents=True)
    write_json(path / ENTRY, {"stage": "datasets", "settings": {}, "inputs": {}})
    entry, random = open_entry(path), np.random.default_rng(0)
    height, width = case.stored
    with entry.writing() as draft:
        with SplitWriter(draft.file("train.arrow"), None) as writer:
            for _ in range(case.images):
                coarse = Image.fromarray(random.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
                smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
                pixels = np.clip(smooth + random.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(file := io.BytesIO(), "JPEG", quality=90)
                writer.add(file.getvalue(), 0)
        draft.facts = {
            "classes": ["any"],
            "counts": {"train": case.images},
            "checksums": {"train": writer.checksums},
        }
    return path


if __name__ == "__main__":
    main()
