"""What a classifier could use instead of the lens: numbers of a cutout, and how well each tells.

A number is judged by a small tree on it alone, cross-validated, so that any way in which it tells
the classes apart counts: higher, lower, in between, missing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lens_hpc import metrics
from lens_hpc.metrics import Interval

FOLDS = 5
# A class with fewer rows cannot be judged.
MINIMUM_ROWS = 30
# More rows would not change an AUC, but take long to train on.
MAXIMUM_ROWS = 50_000
# What an object is like, and what its exposure is like: the second should not depend on the class.
OBJECT_NUMBERS = ("total flux", "peak")
EXPOSURE_NUMBERS = ("sky level", "sky rms", "blank lines")
# Radius at which the corners begin, where 1 is the middle of an edge.
CORNER_RADIUS = 1.2
# Standard deviation of a normal distribution in units of its median absolute deviation.
SIGMA_PER_DEVIATION = 1.48
CLIP_SIGMAS = 3


# ---- numbers of cutouts ----


def measure_cutouts(images: np.ndarray) -> np.ndarray:
    """Measure cutouts (B, bands, height, width): (B, bands, 5) float32.

    The numbers are those of OBJECT_NUMBERS, then EXPOSURE_NUMBERS. The sky is measured in the
    corners, which have least of the galaxy's light: its rms is 1.48 times the median absolute
    deviation, its level the mean within three of those from the median. A line is blank when it is
    constant.
    """
    height, width = images.shape[-2:]
    corners = images[..., _is_corner(height, width)]
    pixels = corners.astype(np.float32)
    median = np.median(pixels, axis=-1, keepdims=True)
    deviation = abs(pixels - median)
    sky_rms = SIGMA_PER_DEVIATION * np.median(deviation, axis=-1)
    is_sky = deviation <= CLIP_SIGMAS * sky_rms[..., None]
    sky_level = pixels.mean(axis=-1, where=is_sky)

    sum_of_pixels = images.sum(axis=(-2, -1), dtype=np.float64)
    total_flux = sum_of_pixels - height * width * sky_level
    peak = images.max(axis=(-2, -1)) - sky_level

    blank_columns = _share_of_constant(images, axis=-2)
    blank_rows = _share_of_constant(images, axis=-1)
    blank_lines = (blank_columns + blank_rows) / 2

    numbers = [total_flux, peak, sky_level, sky_rms, blank_lines]
    return np.stack(numbers, axis=-1, dtype=np.float32, casting="unsafe")


def _is_corner(height: int, width: int) -> np.ndarray:
    """Return which pixels are in the corners, (height, width)."""
    y = _distances_from_middle(height)
    x = _distances_from_middle(width)
    radius = np.hypot(y[:, None], x)
    return radius > CORNER_RADIUS


def _distances_from_middle(pixels: int) -> np.ndarray:
    """Return the distance of each pixel of a line, where the edge of the line is at 1."""
    middle = (pixels - 1) / 2
    return abs(np.arange(pixels) - middle) / (pixels / 2)


def _share_of_constant(images: np.ndarray, axis: int) -> np.ndarray:
    """Return which share of the lines along an axis is constant, (B, bands)."""
    is_constant = images.max(axis) == images.min(axis)
    return is_constant.mean(axis=-1)


# ---- how well numbers tell the classes ----


@dataclass(frozen=True)
class Power:
    """How well some numbers alone rank lenses before non-lenses."""

    auc: float
    ci95: Interval
    tpr0: float

    def __str__(self) -> str:
        low, high = self.ci95
        return f"AUC {self.auc:.3f} [{low:.3f}, {high:.3f}], TPR0 {self.tpr0:.3f}"


def measure_power(
    labels: np.ndarray, numbers: np.ndarray, groups: np.ndarray | None
) -> Power | None:
    """Measure how well (N, F) numbers together, or (N,) alone, tell the labels 1 and 0.

    NaN means missing. Rows of one of the (N,) `groups` are never both trained on and ranked.
    Return None where a class is too small to tell. Of a class with more than half of MAXIMUM_ROWS
    that many are drawn: the area under the ROC curve does not depend on the class balance.
    """
    # It takes a second to import, which packing does not need.
    from sklearn.model_selection import cross_val_predict

    rng = np.random.default_rng(0)
    rows_of_classes = []
    for label in (0, 1):
        rows_of_class = np.flatnonzero(labels == label)
        shuffled = rng.permutation(rows_of_class)
        rows_of_classes.append(shuffled[: MAXIMUM_ROWS // 2])
    smaller_class = min(map(len, rows_of_classes))
    if smaller_class < MINIMUM_ROWS:
        return None

    chosen = np.sort(np.concatenate(rows_of_classes))
    labels = labels[chosen]
    numbers = numbers[chosen]
    if groups is not None:
        groups = _groups_for_folds(labels, groups[chosen])

    if numbers.ndim == 1:
        numbers = numbers[:, None]
        model = _make_tree(smaller_class)
    else:
        model = _make_boosted_trees()

    scores = cross_val_predict(
        model,
        _without_gaps(numbers),
        labels,
        groups=groups,
        cv=_make_folds(grouped=groups is not None),
        method="predict_proba",
    )
    return _power_of_scores(labels, scores[:, 1])


def measure_rank_power(labels: np.ndarray, values: np.ndarray) -> Power | None:
    """Measure how well the order of (N,) values tells the labels, whether high or low is a lens.

    Missing values are left out. This trains nothing and takes no time. Return None where a class
    is too small to tell.
    """
    is_known = ~np.isnan(values)
    labels = labels[is_known]
    values = values[is_known]
    lenses = (labels == 1).sum()
    non_lenses = (labels == 0).sum()
    if min(lenses, non_lenses) < MINIMUM_ROWS:
        return None

    high_is_lens = _power_of_scores(labels, values)
    low_is_lens = _power_of_scores(labels, -values)
    return high_is_lens if high_is_lens.auc >= low_is_lens.auc else low_is_lens


def _groups_for_folds(labels: np.ndarray, groups: np.ndarray) -> np.ndarray | None:
    """Return the groups, or None if there are so few that a fold would lack a class."""
    for label in (0, 1):
        groups_of_class = np.unique(groups[labels == label])
        if len(groups_of_class) < 2 * FOLDS:
            return None
    return groups


def _make_folds(grouped: bool) -> Any:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    kind = StratifiedGroupKFold if grouped else StratifiedKFold
    return kind(FOLDS, shuffle=True, random_state=0)


def _make_tree(smaller_class: int) -> Any:
    """Return a small tree, whose leaves are large enough not to learn single rows by heart."""
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(
        max_leaf_nodes=8, min_samples_leaf=max(smaller_class // 50, 5), random_state=0
    )


def _make_boosted_trees() -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0)


def _without_gaps(numbers: np.ndarray) -> np.ndarray:
    """Return (N, F) numbers with missing ones below all others, where a tree can tell them."""
    is_known = ~np.isnan(numbers)
    low = numbers.min(axis=0, where=is_known, initial=0)
    high = numbers.max(axis=0, where=is_known, initial=0)
    below_all = low - (high - low) - 1
    return np.where(is_known, numbers, below_all)


def _power_of_scores(labels: np.ndarray, scores: np.ndarray) -> Power:
    curve = metrics.rank(labels, scores)
    area, variance = metrics.delong(curve)
    smaller_class = int(min(curve.lenses, curve.non_lenses))
    return Power(
        auc=area,
        ci95=metrics.interval(area, variance, smaller_class),
        tpr0=float(metrics.completeness_before(curve, 1)),
    )
