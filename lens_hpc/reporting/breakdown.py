"""An evaluation broken down by what is known of the objects: their class, origin or field."""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from lens_hpc.dataset.positions import find_position_columns
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.metrics import (
    Curve,
    Interval,
    ScoredSample,
    allowed_at_rate,
    auc,
    auc_interval,
    non_lenses_needed,
    share_interval,
)
from lens_hpc.reporting.too_few import FEWEST_FOR_SHARE, too_few_for_interval

# Columns with so many different values are chosen where the user names none.
FEWEST_VALUES, MOST_VALUES = 2, 12
MOST_CHOSEN = 6
# Numbers of more different values are put into bins of equal count.
BINS = 5
MISSING = "missing"
RATE = 1e-2
FEWEST_FOR_AUC = 5


# ---- columns ----


@dataclass(frozen=True)
class Column:
    """A column of a few values."""

    codes: np.ndarray
    """Number of the value of each row, (N,) int16."""
    names: list[str]
    """Of the values, by their number."""


def choose_columns(split: Split, by: Collection[str] | None = None) -> dict[str, Column]:
    """Return the columns by which an evaluation of a split is broken down, by their names.

    They are those of `by`, kept columns, columns of the truth or features; without it, the kept
    columns that have from 2 to 12 different values and are not the label under another name. Raise
    UserError for a name that the dataset does not have.
    """
    kept = split.kept_columns()
    if by is None:
        return _columns_of_few_values(kept, split)

    chosen = {}
    truth = split.truth().select_dtypes("number")
    for name in by:
        if name in kept.columns:
            values = kept[name]
        elif name in truth.columns:
            values = truth[name]
        elif name in split.manifest.features:
            number = split.manifest.features.index(name)
            values = pd.Series(split.take("features", np.arange(len(split)))[:, number])
        else:
            known = [*kept.columns, *truth.columns, *split.manifest.features]
            raise UserError(
                f"by: {name!r} is no column of {split.dataset}, which has: "
                f"{', '.join(known) or 'none'}. Name it in columns.keep of the recipe, and pack "
                "the dataset again"
            )
        chosen[name] = make_column(values)
    return chosen


def _columns_of_few_values(kept: pd.DataFrame, split: Split) -> dict[str, Column]:
    labels = split.take("labels", np.arange(len(split)))
    positions = find_position_columns(kept.columns) or ()
    chosen: dict[str, Column] = {}
    for name in kept.columns:
        if name in positions or len(chosen) == MOST_CHOSEN:
            continue
        if not FEWEST_VALUES <= kept[name].nunique(dropna=False) <= MOST_VALUES:
            continue
        column = make_column(kept[name])
        if not _is_the_label(column, labels):
            chosen[name] = column
    return chosen


def _is_the_label(column: Column, labels: np.ndarray) -> bool:
    """Whether each class has a single value, which the other does not have."""
    of_lenses = np.unique(column.codes[labels == 1])
    of_others = np.unique(column.codes[labels == 0])
    return len(of_lenses) == len(of_others) == 1 and of_lenses[0] != of_others[0]


def make_column(values: pd.Series) -> Column:
    """Return a column of few values: numbers in bins of equal count, the rarest texts as one.

    What is missing is a value of its own, the last one.
    """
    is_boolean = pd.api.types.is_bool_dtype(values.dtype)
    if pd.api.types.is_numeric_dtype(values.dtype) and not is_boolean:
        codes, names = _name_numbers(values.to_numpy(dtype=np.float64, na_value=np.nan))
    else:
        codes, names = _name_texts(values)

    codes = codes.astype(np.int16)
    is_missing = codes < 0
    if is_missing.any():
        codes[is_missing] = len(names)
        names.append(MISSING)
    return Column(codes, names)


def _name_numbers(numbers: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return the value of each of (N,) numbers, -1 where missing, and the values in their order."""
    numbers = np.where(np.isfinite(numbers), numbers, np.nan)
    different = np.unique(numbers[~np.isnan(numbers)])
    if len(different) <= MOST_VALUES:
        codes = np.searchsorted(different, numbers)
        return np.where(np.isnan(numbers), -1, codes), [f"{value:g}" for value in different]

    # Where many are equal, there are fewer bins.
    edges = np.unique(np.nanquantile(numbers, np.linspace(0, 1, BINS + 1)))
    codes = np.searchsorted(edges[1:-1], numbers, side="right")
    names = [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)]
    return np.where(np.isnan(numbers), -1, codes), names


def _name_texts(values: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Return the value of each of (N,) texts, -1 where missing; the most frequent is the first."""
    codes, found = pd.factorize(values)
    names = np.array([str(value) for value in found], dtype=object)
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    # Among equally frequent ones, in the order of the alphabet.
    order = sorted(range(len(names)), key=lambda code: (-counts[code], names[code]))

    shown = list(names[order])
    if len(shown) > MOST_VALUES:
        rare = len(shown) - MOST_VALUES + 1
        shown = [*shown[:-rare], f"{rare:,} others"]
    places = np.empty(len(names) + 1, dtype=np.int64)
    places[order] = np.minimum(np.arange(len(names)), len(shown) - 1)
    places[-1] = -1
    return places[codes], shown


# ---- what is said of each value ----


@dataclass(frozen=True)
class ShareAbove:
    """How many lenses, or non-lenses, lie above a threshold."""

    above: int
    total: int
    ci95: Interval | None
    """Of the share, at this threshold; None where there are too few."""

    @property
    def share(self) -> float:
        """The share that lies above."""
        return self.above / self.total

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "above": self.above,
            "of": self.total,
            "share": self.share,
            "share_ci95": self.ci95,
        }


