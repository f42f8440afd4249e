"""The top of the ranking, which is what counts when lenses are rare."""

from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, expit, logit

from lens_hpc.metrics.ranking import CONFIDENCE, Curve
from lens_hpc.metrics.samples import ScoredSample

# A rate is quoted when this many non-lenses lie above its threshold: it is then known to about a
# third (1/sqrt(10)).
FALSE_POSITIVES_NEEDED = 10
# Products of rates and counts that should be whole numbers may miss them by rounding.
ROUNDING = 1e-12


# ---- completeness ----


def completeness_before(curve: Curve, false_positives: np.ndarray | int) -> np.ndarray:
    """Return the fraction of the lenses ranked above the n-th false positive, (...).

    TPR0 is the completeness before false positive 1, TPR10 before false positive 10 (Metcalf et al.
    2019, A&A 625, A119). A lens with the same score as that false positive does not count. The
    result is NaN where there are fewer non-lenses than that.
    """
    number = np.asarray(false_positives)[..., None]
    positions = (curve.false_positives < number).sum(-1)

    last = np.maximum(positions - 1, 0)[..., None]
    lenses_above = np.take_along_axis(curve.true_positives, last, -1)[..., 0]
    found = np.where(positions > 0, lenses_above, 0)
    return np.where(curve.non_lenses >= false_positives, found / curve.lenses, np.nan)


def completeness_at_rate(curve: Curve, rate: float) -> np.ndarray:
    """Return the fraction of the lenses found at no more than a false positive rate, (...)."""
    return completeness_before(curve, allowed_at_rate(curve, rate) + 1)


def allowed_at_rate(curve: Curve, rate: float) -> np.ndarray:
    """Return how many false positives a false positive rate allows, (...)."""
    return np.floor(rate * curve.non_lenses * (1 + ROUNDING)).astype(np.int64)


def non_lenses_needed(rate: float) -> int:
    """Return the number of non-lenses without which nothing is known at a false positive rate."""
    return round(FALSE_POSITIVES_NEEDED / rate)


# ---- a survey in which lenses are rare ----


@dataclass(frozen=True)
class Selection:
    """What comes of taking all candidates above a threshold, in a survey with few lenses."""

    threshold: float
    true_positives: int
    false_positives: int
    completeness: float
    false_positive_rate: float
    purity: float
    purity_at_least: float
    """With 95% confidence, as few lenses and false positives do not pin down their rates."""
    candidates: float
    """To inspect, in the whole survey."""
    candidates_at_most: float
    """With 95% confidence."""


def select(
    sample: ScoredSample, completeness: float, prevalence: float, survey_size: float
) -> Selection:
    """Choose the highest threshold that finds a wanted fraction of the lenses.

    `prevalence` is the fraction of lenses in the survey, `survey_size` its number of objects.
    """
    curve = sample.curve
    wanted = np.ceil(completeness * curve.lenses * (1 - ROUNDING))
    position = int(np.searchsorted(curve.true_positives, wanted))
    true_positives = curve.true_positives[position]
    false_positives = curve.false_positives[position]

    found = true_positives / curve.lenses
    rate = false_positives / curve.non_lenses
    non_lenses = float(sample.sizes_by_number_above[1][false_positives])
    highest = float(highest_rate(rate * non_lenses, non_lenses))

    # As fractions of the survey's objects.
    lenses = prevalence * found
    others = (1 - prevalence) * rate
    others_at_most = (1 - prevalence) * highest
    return Selection(
        threshold=float(curve.thresholds[position]),
        true_positives=int(true_positives),
        false_positives=int(false_positives),
        completeness=float(found),
        false_positive_rate=float(rate),
        purity=float(lenses / (lenses + others)),
        purity_at_least=float(purity_at_least(sample, position, prevalence)),
        candidates=float(survey_size * (lenses + others)),
        candidates_at_most=float(survey_size * (lenses + others_at_most)),
    )


def purity_at_least(
    sample: ScoredSample, positions: np.ndarray | int, prevalence: float
) -> np.ndarray:
    """Return the purity, with 95% confidence, of what lies above positions of the curve, (...).

    In a survey with this fraction of lenses. The threshold is that of the k-th of m lenses, so the
    true completeness C there is distributed as Beta(k, m - k + 1); the false positive rate F is at
    most Beta(FP + 1, n - FP), as Clopper & Pearson have it. The bounds of both are put together
    for log(C / F), from their medians, by the squares of what they add (MOVER: Zou & Donner 2008,
    Stat. Med. 27, 1693). Groups count as `ScoredSample.sizes_by_number_above` has them.
    """
    curve = sample.curve
    true_positives = curve.true_positives[positions].astype(np.int64)
    false_positives = curve.false_positives[positions].astype(np.int64)
    by_lenses, by_non_lenses = sample.sizes_by_number_above
    lenses = by_lenses[true_positives]
    non_lenses = by_non_lenses[false_positives]

    found = true_positives * (lenses / curve.lenses)
    false = false_positives * (non_lenses / curve.non_lenses)

    with np.errstate(divide="ignore", invalid="ignore"):
        # No lens at all above a threshold: its completeness may be 0.
        beta = found, lenses - found + 1
        completeness = np.log(np.where(found > 0, betaincinv(*beta, 0.5), 0))
        lowest = np.log(np.where(found > 0, betaincinv(*beta, 1 - CONFIDENCE), 0))
        rate = np.log(highest_rate(false, non_lenses, 0.5))
        highest = np.log(highest_rate(false, non_lenses))
        ratio = completeness - rate - np.hypot(completeness - lowest, highest - rate)
        ratio = np.where(found > 0, ratio, -np.inf)
    return np.asarray(expit(ratio + logit(prevalence)))


def highest_rate(
    false_positives: np.ndarray, trials: np.ndarray | float, confidence: float = CONFIDENCE
) -> np.ndarray:
    """Return the rate that false positives do not exceed, with 95% confidence.

    This is the one-sided bound of Clopper & Pearson 1934 (Biometrika 26, 404) for a number of them
    in a number of trials.
    """
    others = np.maximum(trials - false_positives, 1e-9)
    return np.asarray(betaincinv(false_positives + 1, others, confidence))
