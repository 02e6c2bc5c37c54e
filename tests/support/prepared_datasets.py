"""Small real datasets for tests: image files, parquet files and folders of them, and entries prepared from them."""

import io
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from robust_transfer.datasets.storing import SplitWriter
from robust_transfer.stages import datasets as prepare
from robust_transfer.store.entry import Entry, open_entry, write_json
from torch import Tensor

_number = itertools.count()


def pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth image with some noise: uint8 RGB [height, width, 3]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(random.uniform(0.05, 0.6) * x + random.uniform(0.05, 0.6) * y + seed + c) for c in range(3)]
    return np.clip(128 + 90 * np.stack(waves, -1) + random.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8)


def squares(n: int = 36, side: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images of three classes that differ in colour, and by image in noise: uint8 [n, side, side, 3], int64 [n]."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    pixels = random.integers(0, 120, (n, side, side, 3))
    pixels[np.arange(n), :, :, labels] += 100
    return torch.from_numpy(pixels.astype(np.uint8)), torch.from_numpy(labels)


def encoded(image: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """An image as a file in memory."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def encoded_squares(n: int, side: int = 16, seed: int = 0) -> tuple[list[bytes], list[int]]:
    """`squares` as PNG files, and labels."""
    images, labels = squares(n, side, seed)
    return [encoded(image) for image in images.numpy()], labels.tolist()


def separable(root: Path) -> Entry:
    """A prepared dataset of 60 training and 60 test images of one colour each, which is their class."""
    plain = [encoded(np.full((16, 16, 3), 240 * np.eye(3)[label], np.uint8)) for label in range(3)]
    for split in ("train", "test"):
        write_parquet(root / "plain" / f"{split}.parquet", plain * 20, [*range(3)] * 20)
    return prepared(root, {"kind": "parquet", "path": str(root / "plain")})


def shuffled(root: Path) -> Entry:
    """A prepared dataset of `squares`, 90 to train on and 240 to test, whose labels say nothing of the images."""
    for seed, (split, n) in enumerate({"train": 90, "test": 240}.items()):
        images, labels = encoded_squares(n, seed=seed)
        drawn = np.random.default_rng(seed).permutation(labels).tolist()
        write_parquet(root / "shuffled" / f"{split}.parquet", images, drawn)
    return prepared(root, {"kind": "parquet", "path": str(root / "shuffled")})


def write_folder(root: Path, counts: dict[str, int], size: tuple[int, int] = (20, 24)) -> Path:
    """PNG files `<root>/<class>/<i>.png`, so many a class."""
    for c, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (root / name / f"{i}.png").write_bytes(encoded(pixels(*size, seed=100 * c + i)))
    return root


def write_parquet(path: Path, images: Iterable[Any], labels: Iterable[Any], **metadata: Any) -> Path:
    """One parquet file with columns image and label, in row groups of five."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": pa.array(list(images)), "label": pa.array(list(labels))})
    if metadata:
        table = table.replace_schema_metadata({key: json.dumps(value) for key, value in metadata.items()})
    pq.write_table(table, path, row_group_size=5)
    return path


def new_entry(root: Path, stage: str, settings: dict[str, Any], **inputs: Entry) -> Entry:
    """An entry that nothing was made of yet."""
    path = root / "store" / stage / f"entry{next(_number)}-abcdef"
    path.mkdir(parents=True)
    roles = {role: f"{entry.path.parent.name}/{entry.path.name}" for role, entry in inputs.items()}
    write_json(path / "entry.json", {"stage": stage, "settings": settings, "inputs": roles})
    return open_entry(path)


def few_squares(root: Path) -> Entry:
    """A dataset of 60 images to train on and 45 to test on, read from parquet files."""
    for seed, (split, n) in enumerate({"train": 60, "test": 45}.items()):
        write_parquet(root / "data" / f"{split}.parquet", *encoded_squares(n, seed=seed))
    return prepared(root, {"kind": "parquet", "path": str(root / "data")})


def prepared(root: Path, origin: dict[str, Any], *, threads: int = 1, **settings: Any) -> Entry:
    """A dataset entry made by the stage itself."""
    entry = new_entry(root, "datasets", {"origin": origin, **settings})
    prepare.run(entry, threads=threads, device="cpu")
    return entry


def squares_entry(root: Path, n: int = 96) -> Entry:
    """A dataset entry with `squares` alone."""
    images, labels = squares(n)
    return written(root, list(images.numpy()), labels.tolist())


def written(root: Path, images: list[Any], labels: list[int], batch_bytes: int = 2**26) -> Entry:
    """A dataset entry with a train split alone, of images as they are: arrays of one shape, or encoded files."""
    entry = new_entry(root, "datasets", {})
    shape = None if isinstance(images[0], bytes) else images[0].shape[:2]
    with entry.writing() as draft:
        with SplitWriter(draft.file("train.arrow"), shape, batch_bytes=batch_bytes) as writer:
            for image, label in zip(images, labels, strict=True):
                writer.add(image, label)
        draft.facts = {
            "classes": [f"class {i}" for i in range(max(labels, default=0) + 1)],
            "counts": {"train": len(images)},
            "checksums": {"train": writer.checksums},
        }
    return entry
