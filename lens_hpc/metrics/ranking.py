"""The ranking of labelled samples by their scores, and what describes it from top to bottom.

`labels` are (N,) of 1 (lens) and 0 (non-lens), `scores` (N,) with larger values meaning more like
a lens. Everything that depends on the ranking alone is computed from a `Curve`, which is sorted
once. Samples with equal scores share one position in it, and never count in our favour. Leading
axes of a curve are replicates of a bootstrap.
"""

from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
from scipy.special import expit, logit

CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2

Interval = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """The ranking: one position for each of the T distinct scores, the highest first.

    Both counts are (..., T).
    """

    thresholds: np.ndarray
    """The distinct scores, (T,)."""
    true_positives: np.ndarray
    """Lenses with this score or a higher one."""
    false_positives: np.ndarray
    """Non-lenses with this score or a higher one."""

    @cached_property
    def lenses(self) -> np.ndarray:
        """Number of lenses, (...)."""
        return self.true_positives[..., -1]

    @cached_property
    def non_lenses(self) -> np.ndarray:
        """Number of non-lenses, (...)."""
        return self.false_positives[..., -1]

    # The next two are not kept: they would double the memory of a ranking of ten million samples.

    @property
    def lenses_here(self) -> np.ndarray:
        """Lenses with exactly this score, (..., T)."""
        return np.diff(self.true_positives, prepend=0)

    @property
    def non_lenses_here(self) -> np.ndarray:
        """Non-lenses with exactly this score, (..., T)."""
        return np.diff(self.false_positives, prepend=0)


def rank(labels: np.ndarray, scores: np.ndarray) -> Curve:
    """Rank samples by their scores.

    Raise ValueError when there are no samples, when a label is neither 0 nor 1, and when a score
    is NaN.
    """
    if not len(labels):
        raise ValueError("there are no samples to rank")
    if ((labels != 0) & (labels != 1)).any():
        raise ValueError("labels must be 0 or 1")
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} of {len(scores)} scores are NaN")

    order = np.argsort(scores)[::-1]
    ordered = scores[order]

    # Equal scores become one position: that of the last of them.
    differs_from_next = np.append(ordered[1:] != ordered[:-1], True)
    last = np.flatnonzero(differs_from_next)
    true_positives = np.cumsum(labels[order] == 1)[last]
    return Curve(ordered[last], true_positives, last + 1 - true_positives)


# ---- area under the ROC curve ----


def auc(curve: Curve) -> np.ndarray:
    """Return the area under the ROC curve, ties counted half, (...)."""
    lenses = curve.lenses_here
    lenses_above = curve.true_positives - lenses

    doubled_wins = curve.non_lenses_here * (2 * lenses_above + lenses)
    return doubled_wins.sum(-1) / (2 * curve.lenses * curve.non_lenses)


def delong(curve: Curve) -> tuple[float, float]:
    """Return the area under the ROC curve, ties counted half, and its variance.

    DeLong, DeLong & Clarke-Pearson 1988 (Biometrics 44, 837), in time N log N (Sun & Xu 2014,
    IEEE SPL 21, 1389).
    """
    area = float(auc(curve))
    variance_of_lenses = variance_of_mean(_right_for_lens(curve), curve.lenses_here)
    variance_of_non_lenses = variance_of_mean(_right_for_non_lens(curve), curve.non_lenses_here)
    return area, variance_of_lenses + variance_of_non_lenses


def _right_for_lens(curve: Curve) -> np.ndarray:
    """Return the fraction of the non-lenses that a lens with each score is ranked right against."""
    non_lenses_below = curve.non_lenses - curve.false_positives
    return (non_lenses_below + curve.non_lenses_here / 2) / curve.non_lenses


def _right_for_non_lens(curve: Curve) -> np.ndarray:
    """Return the fraction of the lenses that a non-lens with each score is ranked right against."""
    lenses = curve.lenses_here
    lenses_above = curve.true_positives - lenses
    return (lenses_above + lenses / 2) / curve.lenses


def fractions_right(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the fraction of the other class that each sample is ranked right against.

    First for each lens, then for each non-lens; ties count half. The mean of each is the AUC.
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


def partial_auc(curve: Curve, largest_rate: float) -> float:
    """Return the area left of a false positive rate, scaled to 0.5 by chance and 1 at best.

    McClish 1989 (MDM 9, 190).
    """
    false_rate = np.append(0, curve.false_positives / curve.non_lenses)
    true_rate = np.append(0, curve.true_positives / curve.lenses)

    inside = np.searchsorted(false_rate, largest_rate, side="right")
    true_rate_at_edge = np.interp(largest_rate, false_rate, true_rate)
    area = np.trapezoid(
        np.append(true_rate[:inside], true_rate_at_edge),
        np.append(false_rate[:inside], largest_rate),
    )

    area_by_chance = largest_rate**2 / 2
    above_chance = (area - area_by_chance) / (largest_rate - area_by_chance)
    return float(0.5 * (1 + above_chance))


# ---- precision ----


def average_precision(curve: Curve) -> np.ndarray:
    """Return the mean over the lenses of the precision at each, without interpolation, (...)."""
    selected = curve.true_positives + curve.false_positives
    # In a replicate of a bootstrap, nothing at all may have been drawn from the top.
    precision = curve.true_positives / np.maximum(selected, 1)
    return (curve.lenses_here * precision).sum(-1) / curve.lenses


# ---- intervals ----


def interval(fraction: float, variance: float, trials: int) -> Interval:
    """Return the 95% confidence interval of an AUC or another fraction from its variance.

    The interval is normal on the logit scale, which keeps it within 0 and 1. Where the fraction is
    0 or 1, the variance says nothing: the bound is then that of a rate of no successes, or of
    nothing else, in a number of trials (Clopper & Pearson 1934), as if each sample of the smaller
    class were one.
    """
    if fraction in {0.0, 1.0}:
        bound = TAIL ** (1 / trials)
        return (bound, 1.0) if fraction == 1.0 else (0.0, 1 - bound)

    normal_quantile = NormalDist().inv_cdf(1 - TAIL)
    half_width = normal_quantile * np.sqrt(variance) / (fraction * (1 - fraction))
    low, high = expit(logit(fraction) + np.array([-half_width, half_width]))
    return float(low), float(high)


def variance_of_mean(values: np.ndarray, counts: np.ndarray) -> float:
    """Return the variance of the mean of values, each of which occurs a number of times."""
    count = counts.sum()
    if count < 2:
        return 0.0
    mean = (counts * values).sum() / count
    squares = (counts * np.square(values - mean)).sum()
    return float(squares / (count - 1) / count)
