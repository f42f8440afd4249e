"""Completeness and purity of a survey, of which some objects were graded and most were not.

Of the objects that a model puts first all are graded, of the rest a random slice. An object that
had the chance p of being graded stands for 1 / p objects of the survey (Horvitz & Thompson 1952,
JASA 47, 663), and a share is the ratio of two such totals.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import gamma

from lens_hpc.metrics.ranking import TAIL, Interval

# Two distributions are combined at so many steps of equal probability each.
STEPS = 200


@dataclass(frozen=True)
class Estimate:
    """A number of the whole survey, as a sample tells it."""

    value: float
    ci95: Interval


@dataclass(frozen=True)
class SurveyEstimate:
    """What a sample tells of a survey, and of a selection of its objects; None: it tells nothing.

    It does so of completeness where it has no lens, or nothing that is selected, or nothing that is
    not; of purity without anything selected; and of lenses without anything that is not.
    """

    completeness: Estimate | None
    """Share of the survey's lenses that are selected."""
    purity: Estimate | None
    """Share of lenses among what is selected."""
    lenses: Estimate | None
    """Number of lenses in the survey."""


def estimate_survey(
    is_lens: np.ndarray, is_selected: np.ndarray, inclusion_probability: np.ndarray
) -> SurveyEstimate:
    """Return completeness and purity of a selection, and the survey's lenses, with 95% intervals.

    There is one entry an object of the sample: `is_lens` (n,) bool, `is_selected` (n,) bool, and
    `inclusion_probability` (n,), with which it came into the sample, above 0 and at most 1. All
    that was drawn must be there, whatever it turned out to be.

    The intervals are of this survey as it is: what is sampled with certainty adds nothing to them.
    Nor do errors of the graders, which must be rare compared with lenses: each galaxy of a random
    slice that is taken for a lens looks like 1 / p lenses that were missed. So look at the lenses
    of the slice again. Raise ValueError for a probability that is none.
    """
    if not ((inclusion_probability > 0) & (inclusion_probability <= 1)).all():
        raise ValueError("inclusion probabilities must lie above 0 and be at most 1")

    def count(is_counted: np.ndarray, among: np.ndarray) -> _Total:
        smallest = inclusion_probability[among].min()
        return _count(inclusion_probability[is_counted & among], float(smallest))

    completeness = purity = lenses = None
    has_selected, has_others = is_selected.any(), not is_selected.all()
    if has_selected:
        purity = _share(count(is_lens, is_selected), count(~is_lens, is_selected))
    if has_others:
        lenses = count(is_lens, np.ones_like(is_lens)).estimate()
    if has_selected and has_others:
        completeness = _share(count(is_lens, is_selected), count(is_lens, ~is_selected))
    return SurveyEstimate(completeness, purity, lenses)


@dataclass(frozen=True)
class _Total:
    """How many objects of a kind the survey has: those sampled, and those that are not.

    The latter have the two gamma distributions of Fay & Feuer 1997 (Stat. Med. 16, 791), one for
    the lower limit and one for the upper, with the mean and the variance of Horvitz & Thompson.
    """

    sampled: int
    unsampled: float
    """Their expected number."""
    variance: float
    one_more: tuple[float, float]
    """What one more in the sample, the most improbable, would add to number and variance."""

    @property
    def value(self) -> float:
        """Return the estimate of Horvitz & Thompson."""
        return self.sampled + self.unsampled

    def at_least(self, quantiles: np.ndarray) -> np.ndarray:
        """Return quantiles of the distribution for the lower limit, whole numbers."""
        return self.sampled + np.floor(_gamma(self.unsampled, self.variance, quantiles))

    def at_most(self, quantiles: np.ndarray) -> np.ndarray:
        """Return quantiles of the distribution for the upper limit, whole numbers."""
        mean = self.unsampled + self.one_more[0]
        variance = self.variance + self.one_more[1]
        return self.sampled + np.ceil(_gamma(mean, variance, quantiles))

    def estimate(self) -> Estimate:
        """Return the number with its interval."""
        low, high = self.at_least(np.array(TAIL)), self.at_most(np.array(1 - TAIL))
        return Estimate(self.value, (float(low), float(high)))


def _count(probabilities: np.ndarray, smallest: float) -> _Total:
    """Return the total of a kind by the probabilities (n,) of those that were sampled.

    The most improbable has `smallest`.
    """
    unsampled = (1 - probabilities) / probabilities
    one_more = (1 - smallest) / smallest
    return _Total(
        sampled=len(probabilities),
        unsampled=float(unsampled.sum()),
        variance=float((unsampled / probabilities).sum()),
        one_more=(one_more, one_more / smallest),
    )


def _gamma(mean: float, variance: float, quantiles: np.ndarray) -> np.ndarray:
    """Return quantiles of a gamma distribution; all 0 where its mean is."""
    if mean == 0:
        return np.zeros_like(quantiles)
    return np.asarray(gamma.ppf(quantiles, mean**2 / variance, scale=variance / mean))


def _share(part: _Total, rest: _Total) -> Estimate | None:
    """Return the share of a part, with the melded interval; None where both are 0.

    Fay, Proschan & Brittain 2015 (Biometrics 71, 146): the distribution for the lower limit of the
    one with that for the upper limit of the other.
    """
    if not part.sampled + rest.sampled:
        return None
    quantiles = (np.arange(STEPS) + 0.5) / STEPS
    lowest = _ratios(part.at_least(quantiles), rest.at_most(quantiles))
    highest = _ratios(part.at_most(quantiles), rest.at_least(quantiles))

    # Of the two steps that an end lies between, the outer one is safe.
    low = float(np.quantile(lowest, TAIL, method="lower"))
    high = float(np.quantile(highest, 1 - TAIL, method="higher"))
    return Estimate(part.value / (part.value + rest.value), (low, high))


def _ratios(parts: np.ndarray, rests: np.ndarray) -> np.ndarray:
    """Return the share of each of some parts (n,) with each of some rests (m,), (n, m)."""
    parts = parts[:, np.newaxis]
    return parts / (parts + rests)
