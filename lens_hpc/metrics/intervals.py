"""95% confidence intervals by formulas: for small samples, near 0 and 1, and with groups, too.

A sample that nothing has gone wrong in says nothing of its own variance. So each formula supposes a
variance, and takes that of the sample where it is larger. Two estimates are put together by MOVER
(Zou & Donner 2008, Stat. Med. 27, 1693): by the squares of what each adds to a side.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit

from lens_hpc.metrics.ranking import (
    Interval,
    average_precision,
    delong,
    fractions_right,
    variance_of_mean,
)
from lens_hpc.metrics.resampling import coarsen
from lens_hpc.metrics.samples import ScoredSample
from lens_hpc.metrics.top import allowed_at_rate, completeness_at_rate, completeness_before

FractionsRight = tuple[np.ndarray, np.ndarray]
"""Of each lens and of each non-lens, as `fractions_right` returns them."""

# ---- area under the ROC curve ----


def auc_interval(
    sample: ScoredSample,
    quantile: float | None = None,
    prior_samples: float = np.inf,
    right: FractionsRight | None = None,
) -> Interval:
    """Return the score interval of the area under the ROC curve.

    It holds every true value t that the area is at most `quantile` standard deviations from:
    |area - t| <= quantile sqrt(f V(t)), with the V of Newcombe 2006 (Stat. Med. 25, 559, method 5).
    V supposes the shapes of the distributions, so f enlarges it to the variance in the sample, that
    of DeLong or of Obuchowski, where that is larger. The smaller `prior_samples` is, the fewer
    samples must be ranked wrong until a smaller one counts, too. An area of 0 or 1 counts as if
    half a pair were ranked the other way, so that it is no more certain than its neighbours.

    `right` are what `fractions_right` returns, where that is not of the scores: its means over
    several rankings of the same samples give the interval of their mean area.
    """
    quantile = sample.quantile if quantile is None else quantile
    area, variance, lenses, non_lenses = _auc_moments(sample, right)
    half_a_pair = 0.5 / (lenses * non_lenses)
    inside = float(np.clip(area, half_a_pair, 1 - half_a_pair))

    found = variance / _newcombe_variance(inside, lenses, non_lenses)
    wrong = min(lenses, non_lenses) * min(inside, 1 - inside)
    supposed = 1 / (1 + wrong / prior_samples)
    factor = max(found, supposed + (1 - supposed) * found)

    def excess(true: float) -> float:
        allowed = quantile**2 * factor * _newcombe_variance(true, lenses, non_lenses)
        return (inside - true) ** 2 - allowed

    low = float(brentq(excess, 0.0, inside))
    high = float(brentq(excess, inside, 1.0))
    return min(low, area), max(high, area)


def _auc_moments(
    sample: ScoredSample, right: FractionsRight | None
) -> tuple[float, float, float, float]:
    """Return the area, its variance, and how many independent samples of each class tell of it."""
    if right is None:
        area, variance = delong(sample.curve)
    else:
        area = float(right[0].mean())
        variance = sum(variance_of_mean(values, np.ones(len(values))) for values in right)
    if sample.groups is None:
        return area, variance, float(sample.curve.lenses), float(sample.curve.non_lenses)

    by_lens, by_non_lens = right or fractions_right(sample.labels, sample.scores)
    of_groups = sample.variance_of_means(by_lens, by_non_lens)
    smaller_class = min(len(by_lens), len(by_non_lens))
    wrong = smaller_class * min(area, 1 - area)
    lenses, non_lenses = sample.sizes(of_groups, variance, wrong)
    return area, of_groups, lenses, non_lenses


def _newcombe_variance(area: float, lenses: float, non_lenses: float) -> float:
    """Return the variance of an area by its true value, the V of Newcombe's method 5."""
    others = (lenses + non_lenses) / 2 - 1
    of_pairs = 1 + others * ((1 - area) / (2 - area) + area / (1 + area))
    return area * (1 - area) * of_pairs / (lenses * non_lenses)


# ---- completeness ----


def completeness_interval(sample: ScoredSample, false_positives: int) -> Interval:
    """Return the interval of the completeness at the threshold of the n-th false positive here.

    This threshold given, the lenses above it are binomial (Wilson 1927, JASA 22, 209). Another
    sample has another threshold: intervals of two samples cannot be compared.
    """
    fraction = float(completeness_before(sample.curve, false_positives))
    number_above = round(fraction * int(sample.curve.lenses))
    return wilson(fraction, sample.sizes_by_number_above[0][number_above], sample.quantile)