@dataclass(frozen=True)
class Part:
    """What an evaluation says of the samples that have one value of a column."""

    value: str
    lenses: int
    non_lenses: int
    against: str
    """Where the value has one class alone, what its AUC is against."""
    auc: float
    auc_ci95: Interval | None
    why_no_interval: str
    found: ShareAbove | None
    """Of its lenses, those above the threshold at which half of all lenses are found."""
    false_alarms: ShareAbove | None
    """Of its non-lenses, those above that threshold."""
    found_at_rate: ShareAbove | None
    """Of its lenses, those above the threshold of a false positive rate of 1% of all."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        shares = {
            "found_at_completeness_0.5": self.found,
            "false_alarms_at_completeness_0.5": self.false_alarms,
            "tpr_at_fpr_1e-2": self.found_at_rate,
        }
        plain = {key: share and share.as_dict() for key, share in shares.items()}
        return {
            "value": self.value,
            "n_lenses": self.lenses,
            "n_non_lenses": self.non_lenses,
            "against": self.against or None,
            "auc": self.auc,
            "auc_ci95": self.auc_ci95,
            **plain,
        }


def break_down(sample: ScoredSample, column: Column, threshold: float) -> list[Part]:
    """Return what is said of each value that a sample has, in the order of the values.

    `threshold` is that at which half of all lenses are found. The AUC of a value with lenses alone
    is against all non-lenses, that of one with non-lenses alone against all lenses.
    """
    at_rate = threshold_at_rate(sample.curve, RATE)
    parts = []
    for code, value in enumerate(column.names):
        is_part = column.codes == code
        if is_part.any():
            parts.append(_describe(sample, is_part, value, threshold, at_rate))
    return parts


def _describe(
    sample: ScoredSample, is_part: np.ndarray, value: str, threshold: float, at_rate: float | None
) -> Part:
    lenses = int(np.count_nonzero(sample.labels[is_part] == 1))
    non_lenses = int(np.count_nonzero(is_part)) - lenses
    against = ""
    if not lenses:
        against = "all lenses"
        is_part = is_part | (sample.labels == 1)
    elif not non_lenses:
        against = "all non-lenses"
        is_part = is_part | (sample.labels == 0)

    part = _subsample(sample, is_part)
    why_no_interval = too_few_for_interval(part, FEWEST_FOR_AUC)
    return Part(
        value=value,
        lenses=lenses,
        non_lenses=non_lenses,
        against=against,
        auc=float(auc(part.curve)),
        auc_ci95=None if why_no_interval else auc_interval(part),
        why_no_interval=why_no_interval,
        found=share_above(part, 1, threshold) if lenses else None,
        false_alarms=share_above(part, 0, threshold) if non_lenses else None,
        found_at_rate=share_above(part, 1, at_rate) if lenses and at_rate is not None else None,
    )


def _subsample(sample: ScoredSample, chosen: np.ndarray) -> ScoredSample:
    """Return some of the samples; `chosen` is (N,) bool."""
    groups = None
    if sample.groups is not None:
        # Numbered without gaps.
        _, groups = np.unique(sample.groups[chosen], return_inverse=True)
    return ScoredSample(sample.labels[chosen], sample.scores[chosen], groups)


def share_above(sample: ScoredSample, label: int, threshold: float) -> ShareAbove:
    """Return how many lenses (label 1) or non-lenses (0) have a score of at least the threshold."""
    scores = sample.scores[sample.labels == label]
    above = int(np.count_nonzero(scores >= threshold))
    independent = sample.independent[0 if label == 1 else 1]
    interval = None
    if independent >= FEWEST_FOR_SHARE:
        interval = share_interval(sample, above, label)
    return ShareAbove(above, len(scores), interval)


def threshold_at_rate(curve: Curve, rate: float) -> float | None:
    """Return the lowest score at which a false positive rate is not exceeded.

    It is infinite where no score is high enough, and None where there are too few non-lenses to
    know the rate.
    """
    if curve.non_lenses < non_lenses_needed(rate):
        return None
    allowed = allowed_at_rate(curve, rate)
    number = int(np.searchsorted(curve.false_positives, allowed, side="right"))
    return float(curve.thresholds[number - 1]) if number else np.inf
