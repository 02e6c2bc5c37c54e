"""Choosing eps and architecture on validation or test images, and intervals of what was chosen.

A candidate is one architecture at one eps; its accuracy is the mean over its seeds, so a seed is never chosen. Images
are resampled with replacement, the same ones for every candidate: differences are paired. Column 0 of every array of
accuracies is the actual sample, the columns after it are resamples, so that the number reported and its bootstrap go
through one and the same code.

Where the choice is made on validation images, the interval of a chosen accuracy or difference is

- of one seed: over test images, which had no part in the choice, so that it is that of the networks chosen. It speaks
  of these weights and of no others; how stable the choice is stands beside it (`Pick.share`);
- of several seeds: over seeds (`intervals.seeds_interval`), and wide enough for what each seed says of a network that
  the other seeds chose, since the best of several networks is partly the one with the luckiest seeds.

Where it is made on the test images that it is reported on, the accuracy is too high by as much as the choice was lucky,
and no interval says that honestly: it has none. Beside it stands an estimate from the same predictions without that
optimism: choose on the images that a resample draws, score on those that it leaves out, and average over resamples
(Tsamardinos, Greasidou and Borboudakis 2018, "Bootstrapping the out-of-sample predictions").
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from robust_transfer.statistics.candidates import Candidate, accuracies, means
from robust_transfer.statistics.intervals import (
    exact_interval,
    paired_difference_interval,
    seeds_difference_interval,
    seeds_interval,
)
from robust_transfer.statistics.metrics import Floats, effective_images


@dataclass(frozen=True)
class Pick:
    """What was picked among candidates, on the actual sample and in every resample."""

    accuracies: Floats
    """Test accuracy of what was picked, in percent, [1 + resamples]."""
    picked: NDArray[np.intp]
    """Which candidate that was, [1 + resamples]."""
    among: tuple[int, ...]
    """The candidates it was picked among."""

    @property
    def share(self) -> float:
        """Share of resamples that pick what the actual sample picks: how stable the choice is."""
        return float(np.mean(self.picked[1:] == self.picked[0]))


@dataclass(frozen=True)
class Interval:
    """A number with its interval; NaN ends and an empty kind where it has none."""

    value: float
    low: float
    high: float
    kind: str
    """`images`, `seeds`, or empty."""
    n: int
    """Images, or for `seeds` seeds."""

    def widened(self, ends: tuple[float, float]) -> Interval:
        """The same number with an interval that holds these ends too."""
        return replace(self, low=min(self.low, ends[0]), high=max(self.high, ends[1]))

    def moved(self, value: float, least: float) -> Interval:
        """An interval as wide around another value, within `least` and 100."""
        shift = value - self.value
        return replace(self, value=value, low=max(self.low + shift, least), high=min(self.high + shift, 100.0))


class Bootstrap:
    """Candidates measured on the same images; picks among them on validation, or on test, and reports on test."""

    def __init__(
        self, candidates: Sequence[Candidate], metric: str, resamples: int, selection: str = "validation"
    ) -> None:
        """Score every candidate; `metric` is `top1` or `mean_per_class`, `selection` `validation` or `test`.

        Raises SelectionError if a run has no predictions of a split that is needed, or other labels or test images
        than the runs it is compared with.
        """
        self.candidates, self.selection, self._metric, self._resamples = list(candidates), selection, metric, resamples
        self._test_runs = accuracies(self.candidates, "test", metric, resamples)
        self.test = means(self.candidates, self._test_runs)
        # With one candidate nothing is chosen, and validation images are not needed.
        elsewhere = selection == "validation" and len(self.candidates) > 1
        self._decisive_runs = (
            accuracies(self.candidates, "validation", metric, resamples) if elsewhere else self._test_runs
        )
        self.decisive = means(self.candidates, self._decisive_runs)
        self.images = len(self.candidates[0].runs[0].splits["test"].index)

    def pick(self, among: Sequence[int]) -> Pick:
        """The candidate of highest accuracy where it is chosen, separately in every resample; of equals, the first."""
        picked = np.asarray(among)[self.decisive[list(among)].argmax(0)]
        return Pick(self.test[picked, np.arange(self.test.shape[1])], picked, tuple(among))

    def accuracy(self, pick: Pick) -> Interval:
        """Test accuracy of what was picked, in percent."""
        chosen = int(pick.picked[0])
        if self._on_test(pick):
            return Interval(float(pick.accuracies[0]), math.nan, math.nan, "", self.images)
        return self._with_left_out(self._accuracy(chosen), pick)

    def difference(self, pick: Pick, standard: Pick) -> Interval:
        """Test accuracy of what was picked less that of `standard`, paired over images, in percentage points."""
        one, other = int(pick.picked[0]), int(standard.picked[0])
        if self._on_test(pick) or self._on_test(standard):
            return Interval(float(self.test[one, 0] - self.test[other, 0]), math.nan, math.nan, "", self.images)
        return self._with_left_out(self._difference(one, other), pick, standard)

    def out_of_bag(self, pick: Pick, standard: Pick | None = None) -> Interval | None:
        """What the choice is worth on images that it did not see, or with `standard` the difference to that choice.

        Its interval is that of the networks chosen, around this value. None where nothing was chosen on test images.
        """
        if not (self._on_test(pick) or (standard and self._on_test(standard))):
            return None
        held_out = self._held_out
        columns, chosen = np.arange(held_out.shape[1]), int(pick.picked[0])
        scores = held_out[pick.picked[1:], columns]
        if standard is None:
            fixed = self._accuracy(chosen)
            value = float(scores.mean())
            if fixed.kind == "images":
                return Interval(value, *exact_interval(value, self._effective(chosen)), "images", self.images)
            return self._with_left_out(fixed.moved(value, 0.0), pick)
        scores = scores - held_out[standard.picked[1:], columns]
        fixed = self._difference(chosen, int(standard.picked[0])).moved(float(scores.mean()), -100.0)
        return self._with_left_out(fixed, pick, standard)

    def _with_left_out(self, fixed: Interval, pick: Pick, standard: Pick | None = None) -> Interval:
        """The interval of a choice under several seeds: also what each seed says of what the other seeds choose."""
        one = int(pick.picked[0])
        if fixed.kind != "seeds":
            return fixed
        first = self._left_out(pick) or self._seeds(one)
        if standard is None:
            return fixed.widened(seeds_interval(first, self._error(one)))
        other = int(standard.picked[0])
        second = self._left_out(standard) or self._seeds(other)
        return fixed.widened(seeds_difference_interval(first, second, self._error(one, other)))

    @functools.cached_property
    def _held_out(self) -> Floats:
        """Accuracy of every candidate on the test images that each resample leaves out, [candidates, resamples]."""
        runs = accuracies(self.candidates, "test", self._metric, self._resamples, left_out=True)
        return means(self.candidates, runs)[:, 1:]

    def _accuracy(self, candidate: int) -> Interval:
        """A candidate's test accuracy, as if it had been the only one."""
        value, seeds = float(self.test[candidate, 0]), self._seeds(candidate)
        images = exact_interval(value, self._effective(candidate))
        if len(seeds) < 2:
            return Interval(value, *images, "images", self.images)
        error = self._error(candidate)
        over_seeds = Interval(value, *seeds_interval(seeds, error), "seeds", len(seeds))
        return over_seeds if error else over_seeds.widened(images)  # where all images are right, resamples are alike

    def _difference(self, one: int, other: int) -> Interval:
        """A candidate's test accuracy less another's, as if there had been no others."""
        value = float(self.test[one, 0] - self.test[other, 0])
        seeds = self._seeds(one), self._seeds(other)
        images = paired_difference_interval(self._exact(one), self._exact(other), self._correlation(one, other))
        if min(map(len, seeds)) < 2:
            return Interval(value, *images, "images", self.images)
        error = self._error(one, other)
        over_seeds = Interval(value, *seeds_difference_interval(*seeds, error), "seeds", min(map(len, seeds)))
        return over_seeds if error else over_seeds.widened(images)

    def _exact(self, candidate: int) -> tuple[float, float, float]:
        """A candidate's test accuracy and its interval over images."""
        value = float(self.test[candidate, 0])
        return value, *exact_interval(value, self._effective(candidate))

    def _error(self, candidate: int, less: int | None = None) -> float:
        """Standard error over test images of a candidate's accuracy, or of its difference to another's, as far as all
        seeds share it: the rest shows in the spread between seeds."""
        columns = self._resampled_by_seed(candidate)
        variance = _shared(columns)
        if less is not None:
            others = self._resampled_by_seed(less)
            variance += _shared(others) - 2 * float(np.cov(columns.mean(0), others.mean(0))[0, 1])
        return math.sqrt(max(variance, 0.0))

    def _resampled_by_seed(self, candidate: int) -> Floats:
        """Test accuracies in the resamples, [seeds, resamples]."""
        return np.stack(list(self._by_seed(candidate, self._test_runs, slice(1, None)).values()))

    def _on_test(self, pick: Pick) -> bool:
        """Was it chosen, among several, on the images that it is reported on?"""
        return self.selection == "test" and len(pick.among) > 1

    def _seeds(self, candidate: int) -> list[float]:
        """A candidate's test accuracy under each seed."""
        return [float(one[0]) for one in self._by_seed(candidate, self._test_runs).values()]

    def _by_seed(self, candidate: int, by_run: Floats, columns: slice = slice(0, 1)) -> dict[int | None, Floats]:
        """Accuracies in some columns by seed of pretraining, or of transfer where there is one seed of pretraining."""
        runs = self.candidates[candidate].runs
        several = len({run.backbone_seed for run in runs}) > 1
        values: dict[int | None, list[Floats]] = defaultdict(list)
        first = sum(len(one.runs) for one in self.candidates[:candidate])
        for place, run in enumerate(runs, first):
            values[run.backbone_seed if several else run.transfer_seed].append(by_run[place, columns])
        return {seed: np.mean(of_seed, axis=0) for seed, of_seed in values.items()}

    def _left_out(self, pick: Pick) -> list[float]:
        """Test accuracy under each seed of what the other seeds choose; empty where candidates differ in seeds."""
        if len(pick.among) < 2:
            return []
        decisive = [self._by_seed(i, self._decisive_runs) for i in pick.among]
        tested = [self._by_seed(i, self._test_runs) for i in pick.among]
        seeds = list(tested[0])
        if len(seeds) < 2 or any(list(one) != seeds for one in [*decisive, *tested]):
            return []
        left_out = []
        for seed in seeds:
            others = [float(np.mean([one[other][0] for other in seeds if other != seed])) for one in decisive]
            left_out.append(float(tested[int(np.argmax(others))][seed][0]))
        return left_out

    def _correct(self, candidate: int) -> Floats:
        """Share of a candidate's runs that are right, by test image."""
        share: Floats = np.mean([run.splits["test"].correct for run in self.candidates[candidate].runs], axis=0)
        return share

    def _effective(self, candidate: int) -> float:
        labels = self.candidates[candidate].runs[0].splits["test"].labels
        return effective_images(self._correct(candidate), labels, self._metric)

    def _correlation(self, one: int, other: int) -> float:
        """Correlation of being right, over test images; 0 where one of the two does not vary."""
        first, second = self._correct(one), self._correct(other)
        if first.std() == 0 or second.std() == 0:
            return 0.0
        return float(np.corrcoef(first, second)[0, 1])


def _shared(accuracies: Floats) -> float:
    """Mean covariance, over resamples, of accuracies [seeds, resamples] under different seeds."""
    covariance = np.atleast_2d(np.cov(accuracies))
    seeds = len(covariance)
    return float((covariance.sum() - np.trace(covariance)) / (seeds * (seeds - 1)))
