"""Metrics of a ranking, as lens finders report them: pure functions. NumPy, SciPy and scikit-learn only.

`labels` are (N,) of 1 (lens) and 0, `scores` (N,) with larger meaning more like a lens. All that depends on the ranking
alone is computed from a `Curve`, sorted once; ties share one place in it and never count in our favour. Leading axes of
a curve are replicates of a bootstrap.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
from scipy.special import betaincinv, expit, logit

CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2
REPLICATES = 1000
TOGETHER = 50
MOST_GROUPS = 100_000
# A rate is quoted when so many non-lenses lie above its threshold: it is then known to about a third (1/sqrt(10)).
FALSE_POSITIVES_NEEDED = 10
# Bootstrapped are so many places at the top each on its own, and the rest in so many steps.
PLACES = 4096
CALIBRATION_BINS = 15

Interval = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """The ranking, one entry for each of the T distinct scores, the highest first; (..., T) counts."""

    thresholds: np.ndarray
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


def rank(labels: np.ndarray, scores: np.ndarray) -> Curve:
    """The curve of some scores. ValueError for no samples, for labels that are neither 0 nor 1, and for NaN scores."""
    if not len(labels):
        raise ValueError("there are no samples to rank")
    if ((labels != 0) & (labels != 1)).any():
        raise ValueError("labels must be 0 or 1")
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} of {len(scores)} scores are NaN")
    order = np.argsort(scores)[::-1]
    ordered = scores[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    true_positives = np.cumsum(labels[order] == 1)[last]
    return Curve(ordered[last], true_positives, last + 1 - true_positives)


# ---- the whole ranking ------------------------------------------------------------------------------------------


def auc(curve: Curve) -> np.ndarray:
    """Area under the ROC curve, ties counted half, (...)."""
    before, lenses, non_lenses = _steps(curve)
    return (non_lenses * (2 * before + lenses)).sum(-1) / (2 * curve.lenses * curve.non_lenses)


def delong(curve: Curve) -> tuple[float, float]:
    """Area under the ROC curve, ties counted half, and its variance.

    DeLong, DeLong & Clarke-Pearson 1988 (Biometrics 44, 837), in time N log N (Sun & Xu 2014, IEEE SPL 21, 1389).
    """
    before, lenses, non_lenses = _steps(curve)
    # share of the other class that a sample is ranked right against, at each place
    right_of_lens = (curve.non_lenses - curve.false_positives + non_lenses / 2) / curve.non_lenses
    right_of_non_lens = (before + lenses / 2) / curve.lenses
    area = float(auc(curve))
    return area, _variance(right_of_lens, lenses, area) + _variance(right_of_non_lens, non_lenses, area)


def interval(share: float, variance: float, trials: int) -> Interval:
    """95% confidence interval of an AUC or another share, normal on the logit scale, which keeps it within 0 and 1.

    Where the share is 0 or 1 the variance says nothing: the bound is that of a rate of no successes, or nothing else,
    in so many trials (Clopper & Pearson 1934), as if each sample of the smaller class were one.
    """
    if share in {0.0, 1.0}:
        bound = TAIL ** (1 / trials)
        return (bound, 1.0) if share == 1.0 else (0.0, 1 - bound)
    half_width = NormalDist().inv_cdf(1 - TAIL) * np.sqrt(variance) / (share * (1 - share))
    low, high = expit(logit(share) + np.array([-half_width, half_width]))
    return float(low), float(high)


def partial_auc(curve: Curve, largest_rate: float) -> float:
    """Area left of a false positive rate, scaled to 0.5 by chance and 1 at best (McClish 1989, MDM 9, 190)."""
    false_rate, true_rate = (
        np.concatenate([[0], counts / counts[-1]]) for counts in (curve.false_positives, curve.true_positives)
    )
    inside = np.searchsorted(false_rate, largest_rate, side="right")
    edge = np.interp(largest_rate, false_rate, true_rate)
    area = np.trapezoid(np.append(true_rate[:inside], edge), np.append(false_rate[:inside], largest_rate))
    by_chance = largest_rate**2 / 2
    return float(0.5 * (1 + (area - by_chance) / (largest_rate - by_chance)))


def average_precision(curve: Curve) -> np.ndarray:
    """Precision at each lens, averaged, without interpolation, (...)."""
    _, lenses, _ = _steps(curve)
    above = curve.true_positives + curve.false_positives
    return (lenses * (curve.true_positives / np.maximum(above, 1))).sum(-1) / curve.lenses


# ---- the top of the ranking -------------------------------------------------------------------------------------


def completeness_before(curve: Curve, false_positives: np.ndarray | int) -> np.ndarray:
    """Share of the lenses ranked above the false positive of that number, (...): TPR0 for 1, TPR10 for 10.

    Metcalf et al. 2019 (A&A 625, A119). A lens tied with that false positive does not count. NaN where there are fewer
    non-lenses than that.
    """
    places = (curve.false_positives < np.asarray(false_positives)[..., None]).sum(-1)
    found = np.take_along_axis(curve.true_positives, np.maximum(places - 1, 0)[..., None], -1)[..., 0]
    share = np.where(places > 0, found, 0) / curve.lenses
    return np.where(curve.non_lenses >= false_positives, share, np.nan)


def completeness_at_rate(curve: Curve, rate: float) -> np.ndarray:
    """Share of the lenses found at no more than a false positive rate, (...)."""
    return completeness_before(curve, np.floor(rate * curve.non_lenses * (1 + 1e-12)).astype(np.int64) + 1)


def non_lenses_needed(rate: float) -> int:
    """Non-lenses that a sample must have to say something at a false positive rate."""
    return round(FALSE_POSITIVES_NEEDED / rate)


@dataclass(frozen=True)
class Selection:
    """What comes of taking all candidates above one threshold, in a survey of which lenses are a stated share."""

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
    """The highest threshold that finds a wanted share of the lenses, in a survey of some size and prevalence."""
    wanted = np.ceil(completeness * curve.lenses * (1 - 1e-12))
    place = int(np.searchsorted(curve.true_positives, wanted))
    found, false = int(curve.true_positives[place]), int(curve.false_positives[place])
    share, rate = found / curve.lenses, false / curve.non_lenses
    highest = float(highest_rate(curve.false_positives[place], curve.non_lenses))
    good, bad, worst = prevalence * share, (1 - prevalence) * rate, (1 - prevalence) * highest
    return Selection(
        threshold=float(curve.thresholds[place]),
        true_positives=found,
        false_positives=false,
        completeness=float(share),
        false_positive_rate=float(rate),
        purity=float(good / (good + bad)),
        purity_at_least=float(good / (good + worst)),
        candidates=float(survey_size * (good + bad)),
        candidates_at_most=float(survey_size * (good + worst)),
    )


def highest_rate(false_positives: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """What a rate does not pass, with 95% confidence, when so many came in so many trials (Clopper & Pearson 1934)."""
    others = np.maximum(trials - false_positives, 1e-9)
    return np.asarray(betaincinv(false_positives + 1, others, CONFIDENCE))


# ---- intervals by resampling ------------------------------------------------------------------------------------


def bootstrap(
    curve: Curve, resampled: Iterator[Curve], statistics: dict[str, Callable[[Curve], np.ndarray]]
) -> dict[str, Interval | None]:
    """95% intervals of shares of a curve, by their variance over resampled ones; None for one that is NaN.

    Efron 1979 (Ann. Statist. 7, 1). Percentiles of the replicates hold the truth too rarely in small samples.
    """
    values: dict[str, list[np.ndarray]] = {name: [] for name in statistics}
    for again in resampled:
        for name, statistic in statistics.items():
            values[name].append(statistic(again))
    trials = int(min(curve.lenses, curve.non_lenses))
    intervals: dict[str, Interval | None] = {}
    for name, parts in values.items():
        share, replicates = float(statistics[name](curve)), np.concatenate(parts)
        intervals[name] = None
        if len(replicates) > 1 and not np.isnan(share + replicates.sum()):
            low, high = interval(share, float(replicates.var(ddof=1)), trials)
            if share in {0.0, 1.0}:  # by one sample at the top: the replicates without it say more
                low, high = min(low, np.quantile(replicates, TAIL)), max(high, np.quantile(replicates, 1 - TAIL))
            intervals[name] = (float(low), float(high))
    return intervals


def resample(curve: Curve, seed: int = 0) -> Iterator[Curve]:
    """Curves of samples drawn with replacement from each class, some replicates at a time."""
    rng, small = np.random.default_rng(seed), coarsen(curve)
    _, lenses, non_lenses = _steps(small)
    for _ in range(REPLICATES // TOGETHER):
        yield _curve_of(small, *(rng.multinomial(c.sum(), c / c.sum(), size=TOGETHER) for c in (lenses, non_lenses)))


def resample_groups(
    curve: Curve, labels: np.ndarray, scores: np.ndarray, groups: np.ndarray, seed: int = 0
) -> Iterator[Curve]:
    """Curves of whole groups, (N,) int, drawn with replacement: rows of one are not independent of each other."""
    rng, small = np.random.default_rng(seed), coarsen(curve)
    groups = groups % MOST_GROUPS  # more are put together
    places = np.searchsorted(-small.thresholds, -scores, side="left")  # the first threshold that a score reaches
    count, size = len(np.bincount(groups)), len(small.thresholds)
    entries, times = np.unique((groups * 2 + labels) * size + places, return_counts=True)
    members, cells = entries // (2 * size), entries % (2 * size)
    for _ in range(int(np.clip(2e8 // len(entries), REPLICATES // 5, REPLICATES)) // TOGETHER):
        drawn = (np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(TOGETHER))
        counts = [np.bincount(cells, weights=each[members] * times, minlength=2 * size) for each in drawn]
        both = np.array(counts, dtype=np.int64).reshape(TOGETHER, 2, size)
        both = both[(both.sum(axis=2) > 0).all(axis=1)]  # a replicate without lenses or without non-lenses says nothing
        yield _curve_of(small, both[:, 1], both[:, 0])


def coarsen(curve: Curve) -> Curve:
    """The same curve with every place at the top, and steps of about equally many samples below."""
    size = len(curve.thresholds)
    if size <= 2 * PLACES:
        return curve
    above = curve.true_positives + curve.false_positives
    goals = np.linspace(above[PLACES], above[-1], PLACES + 1)[1:]
    kept = np.unique(np.concatenate([np.arange(PLACES), np.searchsorted(above, goals)]))
    return Curve(curve.thresholds[kept], curve.true_positives[kept], curve.false_positives[kept])


def _curve_of(like: Curve, lenses: np.ndarray, non_lenses: np.ndarray) -> Curve:
    return Curve(like.thresholds, np.cumsum(lenses, -1), np.cumsum(non_lenses, -1))


# ---- two rankings -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """Of two AUCs over the same samples."""

    difference: float
    ci95: Interval
    p_value: float
    """Two-sided, that such a difference comes by chance; NaN where the samples cannot tell."""

    @property
    def shown_p(self) -> str:
        """The p-value as far as it means anything."""
        return "unknown" if np.isnan(self.p_value) else f"{self.p_value:.2g}" if self.p_value >= 1e-12 else "< 1e-12"


def compare(labels: np.ndarray, one: np.ndarray, other: np.ndarray) -> Difference:
    """AUC of one ranking minus that of another over the same samples: the paired test of DeLong et al. 1988."""
    parts = [_right_against(labels, scores) for scores in (one, other)]
    difference = parts[0][0].mean() - parts[1][0].mean()
    variance = sum(
        np.var(first - second, ddof=1) / len(first) if len(first) > 1 else 0.0
        for first, second in zip(*parts, strict=True)
    )
    if variance == 0:
        return Difference(float(difference), (float(difference),) * 2, 1.0 if difference == 0 else np.nan)
    normal, width = NormalDist(), np.sqrt(variance)
    half_width = normal.inv_cdf(1 - TAIL) * width
    p_value = 2 * normal.cdf(-abs(difference) / width)
    return Difference(float(difference), (float(difference - half_width), float(difference + half_width)), p_value)


def _right_against(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the other class that each lens, and each non-lens, is ranked right against."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    ranks = _mid_ranks(np.concatenate([positive, negative]))
    m, n = len(positive), len(negative)
    return (ranks[:m] - _mid_ranks(positive)) / n, 1 - (ranks[m:] - _mid_ranks(negative)) / m


def _mid_ranks(values: np.ndarray) -> np.ndarray:
    """1-based ranks, tied values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


