"""The top of the ranking, which is what counts when lenses are rare."""

from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

from lens_hpc.metrics.ranking import CONFIDENCE, Curve

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
    allowed = np.floor(rate * curve.non_lenses * (1 + ROUNDING)).astype(np.int64)
    return completeness_before(curve, allowed + 1)


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
    """With 95% confidence, as few false positives do not pin down their rate."""
    candidates: float
    """To inspect, in the whole survey."""
    candidates_at_most: float
    """With 95% confidence."""


def select(curve: Curve, completeness: float, prevalence: float, survey_size: float) -> Selection:
    """Choose the highest threshold that finds a wanted fraction of the lenses.

    `prevalence` is the fraction of lenses in the survey, `survey_size` its number of objects.
    """
    wanted = np.ceil(completeness * curve.lenses * (1 - ROUNDING))
    position = int(np.searchsorted(curve.true_positives, wanted))
    true_positives = curve.true_positives[position]
    false_positives = curve.false_positives[position]

    found = true_positives / curve.lenses
    rate = false_positives / curve.non_lenses
    highest = float(highest_rate(false_positives, curve.non_lenses))

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
        purity_at_least=float(lenses / (lenses + others_at_most)),
        candidates=float(survey_size * (lenses + others)),
        candidates_at_most=float(survey_size * (lenses + others_at_most)),
    )


def highest_rate(false_positives: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """Return the rate that false positives do not exceed, with 95% confidence.

    This is the one-sided bound of Clopper & Pearson 1934 (Biometrika 26, 404) for a number of them
    in a number of trials.
    """
    others = np.maximum(trials - false_positives, 1e-9)
    return np.asarray(betaincinv(false_positives + 1, others, CONFIDENCE))
