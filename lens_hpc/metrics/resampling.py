"""Confidence intervals by resampling: the bootstrap of Efron 1979 (Ann. Statist. 7, 1)."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from lens_hpc.metrics.ranking import TAIL, Curve, Interval, interval

Statistic = Callable[[Curve], np.ndarray | float]

REPLICATES = 1000
REPLICATES_AT_ONCE = 50
# With many rows, groups are drawn fewer times, so that it takes about as long.
FEWEST_REPLICATES = REPLICATES // 5
ENTRIES_DRAWN = 2e8
# With more groups than this, several are drawn together.
MOST_GROUPS = 100_000
# A coarse curve keeps this many positions at the top, and as many steps below them.
POSITIONS_KEPT = 4096


# ---- intervals ----


def bootstrap(
    curve: Curve, replicates: Iterator[Curve], statistics: Mapping[str, Statistic]
) -> dict[str, Interval | None]:
    """Return the 95% confidence interval of each statistic of a curve.

    A statistic is a fraction between 0 and 1. Each curve of `replicates` holds several replicates
    along its first axis. The intervals follow from the variance over all of them: intervals by
    their percentiles cover the true value less than 95% of the time in small samples. An interval
    is None where the statistic, or its value in a replicate, is NaN.
    """
    values: dict[str, list[np.ndarray]] = {name: [] for name in statistics}
    for batch in replicates:
        for name, statistic in statistics.items():
            values[name].append(np.asarray(statistic(batch)))

    # The rarer class decides how much a sample can say.
    trials = int(min(curve.lenses, curve.non_lenses))
    intervals: dict[str, Interval | None] = {}
    for name, statistic in statistics.items():
        fraction = float(statistic(curve))
        intervals[name] = _interval_from(np.concatenate(values[name]), fraction, trials)
    return intervals


def _interval_from(replicates: np.ndarray, fraction: float, trials: int) -> Interval | None:
    """Return the interval of a fraction by its values in replicates, None where one is NaN."""
    if len(replicates) < 2 or np.isnan(fraction + replicates.sum()):
        return None

    low, high = interval(fraction, float(replicates.var(ddof=1)), trials)
    if fraction in {0.0, 1.0}:
        # One sample at the top may be enough for this: the replicates without it say more.
        low = min(low, np.quantile(replicates, TAIL))
        high = max(high, np.quantile(replicates, 1 - TAIL))
    return float(low), float(high)


# ---- replicates ----


def bootstrap_samples(curve: Curve, seed: int = 0) -> Iterator[Curve]:
    """Yield curves of samples that are drawn with replacement from each class.

    Each curve that is yielded holds several replicates, along its first axis.
    """
    rng = np.random.default_rng(seed)
    coarse = coarsen(curve)
    lenses = coarse.lenses_here
    non_lenses = coarse.non_lenses_here

    for _ in range(REPLICATES // REPLICATES_AT_ONCE):
        drawn_lenses = _draw(rng, lenses)
        drawn_non_lenses = _draw(rng, non_lenses)
        yield _accumulate(coarse, drawn_lenses, drawn_non_lenses)


def _draw(rng: np.random.Generator, counts: np.ndarray) -> np.ndarray:
    """Draw samples with replacement: how many come from each position, (replicates, T)."""
    total = counts.sum()
    return rng.multinomial(total, counts / total, size=REPLICATES_AT_ONCE)


def bootstrap_groups(
    curve: Curve, labels: np.ndarray, scores: np.ndarray, groups: np.ndarray, seed: int = 0
) -> Iterator[Curve]:
    """Yield curves of groups that are drawn with replacement, each with all of its samples.

    The samples of one group, such as cutouts of one object, are not independent of each other.
    `groups` are (N,) int. Each curve that is yielded holds several replicates, along its first
    axis.
    """
    rng = np.random.default_rng(seed)
    coarse = coarsen(curve)
    size = len(coarse.thresholds)
    groups = groups % MOST_GROUPS
    group_count = len(np.bincount(groups))

    # A cell is a class at a position. Count how many samples each group has in each cell.
    positions = np.searchsorted(-coarse.thresholds, -scores, side="left")
    entries, times = np.unique((groups * 2 + labels) * size + positions, return_counts=True)
    group_of_entry = entries // (2 * size)
    cell_of_entry = entries % (2 * size)

    replicates = int(np.clip(ENTRIES_DRAWN // len(entries), FEWEST_REPLICATES, REPLICATES))
    for _ in range(replicates // REPLICATES_AT_ONCE):
        counts = []
        for _ in range(REPLICATES_AT_ONCE):
            drawn = rng.integers(group_count, size=group_count)
            times_drawn = np.bincount(drawn, minlength=group_count)
            weights = times_drawn[group_of_entry] * times
            counts.append(np.bincount(cell_of_entry, weights=weights, minlength=2 * size))
        by_class = np.array(counts, dtype=np.int64).reshape(REPLICATES_AT_ONCE, 2, size)

        # A replicate without lenses or without non-lenses says nothing.
        has_both = (by_class.sum(axis=2) > 0).all(axis=1)
        kept = by_class[has_both]
        yield _accumulate(coarse, lenses=kept[:, 1], non_lenses=kept[:, 0])


def coarsen(curve: Curve) -> Curve:
    """Return the curve with every position at the top, and steps of about equal size below."""
    size = len(curve.thresholds)
    if size <= 2 * POSITIONS_KEPT:
        return curve

    selected = curve.true_positives + curve.false_positives
    goals = np.linspace(selected[POSITIONS_KEPT], selected[-1], POSITIONS_KEPT + 1)[1:]
    below = np.searchsorted(selected, goals)
    kept = np.unique(np.concatenate([np.arange(POSITIONS_KEPT), below]))
    return Curve(curve.thresholds[kept], curve.true_positives[kept], curve.false_positives[kept])


def _accumulate(curve: Curve, lenses: np.ndarray, non_lenses: np.ndarray) -> Curve:
    """Return a curve with other numbers of samples at the same scores."""
    return Curve(curve.thresholds, np.cumsum(lenses, -1), np.cumsum(non_lenses, -1))