def completeness_at_rate_interval(sample: ScoredSample, rate: float) -> Interval:
    """Return the interval of the completeness at a false positive rate.

    The completeness at this sample's threshold is uncertain, and so is the threshold of that rate.
    """
    fraction = float(completeness_at_rate(sample.curve, rate))
    allowed = int(allowed_at_rate(sample.curve, rate))
    low, high = completeness_interval(sample, allowed + 1)

    lowest, highest = wilson(rate, sample.sizes_by_number_above[1][allowed], sample.quantile)
    stricter = float(completeness_at_rate(sample.curve, lowest))
    laxer = float(completeness_at_rate(sample.curve, highest))
    below = np.hypot(fraction - low, fraction - stricter)
    above = np.hypot(high - fraction, laxer - fraction)
    return max(0.0, float(fraction - below)), min(1.0, float(fraction + above))


def wilson(fraction: float, trials: float, quantile: float) -> Interval:
    """Return the interval of a fraction of independent trials (Wilson 1927, JASA 22, 209)."""
    square = quantile**2 / trials
    middle = (fraction + square / 2) / (1 + square)
    half_width = np.sqrt(square * (fraction * (1 - fraction) + square / 4)) / (1 + square)
    return max(0.0, float(middle - half_width)), min(1.0, float(middle + half_width))


def agresti_coull(fraction: float, trials: float, quantile: float) -> Interval:
    """Return the interval of a fraction of independent trials (Agresti & Coull 1998).

    Am. Stat. 52, 119. It has Wilson's middle and is never shorter. Where many samples have about
    the same true fraction, near 0 or 1, Wilson's holds it in as few as 84% of them, this one in 92%
    at least.
    """
    square = quantile**2
    enough = trials + square
    middle = (fraction * trials + square / 2) / enough
    half_width = quantile * np.sqrt(middle * (1 - middle) / enough)
    return max(0.0, float(middle - half_width)), min(1.0, float(middle + half_width))


# ---- average precision ----


def average_precision_interval(sample: ScoredSample) -> Interval:
    """Return the interval of the average precision, on the logit scale.

    Its variance is that of as many trials as there are lenses (Boyd, Eng & Page 2013, ECML, LNCS
    8190, 451, section 3.3), or that of the sample where it is larger.
    """
    precision, variance, lenses = average_precision_moments(sample)
    half_a_lens = 0.5 / lenses
    inside = float(np.clip(precision, 0, 1 - half_a_lens))

    trials = inside * (1 - inside)
    half_width = sample.quantile * np.sqrt(max(variance, trials / lenses)) / trials
    low, high = expit(logit(inside) + np.array([-half_width, half_width]))
    return float(low), max(float(high), precision)


def average_precision_moments(sample: ScoredSample) -> tuple[float, float, float]:
    """Return the average precision, its variance, and how many independent lenses tell of it.

    The variance is that of a sum of what each sample adds, at first order.
    """
    precision = float(average_precision(sample.curve))
    curve = coarsen(sample.curve)
    lenses, non_lenses = float(curve.lenses), float(curve.non_lenses)
    selected = curve.true_positives + curve.false_positives
    # What one more lens, or non-lens, above a position adds to the precision there.
    by_lens = curve.lenses_here * curve.false_positives / selected**2
    by_non_lens = curve.lenses_here * curve.true_positives / selected**2
    lens = curve.true_positives / selected + _sum_from_here(by_lens)
    non_lens = _sum_from_here(by_non_lens) * (-non_lenses / lenses)

    independent = variance_of_mean(lens, curve.lenses_here)
    independent += variance_of_mean(non_lens, curve.non_lenses_here)
    if sample.groups is None:
        return precision, independent, lenses

    positions = np.searchsorted(-curve.thresholds, -sample.scores)
    is_lens = sample.labels == 1
    of_groups = sample.variance_of_means(lens[positions[is_lens]], non_lens[positions[~is_lens]])
    effective = sample.sizes(of_groups, independent, lenses * min(precision, 1 - precision))[0]
    return precision, of_groups, effective


def _sum_from_here(values: np.ndarray) -> np.ndarray:
    """Return the sum of each value and all after it."""
    return np.cumsum(values[::-1])[::-1]
