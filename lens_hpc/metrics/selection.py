"""What a selection finds: the threshold of a rate, and a found fraction with its interval."""

import numpy as np
from scipy.special import betaincinv
from scipy.stats import binom

from lens_hpc.metrics.ranking import CONFIDENCE, Interval
from lens_hpc.metrics.top import ROUNDING

STEPS = 1000
"""Into which each side of an interval is divided: its ends are right to a few 1e-4."""
JUST_ABOVE = 1 + 1e-7
"""Probabilities that differ by less are equal."""


def threshold_of_rate(scores: np.ndarray, rate: float) -> float:
    """Return the lowest threshold that no more than a share `rate` of scores (N,) reach.

    What has a score of at least the threshold is selected. Equal scores stay together.
    """
    allowed = int(rate * len(scores) * (1 + ROUNDING))
    if allowed >= len(scores):
        return -np.inf
    first_refused = np.sort(scores)[::-1][allowed]
    return float(np.nextafter(first_refused, np.inf, dtype=scores.dtype))


def blaker(found: int, trials: int) -> Interval:
    """Return the 95% interval of a fraction of independent trials (Blaker 2000).

    Can. J. Stat. 28, 783. It holds the true fraction in 95% of all samples at least, whatever that
    is and from one trial on, and lies within that of Clopper and Pearson, which is too wide for
    twenty trials. Where many cells of a map have a fraction near 0 or 1, Wilson's would hold it in
    as few as 84% of them.
    """
    return _lowest(found, trials), 1 - _lowest(trials - found, trials)


def _lowest(found: int, trials: int) -> float:
    """Return the lower end: the first fraction that so many found do not speak against."""
    if found == 0:
        return 0.0
    outermost = betaincinv(found, trials - found + 1, (1 - CONFIDENCE) / 2)
    fractions = np.linspace(outermost, found / trials, STEPS)

    # What is as improbable as this, or more, on this side and on the other.
    above = binom.sf(found - 1, trials, fractions)
    counts = binom.ppf(above / JUST_ABOVE, trials, fractions) - 1
    other_side = np.where(counts >= 0, binom.cdf(counts, trials, fractions), 0)
    is_possible = above + other_side > 1 - CONFIDENCE

    # The end lies between two steps, and the outer one is safe.
    first = int(np.argmax(is_possible))
    return float(fractions[max(first - 1, 0)])
