"""Labelled scores, and how much they tell where they come in groups.

The samples of a group, such as several cutouts of one object, are alike: a group tells more than
one sample, and less than as many as it has.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import stdtrit

from lens_hpc.metrics.ranking import TAIL, Curve, rank

# That many samples of the rarer outcome count as much as what is supposed of groups.
PRIOR_SAMPLES = 4


@dataclass(frozen=True)
class ScoredSample:
    """What was scored."""

    labels: np.ndarray
    """(N,) of 1 (lens) and 0 (non-lens)."""
    scores: np.ndarray
    """(N,)."""
    groups: np.ndarray | None = None
    """Number of the group of each, (N,) int; None where each is independent of the others."""

    @cached_property
    def curve(self) -> Curve:
        """The ranking."""
        return rank(self.labels, self.scores)

    @cached_property
    def independent(self) -> tuple[int, int]:
        """How many lenses and how many non-lenses there are, a group counted once."""
        if self.groups is None:
            return int(self.curve.lenses), int(self.curve.non_lenses)
        lenses, non_lenses = (int(np.count_nonzero(sizes)) for sizes in self._group_sizes)
        return lenses, non_lenses

    @property
    def degrees_of_freedom(self) -> int:
        """Of Student's t: one less than the lenses or non-lenses, whichever are fewer."""
        return max(min(self.independent) - 1, 1)

    @property
    def quantile(self) -> float:
        """How many standard deviations a 95% interval reaches to each side: of t with groups."""
        degrees = np.inf if self.groups is None else self.degrees_of_freedom
        return float(stdtrit(degrees, 1 - TAIL))

    @cached_property
    def smallest_sizes(self) -> tuple[float, float]:
        """How many independent lenses and non-lenses tell as much, if all of a group are the same.

        Kish 1965 (Survey Sampling, section 8.2), with a correlation of 1 within groups.
        """
        if self.groups is None:
            return float(self.curve.lenses), float(self.curve.non_lenses)
        lenses, non_lenses = (
            float(sizes.sum() ** 2 / np.square(sizes).sum()) for sizes in self._group_sizes
        )
        return lenses, non_lenses

    def sizes(
        self, variance: float, independent_variance: float, rarer: float
    ) -> tuple[float, float]:
        """Return how many independent lenses and non-lenses tell as much about a statistic.

        They follow from its variance by groups, over that of independent samples. As long as the
        rarer outcome has been seen in few samples, that ratio is hardly known, and the largest
        possible one counts with it, where all of a group are the same.
        """
        lenses, non_lenses = float(self.curve.lenses), float(self.curve.non_lenses)
        fewest_lenses, fewest_non_lenses = self.smallest_sizes
        largest = max(lenses / fewest_lenses, non_lenses / fewest_non_lenses)
        ratio = variance / independent_variance if independent_variance else largest
        effect = float(_design_effect(np.array(ratio), largest, np.array(rarer)))
        return max(lenses / effect, fewest_lenses), max(non_lenses / effect, fewest_non_lenses)

    @cached_property
    def sizes_by_number_above(self) -> tuple[np.ndarray, np.ndarray]:
        """How many independent lenses, and non-lenses, tell as much about the share above a score.

        They are given by how many lie above it, (lenses + 1,) and (non-lenses + 1,).
        """
        return self._sizes_by_number_above(1), self._sizes_by_number_above(0)

    def _sizes_by_number_above(self, label: int) -> np.ndarray:
        is_of_class = self.labels == label
        if self.groups is None:
            count = int(np.count_nonzero(is_of_class))
            return np.broadcast_to(float(count), (count + 1,))

        highest_first = np.argsort(-self.scores[is_of_class], kind="stable")
        return _sizes_as_samples_follow(self.groups[is_of_class][highest_first])

    def variance_of_means(self, by_lens: np.ndarray, by_non_lens: np.ndarray) -> float:
        """Return the variance of the mean over the lenses and that over the non-lenses, added.

        With groups, which are independent of each other while their samples are not, it is that
        of Obuchowski 1997 (Biometrics 53, 567); without, that of DeLong, DeLong & Clarke-Pearson
        1988 (Biometrics 44, 837).
        """
        by_lens = (by_lens - by_lens.mean()) / len(by_lens)
        by_non_lens = (by_non_lens - by_non_lens.mean()) / len(by_non_lens)
        if self.groups is None:
            return _covariance(by_lens, by_lens) + _covariance(by_non_lens, by_non_lens)

        lens_counts, non_lens_counts = self._group_sizes
        lenses = np.bincount(self.groups[self.labels == 1], by_lens, len(lens_counts))
        non_lenses = np.bincount(self.groups[self.labels == 0], by_non_lens, len(lens_counts))
        has_lenses = lens_counts > 0
        has_non_lenses = non_lens_counts > 0

        variance = _covariance(lenses[has_lenses], lenses[has_lenses])
        variance += _covariance(non_lenses[has_non_lenses], non_lenses[has_non_lenses])
        # Groups with both classes: negative where the two make up for each other.
        has_any = has_lenses | has_non_lenses
        variance += 2 * _covariance(lenses[has_any], non_lenses[has_any])
        return max(variance, 0.0)

    @cached_property
    def _group_sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """How many lenses, and how many non-lenses, each group has."""
        assert self.groups is not None
        count = int(self.groups.max()) + 1
        lenses = np.bincount(self.groups[self.labels == 1], minlength=count)
        return lenses, np.bincount(self.groups[self.labels == 0], minlength=count)


def _design_effect(ratio: np.ndarray, largest: float, rarer: np.ndarray) -> np.ndarray:
    """Return by how much the variance is thought to be larger than that of independent samples.

    `ratio` (...) is what was found, `largest` what is possible, `rarer` (...) how many samples had
    the rarer outcome.
    """
    found = np.clip(ratio, 1, largest)
    effect = (rarer * found + PRIOR_SAMPLES * largest) / (rarer + PRIOR_SAMPLES)
    return np.asarray(effect)


def _sizes_as_samples_follow(groups: np.ndarray) -> np.ndarray:
    """Return how many independent samples tell as much, if the first k have an outcome, (N + 1,).

    `groups` (N,) are those of the samples in their order. The variance of the share k / N is the
    sum of squares, over the groups, of how many of a group have the outcome less k / N of all.
    """
    count = len(groups)
    sizes = np.bincount(groups)
    squares = _sums_before(2 * _number_in_group(groups) + 1)
    products = _sums_before(sizes[groups])
    number_above = np.arange(count + 1)
    share = number_above / count
    deviations = squares - 2 * share * products + share**2 * products[-1]

    group_count = np.count_nonzero(sizes)
    independent = count * share * (1 - share) * (group_count - 1)
    largest = float(products[-1] / count)
    ratio = np.full(count + 1, largest)
    np.divide(deviations * group_count, independent, out=ratio, where=independent > 0)

    rarer = np.minimum(number_above, count - number_above)
    return count / _design_effect(ratio, largest, rarer)


def _number_in_group(groups: np.ndarray) -> np.ndarray:
    """Return how many of its own group lie before each sample, (N,)."""
    by_group = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    numbers = np.empty(len(groups), np.int64)
    numbers[by_group] = np.arange(len(groups)) - starts[groups[by_group]]
    return numbers


def _sums_before(values: np.ndarray) -> np.ndarray:
    """Return the sum of the first k values, for each k, (N + 1,)."""
    return np.append(0, np.cumsum(values))


def _covariance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the covariance of two sums of independent parts; 0 where there is only one part."""
    count = len(one)
    return float(one @ other) * count / (count - 1) if count > 1 else 0.0
