"""Two rankings of the same samples: is one better, or was it chance?"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from lens_hpc.metrics.ranking import TAIL, Interval

# A normal approximation means nothing this far out.
SMALLEST_P = 1e-12


@dataclass(frozen=True)
class Difference:
    """The difference of two AUCs over the same samples."""

    difference: float
    ci95: Interval
    p_value: float
    """Two-sided probability of such a difference by chance; NaN where the samples cannot tell."""

    @property
    def shown_p(self) -> str:
        """The p-value as far as it means anything."""
        if np.isnan(self.p_value):
            return "unknown"
        if self.p_value < SMALLEST_P:
            return "< 1e-12"
        return f"{self.p_value:.2g}"


def compare_aucs(labels: np.ndarray, one: np.ndarray, other: np.ndarray) -> Difference:
    """Test the AUC of one ranking minus that of another over the same samples.

    This is the paired test of DeLong, DeLong & Clarke-Pearson 1988 (Biometrics 44, 837). `labels`
    are (N,) of 1 and 0, `one` and `other` (N,) scores.
    """
    one_lenses, one_non_lenses = _fractions_right(labels, one)
    other_lenses, other_non_lenses = _fractions_right(labels, other)
    difference = float(one_lenses.mean() - other_lenses.mean())
    variance = _variance_of_mean_difference(one_lenses, other_lenses)
    variance += _variance_of_mean_difference(one_non_lenses, other_non_lenses)

    if variance == 0:
        p_value = 1.0 if difference == 0 else np.nan
        return Difference(difference, (difference, difference), p_value)

    normal = NormalDist()
    deviation = np.sqrt(variance)
    half_width = normal.inv_cdf(1 - TAIL) * deviation
    ci95 = float(difference - half_width), float(difference + half_width)
    p_value = 2 * normal.cdf(-abs(difference) / deviation)
    return Difference(difference, ci95, p_value)


def _fractions_right(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the fraction of the other class that each sample is ranked right against.

    First for each lens, then for each non-lens.
    """
    lenses = scores[labels == 1]
    non_lenses = scores[labels == 0]
    ranks = _mid_ranks(np.concatenate([lenses, non_lenses]))

    count = len(lenses)
    by_lens = (ranks[:count] - _mid_ranks(lenses)) / len(non_lenses)
    by_non_lens = 1 - (ranks[count:] - _mid_ranks(non_lenses)) / count
    return by_lens, by_non_lens


def _mid_ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks of values, from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def _variance_of_mean_difference(one: np.ndarray, other: np.ndarray) -> float:
    if len(one) < 2:
        return 0.0
    return np.var(one - other, ddof=1) / len(one)