# ---- probabilities ----------------------------------------------------------------------------------------------


def brier(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean squared difference of probability and label (Brier 1950, MWR 78, 1)."""
    return float(np.square(probabilities - labels).mean())


@dataclass(frozen=True)
class Reliability:
    """Mean probability and share of lenses in bins of equal width over 0 to 1; NaN in an empty one."""

    counts: np.ndarray
    probability: np.ndarray
    lenses: np.ndarray

    @property
    def expected_calibration_error(self) -> float:
        """Mean distance of the two, by the samples in each bin (Naeini et al. 2015, AAAI 29, 2901)."""
        full = self.counts > 0
        gaps = abs(self.probability - self.lenses)[full]
        return float((gaps * self.counts[full]).sum() / self.counts.sum())


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> Reliability:
    """How often a stated probability comes true."""
    bins = np.minimum((probabilities * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    counts, stated, true = (
        np.bincount(bins, weights=weights, minlength=CALIBRATION_BINS) for weights in (None, probabilities, labels)
    )
    with np.errstate(invalid="ignore"):
        return Reliability(counts, stated / counts, true / counts)


def _steps(curve: Curve) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lenses above each place, and the lenses and non-lenses in it; (..., T)."""
    lenses = np.diff(curve.true_positives, prepend=0)
    return curve.true_positives - lenses, lenses, np.diff(curve.false_positives, prepend=0)


def _variance(values: np.ndarray, times: np.ndarray, mean: float) -> float:
    """Variance of the mean of values that come so many times each."""
    count = times.sum()
    return float((times * np.square(values - mean)).sum() / (count - 1) / count) if count > 1 else 0.0
