"""Two rankings of the same samples: is one better, or was it chance?"""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from lens_hpc.metrics.intervals import auc_interval
from lens_hpc.metrics.ranking import TAIL, Interval, fractions_right
from lens_hpc.metrics.samples import ScoredSample

# An approximation of the tail means nothing this far out.
SMALLEST_P = 1e-12
# This many samples ranked wrong count as much as what is supposed of the variance of an area.
PRIOR_SAMPLES = 0.5


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


def compare_aucs(
    labels: np.ndarray, one: np.ndarray, other: np.ndarray, groups: np.ndarray | None = None
) -> Difference:
    """Test the AUC of one ranking minus that of another over the same samples.

    The interval puts those of both AUCs together (MOVER: Zou & Donner 2008, Stat. Med. 27, 1693,
    equation 7), with the correlation of DeLong, DeLong & Clarke-Pearson 1988 (Biometrics 44, 837),
    or with groups of Obuchowski 1997 (Biometrics 53, 567), and with Student's t. It is at least as
    wide as their own paired test would have it. The p-value is that at which it would just reach
    0. `labels` are (N,) of 1 and 0, `one` and `other` (N,)
    scores, `groups` (N,) int.
    """
    first, second = ScoredSample(labels, one, groups), ScoredSample(labels, other, groups)
    degrees = first.degrees_of_freedom
    quantile = float(stdtrit(degrees, 1 - TAIL))
    low, high = auc_interval(first, quantile, PRIOR_SAMPLES)
    other_low, other_high = auc_interval(second, quantile, PRIOR_SAMPLES)

    area, other_area, correlation, deviation = _correlate(first, second)
    difference = area - other_area
    least = quantile * deviation
    below = max(least, _put_together(area - low, other_high - other_area, correlation))
    above = max(least, _put_together(high - area, other_area - other_low, correlation))

    towards_none = below if difference > 0 else above
    p_value = np.nan
    if difference == 0:
        p_value = 1.0
    elif towards_none > 0:
        p_value = float(2 * stdtr(degrees, -quantile * abs(difference) / towards_none))
    return Difference(difference, (difference - below, difference + above), p_value)


def _correlate(first: ScoredSample, second: ScoredSample) -> tuple[float, float, float, float]:
    """Return the AUC of each, their correlation, and the standard deviation of their difference.

    The correlation is 0 where it is not known.
    """
    ones = fractions_right(first.labels, first.scores)
    others = fractions_right(second.labels, second.scores)
    variance = first.variance_of_means(*ones)
    other_variance = first.variance_of_means(*others)
    of_difference = first.variance_of_means(ones[0] - others[0], ones[1] - others[1])

    scale = 2 * np.sqrt(variance * other_variance)
    correlation = (variance + other_variance - of_difference) / scale if scale else 0.0
    areas = float(ones[0].mean()), float(others[0].mean())
    return *areas, float(np.clip(correlation, -1, 1)), float(np.sqrt(of_difference))


def _put_together(one: float, other: float, correlation: float) -> float:
    """Return how far the interval of a difference reaches to a side, by what each adds."""
    return float(np.sqrt(max(one**2 + other**2 - 2 * correlation * one * other, 0.0)))
