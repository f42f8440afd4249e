"""What a classifier could use instead of the lens: numbers of a cutout, and how well each tells.

A number is judged by a small tree on it alone, cross-validated, so that any way in which it tells
the classes apart counts: higher, lower, in between, missing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lens_hpc import metrics
from lens_hpc.metrics import Interval, ScoredSample

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
# The light around the middle is weighed by a Gaussian of this sigma in units of the cutout's side,
# which is moved to its own centre so many times.
CENTRE_SIGMA = 1 / 12
CENTRE_STEPS = 10
# Of very many numbers, a classifier is trained on those that tell most on their own.
NUMBERS_TO_TRAIN_ON = 64


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


def measure_centres(images: np.ndarray) -> np.ndarray:
    """Measure where the light of cutouts (B, bands, height, width) is centred: (B, 2) float32.

    These are x and y in pixels from the middle of the cutout, of the light of all bands around the
    middle, so that a neighbour does not count.
    """
    bands = images.astype(np.float32)
    every_second = bands[..., ::2, ::2]  # enough for a median
    sky = np.median(every_second, axis=(-2, -1), keepdims=True)
    spread = bands.std(axis=(-2, -1), keepdims=True)
    light = ((bands - sky) / np.where(spread > 0, spread, 1)).sum(axis=1)
    light = np.maximum(light, 0)

    height, width = light.shape[-2:]
    y = np.arange(height) - (height - 1) / 2
    x = np.arange(width) - (width - 1) / 2
    sigma = CENTRE_SIGMA * min(height, width)
    centres = np.zeros((len(light), 2))
    for _ in range(CENTRE_STEPS):
        weights_of_x = np.exp(-np.square((x - centres[:, :1]) / sigma) / 2)
        weights_of_y = np.exp(-np.square((y - centres[:, 1:]) / sigma) / 2)
        along_y = (light @ weights_of_x[..., None])[..., 0] * weights_of_y
        along_x = (weights_of_y[:, None] @ light)[:, 0] * weights_of_x
        total = along_x.sum(axis=1) + np.finfo(np.float32).tiny
        centres = np.column_stack([along_x @ x, along_y @ y]) / total[:, None]
    return centres.astype(np.float32)


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
    that many are drawn: the area under the ROC curve does not depend on the class balance. Of more
    than NUMBERS_TO_TRAIN_ON numbers, those are trained on that alone tell most in training.
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
    groups = None if groups is None else groups[chosen]
    groups_of_folds = _groups_for_folds(labels, groups)

    if numbers.ndim == 1:
        numbers = numbers[:, None]
        model = _make_tree(smaller_class)
    else:
        model = _make_boosted_trees(numbers.shape[1])

    scores = cross_val_predict(
        model,
        _without_gaps(numbers),
        labels,
        groups=groups_of_folds,
        cv=_make_folds(grouped=groups_of_folds is not None),
        method="predict_proba",
    )
    return power_of_scores(labels, scores[:, 1], groups)


def measure_rank_power(
    labels: np.ndarray, values: np.ndarray, groups: np.ndarray | None = None
) -> Power | None:
    """Measure how well the order of (N,) values tells the labels, whether high or low is a lens.

    Missing values are left out. `groups` are (N,) int. This trains nothing and takes no time.
    Return None where a class is too small to tell.
    """
    is_known = ~np.isnan(values)
    labels = labels[is_known]
    values = values[is_known]
    groups = None if groups is None else groups[is_known]
    lenses = (labels == 1).sum()
    non_lenses = (labels == 0).sum()
    if min(lenses, non_lenses) < MINIMUM_ROWS:
        return None

    high_is_lens = power_of_scores(labels, values, groups)
    low_is_lens = power_of_scores(labels, -values, groups)
    return high_is_lens if high_is_lens.auc >= low_is_lens.auc else low_is_lens


def _groups_for_folds(labels: np.ndarray, groups: np.ndarray | None) -> np.ndarray | None:
    """Return the groups, or None if there are so few that a fold would lack a class."""
    if groups is None:
        return None
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


def _make_boosted_trees(number_of_numbers: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.feature_selection import SelectKBest
    from sklearn.pipeline import make_pipeline

    if number_of_numbers <= NUMBERS_TO_TRAIN_ON:
        return HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0)

    small_trees = HistGradientBoostingClassifier(
        max_iter=30, max_leaf_nodes=8, early_stopping=False, random_state=0
    )
    return make_pipeline(SelectKBest(_distance_of_classes, k=NUMBERS_TO_TRAIN_ON), small_trees)


def _distance_of_classes(numbers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return how far apart the means of the two classes are in units of the spread, (F,)."""
    is_lens = labels == 1
    distance = abs(numbers[is_lens].mean(axis=0) - numbers[~is_lens].mean(axis=0))
    spread = numbers.std(axis=0)
    return distance / np.where(spread > 0, spread, 1)


def _without_gaps(numbers: np.ndarray) -> np.ndarray:
    """Return (N, F) numbers with missing ones below all others, where a tree can tell them."""
    is_known = ~np.isnan(numbers)
    low = numbers.min(axis=0, where=is_known, initial=0)
    high = numbers.max(axis=0, where=is_known, initial=0)
    below_all = low - (high - low) - 1
    return np.where(is_known, numbers, below_all)


def power_of_scores(
    labels: np.ndarray, scores: np.ndarray, groups: np.ndarray | None = None
) -> Power:
    """Measure how well (N,) scores rank lenses, label 1, before non-lenses, label 0.

    `groups` (N,) int hold rows that are alike, so that each row of theirs tells less.
    """
    sample = ScoredSample(labels, scores, groups)
    return Power(
        auc=float(metrics.auc(sample.curve)),
        ci95=metrics.auc_interval(sample),
        tpr0=float(metrics.completeness_before(sample.curve, 1)),
    )
