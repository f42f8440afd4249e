"""Metrics of a ranking, as lens finders report them. NumPy and scikit-learn only.

`labels` are (N,) of 1 (lens) and 0, `scores` (N,) with larger meaning more like a lens. Ties never count in our favour.
"""

from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Metrics:
    """What metrics.json holds."""

    n: int
    n_lenses: int
    auc: float
    auc_ci95: tuple[float, float]
    tpr0: float
    tpr10: float | None
    average_precision: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def evaluate(labels: np.ndarray, scores: np.ndarray) -> Metrics:
    """All metrics. ValueError unless both classes are there and all scores are numbers."""
    lenses = int((labels == 1).sum())
    if lenses in {0, len(labels)} or ((labels != 0) & (labels != 1)).any():
        raise ValueError(f"metrics need lenses and non-lenses: {lenses} of {len(labels)} are lenses")
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} of {len(scores)} scores are NaN")
    auc, variance = delong(labels, scores)
    return Metrics(
        n=len(labels),
        n_lenses=lenses,
        auc=auc,
        auc_ci95=auc_interval(auc, variance, min(lenses, len(labels) - lenses)),
        tpr0=true_positive_rate_before(labels, scores, 1) or 0.0,
        tpr10=true_positive_rate_before(labels, scores, 10),
        average_precision=float(average_precision_score(labels, scores)),
    )


def delong(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Area under the ROC curve, ties counted half, and its variance.

    DeLong, DeLong & Clarke-Pearson 1988 (Biometrics 44, 837) by mid-ranks (Sun & Xu 2014, IEEE SPL 21, 1389).
    """
    positive, negative = scores[labels == 1], scores[labels == 0]
    ranks = _mid_ranks(np.concatenate([positive, negative]))
    m, n = len(positive), len(negative)
    # share of the other class that each sample is ranked right against
    v_positive = (ranks[:m] - _mid_ranks(positive)) / n
    v_negative = 1 - (ranks[m:] - _mid_ranks(negative)) / m
    spread = [values.var(ddof=1) / len(values) if len(values) > 1 else 0.0 for values in (v_positive, v_negative)]
    return float(v_positive.mean()), float(sum(spread))


def auc_interval(auc: float, variance: float, smaller_class: int) -> tuple[float, float]:
    """95% confidence interval of an AUC, normal on the logit scale, which keeps it within 0 and 1.

    Where the ranking is perfect the variance says nothing: the bound is that of a rate of `smaller_class` successes out
    of as many (Clopper & Pearson 1934), as if each lens were one trial.
    """
    tail = (1 - CONFIDENCE) / 2
    if auc in {0.0, 1.0}:
        bound = tail ** (1 / smaller_class)
        return (bound, 1.0) if auc == 1.0 else (0.0, 1 - bound)
    logit = np.log(auc / (1 - auc))
    half_width = NormalDist().inv_cdf(1 - tail) * np.sqrt(variance) / (auc * (1 - auc))
    low, high = 1 / (1 + np.exp(-(logit + np.array([-half_width, half_width]))))
    return float(low), float(high)


def true_positive_rate_before(labels: np.ndarray, scores: np.ndarray, false_positives: int) -> float | None:
    """Share of the lenses ranked above the false positive of that number: TPR0 for 1, TPR10 for 10.

    Metcalf et al. 2019 (A&A 625, A119). A lens tied with that false positive does not count. None where there are fewer
    non-lenses than that.
    """
    negatives = np.sort(scores[labels == 0])
    if len(negatives) < false_positives:
        return None
    return float((scores[labels == 1] > negatives[-false_positives]).mean())


def _mid_ranks(values: np.ndarray) -> np.ndarray:
    """1-based ranks, tied values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]
