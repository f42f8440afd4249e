"""The results of an evaluation: what metrics.json, the report and the terminal show."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from lens_hpc import metrics
from lens_hpc.metrics import Curve, Interval, Metric, Reliability, Selection, table
from lens_hpc.scoring.calibration import Calibration, probability_maps

# With fewer samples of a class, or fewer groups that have some, nothing is known of how they vary.
FEWEST = 5
ONE_CLASS = "both classes are needed"


@dataclass(frozen=True)
class Survey:
    """The survey that a trained model is meant for."""

    prevalence: float
    """Fraction of lenses among its objects."""
    size: int
    """Number of its objects."""
    completeness: tuple[float, ...]
    """Fractions of the lenses that one may want to find."""


@dataclass(frozen=True)
class Quantity:
    """The value of a metric with its interval, or why there is none."""

    metric: Metric
    value: float | None
    ci95: Interval | None = None
    why_not: str = ""


@dataclass(frozen=True)
class ProbabilityQuality:
    """How well probabilities come true."""

    brier: float
    reliability: Reliability


@dataclass(frozen=True)
class Results:
    """Everything that an evaluation says about the scores of a split."""

    n: int
    """Number of labelled samples."""
    n_lenses: int
    n_unlabelled: int
    survey: Survey
    quantities: dict[str, Quantity] = field(default_factory=dict)
    """By the key of their metric."""
    selections: list[Selection] = field(default_factory=list)
    probabilities: dict[str, ProbabilityQuality] = field(default_factory=dict)
    """The model's own, and calibrated ones, by the name of their column."""
    curve: Curve | None = None

    @property
    def headlines(self) -> list[Quantity]:
        """The quantities that are shown first."""
        return [quantity for quantity in self.quantities.values() if quantity.metric.headline]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, flat where one number is meant."""
        tree: dict[str, Any] = {
            "n": self.n,
            "n_lenses": self.n_lenses,
            "n_unlabelled": self.n_unlabelled,
        }
        for key, quantity in self.quantities.items():
            tree[key] = quantity.value
            if quantity.ci95:
                tree[f"{key}_ci95"] = quantity.ci95

        tree["calibration"] = {
            name: {
                "brier": quality.brier,
                "expected_calibration_error": quality.reliability.expected_calibration_error,
            }
            for name, quality in self.probabilities.items()
        }
        tree["survey"] = {"prevalence": self.survey.prevalence, "size": self.survey.size}
        tree["selections"] = [asdict(selection) for selection in self.selections]
        tree["not_said"] = {
            key: quantity.why_not for key, quantity in self.quantities.items() if quantity.why_not
        }
        return tree


def evaluate_scores(
    labels: np.ndarray,
    logits: np.ndarray,
    survey: Survey,
    groups: np.ndarray | None = None,
    calibration: Calibration | None = None,
) -> Results:
    """Evaluate logits (N,) against labels (N,) of 1, 0 or -1.

    Samples with label -1 are unlabelled and left out. `groups` are (N,) int. Where one class is
    missing, there are no values for what needs both. Raise ValueError for NaN logits.
    """
    labelled = labels >= 0
    unlabelled_count = int((~labelled).sum())
    if unlabelled_count:
        labels = labels[labelled]
        logits = logits[labelled]
        groups = None if groups is None else groups[labelled]
    if groups is not None:
        # Numbered without gaps, as those of unlabelled samples may be gone.
        _, groups = np.unique(groups, return_inverse=True)

    lens_count = int((labels == 1).sum())
    results = Results(len(labels), lens_count, unlabelled_count, survey)
    if lens_count in {0, len(labels)}:
        return replace(results, quantities=_quantities_without_values())

    curve = metrics.rank(labels, logits)
    selections = [
        metrics.select(curve, wanted, survey.prevalence, survey.size)
        for wanted in survey.completeness
    ]
    probabilities = {
        name: assess_probabilities(labels, to_probability(logits))
        for name, to_probability in probability_maps(calibration).items()
    }
    return replace(
        results,
        quantities=measure_ranking(curve, labels, logits, groups),
        selections=selections,
        probabilities=probabilities,
        curve=curve,
    )


def _quantities_without_values() -> dict[str, Quantity]:
    quantities = {}
    for metric in table.METRICS:
        if not metric.repeats:
            quantities[metric.key] = Quantity(metric, None, why_not=ONE_CLASS)
    return quantities


def assess_probabilities(labels: np.ndarray, probabilities: np.ndarray) -> ProbabilityQuality:
    """Compare probabilities (N,) with labels (N,) of 1 and 0."""
    brier = metrics.brier(labels, probabilities)
    return ProbabilityQuality(brier, metrics.reliability(labels, probabilities))


# ---- the ranking ----


def measure_ranking(
    curve: Curve, labels: np.ndarray, logits: np.ndarray, groups: np.ndarray | None
) -> dict[str, Quantity]:
    """Return every metric of a ranking, with its interval, by the metric's key."""
    intervals = _find_intervals(curve, labels, logits, groups)
    quantities = {}
    for metric in table.METRICS:
        needed = metric.non_lenses_needed
        if curve.non_lenses < needed:
            why_not = f"not enough negatives: {curve.non_lenses:,} of the {needed:,} needed"
            quantities[metric.key] = Quantity(metric, None, why_not=why_not)
        else:
            value = float(metric.compute(curve))
            quantities[metric.key] = Quantity(metric, value, intervals.get(metric.key))
    return quantities


def _find_intervals(
    curve: Curve, labels: np.ndarray, logits: np.ndarray, groups: np.ndarray | None
) -> dict[str, Interval | None]:
    """Return the interval of each metric that has one, by its key."""
    intervals: dict[str, Interval | None] = {}
    if min(curve.lenses, curve.non_lenses) >= FEWEST:
        for metric in table.METRICS:
            if metric.interval:
                intervals[metric.key] = metric.interval(curve)

    replicates = _resample(curve, labels, logits, groups)
    if replicates:
        statistics = {metric.key: metric.compute for metric in table.METRICS if metric.bootstrapped}
        intervals |= metrics.bootstrap(curve, replicates, statistics)
    return intervals


def _resample(
    curve: Curve, labels: np.ndarray, logits: np.ndarray, groups: np.ndarray | None
) -> Iterator[Curve] | None:
    """Return replicates of a curve; None where there are too few samples or groups for them."""
    if groups is None:
        if min(curve.lenses, curve.non_lenses) < FEWEST:
            return None
        return metrics.bootstrap_samples(curve)

    groups_with_class = [len(np.unique(groups[labels == label])) for label in (0, 1)]
    if min(groups_with_class) < FEWEST:
        return None
    return metrics.bootstrap_groups(curve, labels, logits, groups)
