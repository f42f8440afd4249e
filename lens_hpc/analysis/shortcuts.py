"""What a classifier could use instead of the lens: numbers that a cutout betrays itself by, and how well each does.

A number is judged by a small tree on it alone, cross-validated, so that any way in which it tells the classes apart
counts: higher, lower, in between, missing.
"""

from dataclasses import dataclass

import numpy as np

from lens_hpc.analysis import metrics
from lens_hpc.analysis.metrics import Interval

FOLDS = 5
ENOUGH_ROWS = 30
MOST_ROWS = 50_000
# What an object is like, and what its exposure is like: the second should not depend on the class at all.
OF_THE_OBJECT = ("total flux", "peak")
OF_THE_EXPOSURE = ("sky level", "sky rms", "blank lines")
# Radius at which the corners begin, where 1 is the middle of an edge.
CORNERS = 1.2


@dataclass(frozen=True)
class Power:
    """How well some numbers alone rank lenses before non-lenses."""

    auc: float
    ci95: Interval
    tpr0: float

    def __str__(self) -> str:
        return f"AUC {self.auc:.3f} [{self.ci95[0]:.3f}, {self.ci95[1]:.3f}], TPR0 {self.tpr0:.3f}"


def measure(images: np.ndarray) -> np.ndarray:
    """Numbers of cutouts (B, bands, height, width): (B, bands, 5) float32, in the order of OF_THE_OBJECT and _EXPOSURE.

    The sky is looked at in the corners, which have least of the galaxy's light: its rms is 1.48 times the median
    absolute deviation, its level the mean within three of those from the median. A line is blank when it is constant.
    """
    height, width = images.shape[-2:]
    y, x = (abs(np.arange(size) - (size - 1) / 2) / (size / 2) for size in (height, width))
    pixels = images[..., np.hypot(y[:, None], x) > CORNERS].astype(np.float32)
    distance = abs(pixels - np.median(pixels, axis=-1, keepdims=True))
    rms = 1.48 * np.median(distance, axis=-1)
    level = pixels.mean(axis=-1, where=distance <= 3 * rms[..., None])
    blank = [(images.max(axis) == images.min(axis)).mean(axis=-1) for axis in (-2, -1)]
    area = height * width
    return np.stack(
        [
            images.sum(axis=(-2, -1), dtype=np.float64) - area * level,
            images.max(axis=(-2, -1)) - level,
            level,
            rms,
            (blank[0] + blank[1]) / 2,
        ],
        axis=-1,
        dtype=np.float32,
        casting="unsafe",
    )


def power(labels: np.ndarray, numbers: np.ndarray, groups: np.ndarray | None) -> Power | None:
    """Of (N, F) numbers together, NaN for missing, or of (N,) one alone; None where a class is too small to tell.

    Of a class with more than half of MOST_ROWS, so many are drawn: the area under the ROC does not mind.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # takes a second to import, which pack does not need
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    rng = np.random.default_rng(0)
    classes = [rng.permutation(np.flatnonzero(labels == label))[: MOST_ROWS // 2] for label in (0, 1)]
    chosen = np.sort(np.concatenate(classes))
    labels, numbers, groups = labels[chosen], numbers[chosen], None if groups is None else groups[chosen]
    smaller = min(map(len, classes))
    if smaller < ENOUGH_ROWS:
        return None
    if groups is not None and min(len(np.unique(groups[labels == label])) for label in (0, 1)) < 2 * FOLDS:
        groups = None  # a fold would lack a class
    alone = numbers.ndim == 1
    numbers = _without_gaps(numbers.reshape(len(labels), -1))
    if alone:
        model = DecisionTreeClassifier(max_leaf_nodes=8, min_samples_leaf=max(smaller // 50, 5), random_state=0)
    else:
        model = HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0)
    folds = (StratifiedKFold if groups is None else StratifiedGroupKFold)(FOLDS, shuffle=True, random_state=0)
    scores = cross_val_predict(model, numbers, labels, groups=groups, cv=folds, method="predict_proba")[:, 1]
    return _power_of_ranking(labels, scores)


def _without_gaps(numbers: np.ndarray) -> np.ndarray:
    """(N, F) with missing values below all others, which a tree can tell from them."""
    known = ~np.isnan(numbers)
    low, high = numbers.min(axis=0, where=known, initial=0), numbers.max(axis=0, where=known, initial=0)
    return np.where(known, numbers, low - (high - low) - 1)


def power_of_rank(labels: np.ndarray, values: np.ndarray) -> Power | None:
    """Of (N,) values by their order alone, higher or lower, missing ones left out: what can be told in no time."""
    known = ~np.isnan(values)
    labels, values = labels[known], values[known]
    if min((labels == 1).sum(), (labels == 0).sum()) < ENOUGH_ROWS:
        return None
    return max((_power_of_ranking(labels, sign * values) for sign in (1, -1)), key=lambda power: power.auc)


def _power_of_ranking(labels: np.ndarray, scores: np.ndarray) -> Power:
    curve = metrics.rank(labels, scores)
    area, variance = metrics.delong(curve)
    smaller = int(min(curve.lenses, curve.non_lenses))
    return Power(area, metrics.interval(area, variance, smaller), float(metrics.completeness_before(curve, 1)))
