"""What a classifier says of images, and whether it is right: what every comparison is made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Predictions:
    """One split of a run: arrays of shape [N], sorted by `index`, which names an image and occurs once."""

    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    correct: NDArray[np.float64]
    """Share of the run's heads that are right: 0 or 1 where there is one head."""
