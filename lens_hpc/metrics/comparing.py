"""Two recipes on the same samples: does one rank them better, or was it chance?

Chance has two parts: which samples there are, and, where a recipe was trained with several seeds,
which seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import stdtr, stdtrit

from lens_hpc.metrics.intervals import FractionsRight, auc_interval
from lens_hpc.metrics.ranking import TAIL, Interval, fractions_right
from lens_hpc.metrics.samples import ScoredSample

# An approximation of the tail means nothing this far out.
SMALLEST_P = 1e-12
# This many samples ranked wrong count as much as what is supposed of the variance of an area.
PRIOR_SAMPLES = 0.5


@dataclass(frozen=True)
class Difference:
    """The difference of two AUCs over the same samples, or of the mean AUCs of two arms."""

    difference: float
    ci95: Interval
    p_value: float
    """Two-sided probability of such a difference by chance; NaN where the samples cannot tell."""
    over_seeds: bool = False
    """Whether chance includes the seeds: interval and p-value are then those of the recipes, else
    of these weights alone."""

    @property
    def is_shown(self) -> bool:
        """Whether the interval leaves out that there is none."""
        low, high = self.ci95
        return low > 0 or high < 0

    @property
    def shown_p(self) -> str:
        """The p-value as far as it means anything."""
        if np.isnan(self.p_value):
            return "unknown"
        if self.p_value < SMALLEST_P:
            return "< 1e-12"
        return f"{self.p_value:.2g}"


def compare_aucs(
    labels: np.ndarray, one: np.ndarray, other: np.ndarray, groups: np.ndarray | None = None
) -> Difference:
    """Test the AUC of one ranking minus that of another over the same samples.

    `labels` are (N,) of 1 and 0, `one` and `other` (N,) scores, `groups` (N,) int.
    """
    return compare_arms(labels, [one], [other], groups)


def compare_arms(
    labels: np.ndarray,
    ones: Sequence[np.ndarray],
    others: Sequence[np.ndarray],
    groups: np.ndarray | None = None,
) -> Difference:
    """Test the mean AUC of the seeds of one arm minus that of another over the same samples.

    What the samples add to the interval is put together from those of both mean AUCs (MOVER: Zou &
    Donner 2008, Stat. Med. 27, 1693, equation 7), with the correlation of DeLong, DeLong &
    Clarke-Pearson 1988 (Biometrics 44, 837), or with groups of Obuchowski 1997 (Biometrics 53,
    567), and with Student's t. It is at least as wide as their own paired test would have it.

    Seeds are to an arm what readers are to a test in radiology (readers nested within tests:
    Hillis 2014, Stat. Med. 33, 330). Where both arms have several, the variance of the seeds is
    added, as far as it exceeds what the samples alone would make of equally good seeds, and the
    degrees of freedom are those of Welch 1947 (Biometrika 34, 28).

    The p-value is that at which the interval would just reach 0. `labels` are (N,) of 1 and 0,
    `ones` and `others` (N,) scores for each seed, `groups` (N,) int.
    """
    first, second = _Arm(labels, ones, groups), _Arm(labels, others, groups)
    difference = first.area - second.area
    below, above = _deviations_by_samples(first, second)

    degrees = float(first.sample.degrees_of_freedom)
    over_seeds = min(len(ones), len(others)) > 1
    if over_seeds:
        of_seeds = first.variance_of_seeds + second.variance_of_seeds
        below, above = np.sqrt(np.square([below, above]) + of_seeds).tolist()
        degrees = _degrees_of_freedom(first, second)

    quantile = float(stdtrit(degrees, 1 - TAIL))
    ci95 = difference - quantile * below, difference + quantile * above
    towards_none = below if difference > 0 else above
    p_value = np.nan
    if difference == 0:
        p_value = 1.0
    elif towards_none > 0:
        p_value = float(2 * stdtr(degrees, -abs(difference) / towards_none))
    return Difference(difference, ci95, p_value, over_seeds)


# ---- an arm ----


@dataclass(frozen=True)
class _Arm:
    """The rankings of one recipe, one for each seed."""

    labels: np.ndarray
    scores: Sequence[np.ndarray]
    groups: np.ndarray | None

    @cached_property
    def sample(self) -> ScoredSample:
        """The samples, as the first seed ranks them."""
        return ScoredSample(self.labels, self.scores[0], self.groups)

    @cached_property
    def each_right(self) -> list[FractionsRight]:
        """The fractions that each lens, and each non-lens, is ranked right against, by seed."""
        return [fractions_right(self.labels, scores) for scores in self.scores]

    @cached_property
    def right(self) -> FractionsRight:
        """The means of the fractions over the seeds."""
        by_lens, by_non_lens = zip(*self.each_right, strict=True)
        return np.mean(by_lens, axis=0), np.mean(by_non_lens, axis=0)

    @cached_property
    def area(self) -> float:
        """The mean AUC of the seeds."""
        return float(self.right[0].mean())

    @cached_property
    def variance_by_samples(self) -> float:
        """What the samples alone make the AUCs of equally good seeds vary, one from another."""
        deviations = sum(
            self.sample.variance_of_means(by_lens - self.right[0], by_non_lens - self.right[1])
            for by_lens, by_non_lens in self.each_right
        )
        return deviations / (len(self.scores) - 1)

    @cached_property
    def variance_found(self) -> float:
        """By how much the AUCs of the seeds vary, with what the samples make of it at least."""
        areas = [by_lens.mean() for by_lens, _ in self.each_right]
        return max(float(np.var(areas, ddof=1)), self.variance_by_samples)

    @property
    def variance_of_seeds(self) -> float:
        """What the seeds add to the variance of the mean AUC."""
        return (self.variance_found - self.variance_by_samples) / len(self.scores)


def _degrees_of_freedom(first: _Arm, second: _Arm) -> float:
    """Return those of a sum of variances: what both arms share, and the seeds of each arm."""
    of_each = [arm.variance_found / len(arm.scores) for arm in (first, second)]
    by_samples = sum(arm.variance_by_samples / len(arm.scores) for arm in (first, second))
    shared = max(_variance_of_difference(first, second) - by_samples, 0.0)

    most = float(first.sample.degrees_of_freedom)
    total = shared + sum(of_each)
    if total == 0:
        return most
    squares = shared**2 / most
    for arm, variance in zip((first, second), of_each, strict=True):
        squares += variance**2 / (len(arm.scores) - 1)
    return min(total**2 / squares, most)


# ---- the samples ----


def _deviations_by_samples(first: _Arm, second: _Arm) -> tuple[float, float]:
    """Return by how much the samples alone let the difference be less, and more.

    Each is the way from the difference to the limit of its interval, over the quantile of t.
    """
    quantile = float(stdtrit(first.sample.degrees_of_freedom, 1 - TAIL))
    low, high = auc_interval(first.sample, quantile, PRIOR_SAMPLES, first.right)
    other_low, other_high = auc_interval(second.sample, quantile, PRIOR_SAMPLES, second.right)

    correlation = _correlate(first, second)
    below = _put_together(first.area - low, other_high - second.area, correlation)
    above = _put_together(high - first.area, second.area - other_low, correlation)
    least = float(np.sqrt(_variance_of_difference(first, second)))
    return max(below / quantile, least), max(above / quantile, least)


def _correlate(first: _Arm, second: _Arm) -> float:
    """Return the correlation of the mean AUCs of two arms, 0 where it is not known."""
    variance = first.sample.variance_of_means(*first.right)
    other_variance = first.sample.variance_of_means(*second.right)
    scale = 2 * np.sqrt(variance * other_variance)
    if scale == 0:
        return 0.0

    of_difference = _variance_of_difference(first, second)
    return float(np.clip((variance + other_variance - of_difference) / scale, -1, 1))


def _variance_of_difference(first: _Arm, second: _Arm) -> float:
    """Return the variance that the samples give to the difference of the mean AUCs."""
    by_lens = first.right[0] - second.right[0]
    by_non_lens = first.right[1] - second.right[1]
    return first.sample.variance_of_means(by_lens, by_non_lens)


def _put_together(one: float, other: float, correlation: float) -> float:
    """Return how far the interval of a difference reaches to a side, by what each adds."""
    return float(np.sqrt(max(one**2 + other**2 - 2 * correlation * one * other, 0.0)))
