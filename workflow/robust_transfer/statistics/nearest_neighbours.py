"""Classes by the nearest training images, through scikit-learn's `KNeighborsClassifier`.

Features are scaled to length 1, so that the nearest by Euclidean distance d are the nearest by cosine, 1 - d²/2. They
are searched for once, with the largest number of neighbours; the classifier then votes among that many or fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import identity
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

Weights = Literal["exponential", "uniform", "distance"]


class Neighbours:
    """Training images to search among: features [N, D], float16 or float32, and labels [N].

    Raises ValueError for features that are not finite.
    """

    def __init__(
        self, features: NDArray[Any], labels: NDArray[np.integer[Any]], *, weights: Weights, temperature: float
    ) -> None:
        self._search = NearestNeighbors(algorithm="brute").fit(unit(features))
        self._labels = labels
        self._votes = exponential(temperature) if weights == "exponential" else weights

    def predictions(self, features: NDArray[Any], neighbours: Sequence[int]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The class of each image, int64 [M], from its features [M, D], for each number of neighbours in turn.

        Of classes with as many votes the lowest is taken. No number may exceed that of the training images.
        """
        nearest = self._search.kneighbors_graph(unit(features), max(neighbours), mode="distance")
        among = identity(len(self._labels), format="csr")  # in place of distances between training images: unused
        for k in neighbours:
            voter = KNeighborsClassifier(k, weights=self._votes, metric="precomputed").fit(among, self._labels)
            yield k, voter.predict(nearest).astype(np.int64)


def unit(features: NDArray[Any]) -> NDArray[np.float32]:
    """Features [N, D] scaled to length 1, float32; those that are all zero stay so. Raises ValueError if any is not
    finite."""
    found = np.array(features, np.float32)
    if not np.isfinite(found).all():
        raise ValueError(f"feature {int(np.argmin(np.isfinite(found).all(0)))} is not finite in every image")
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    found /= np.where(lengths > 0, lengths, 1)
    return found


def exponential(temperature: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Votes exp(cosine / temperature) from distances between unit features, up to a factor that all of an image share:
    the nearest one counts 1, so that none overflows and not all vanish."""

    def votes(distances: NDArray[Any]) -> NDArray[Any]:
        squares = distances**2
        found: NDArray[Any] = np.exp((squares.min(1, keepdims=True) - squares) / (2 * temperature))
        return found

    return votes
