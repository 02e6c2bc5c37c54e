"""What names say: which files are images, and which folders and files hold the splits of a dataset."""

from __future__ import annotations

import re

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".ppm", ".pgm", ".pbm", ".tif", ".tiff"),
    *(".jp2", ".avif", ".heic", ".heif", ".jxl"),
)
"""Of files that are images. Those of which Pillow has no decoder are named as unreadable, and not passed over."""
NAMES = {
    "train": ("train", "training", "trn", "trainset", "trainingset", "trainval"),
    "validation": ("validation", "val", "valid", "validate", "validating", "dev", "valset", "validationset"),
    "test": ("test", "testing", "tst", "testset", "testingset"),
}
"""The spellings of each split, in lower case; numbers and the words below may stand beside them."""
BESIDE = {"set", "split", "data", "dataset", "images", "image", "imgs", "img", "folder", "dir", "seg", "full"}
EXPECTED = "train/ and test/ (or val/)"


def split_of(name: str) -> str | None:
    """The split that a folder or file of this name (without suffix) holds: train, validation, test, or None.

    Case does not matter, nor do separators and numbers: `Training_Set`, `test-images` and `val2017` are splits.
    """
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word and word not in BESIDE]
    if len(words) != 1:
        return None
    return next((split for split, names in NAMES.items() if words[0] in names), None)
