"""The results of an evaluation: what metrics.json, the report and the terminal show."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from lens_hpc import metrics
from lens_hpc.metrics import Curve, Interval, Metric, Reliability, ScoredSample, Selection, table
from lens_hpc.scoring.calibration import Calibration, probability_maps

# With fewer non-lenses, or fewer groups that have some, nothing is known of how they vary.
FEWEST_NON_LENSES = 5
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
    """Why there is no value."""
    why_no_interval: str = ""
    """Why there is a value without an interval, where the metric has one."""


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
    sample: ScoredSample | None = None
    """The labelled scores; None where a class is missing."""

    @property
    def curve(self) -> Curve | None:
        """The ranking."""
        return None if self.sample is None else self.sample.curve

    @property
    def shown(self) -> list[Quantity]:
        """The quantities of a report: all but those that repeat another."""
        return [quantity for quantity in self.quantities.values() if not quantity.metric.repeats]

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
        tree["no_interval"] = {
            key: quantity.why_no_interval
            for key, quantity in self.quantities.items()
            if quantity.why_no_interval
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

    sample = ScoredSample(labels, logits, groups)
    selections = [
        metrics.select(sample, wanted, survey.prevalence, survey.size)
        for wanted in survey.completeness
    ]
    probabilities = {
        name: assess_probabilities(labels, to_probability(logits))
        for name, to_probability in probability_maps(calibration).items()
    }
    return replace(
        results,
        quantities=measure_ranking(sample),
        selections=selections,
        probabilities=probabilities,
        sample=sample,
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


def measure_ranking(sample: ScoredSample) -> dict[str, Quantity]:
    """Return every metric of a sample, with its interval, by the metric's key."""
    quantities = {}
    for metric in table.METRICS:
        why_not = _too_few_non_lenses(sample, metric)
        if why_not:
            quantities[metric.key] = Quantity(metric, None, why_not=why_not)
        else:
            value = float(metric.compute(sample.curve))
            why_no_interval = _too_few_for_interval(sample, metric)
            quantities[metric.key] = Quantity(metric, value, why_no_interval=why_no_interval)

    intervals = _find_intervals(sample, list(quantities.values()))
    for key, quantity in quantities.items():
        quantities[key] = replace(quantity, ci95=intervals.get(quantity.metric.repeats or key))
    return quantities


def _too_few_non_lenses(sample: ScoredSample, metric: Metric) -> str:
    """Return what a metric lacks to have a value, or an empty text."""
    count, needed = int(sample.curve.non_lenses), metric.non_lenses_needed
    return "" if count >= needed else f"too few non-lenses: {count:,} of the {needed:,} needed"


def _too_few_for_interval(sample: ScoredSample, metric: Metric) -> str:
    """Return what a metric lacks to have an interval, or an empty text."""
    if not metric.bootstrapped and metric.interval is None:
        return ""
    lenses, non_lenses = sample.independent
    unit = "" if sample.groups is None else "groups with "
    if lenses < metric.lenses_needed:
        return f"too few {unit}lenses: {lenses} of the {metric.lenses_needed} needed"
    if non_lenses < FEWEST_NON_LENSES:
        return f"too few {unit}non-lenses: {non_lenses} of the {FEWEST_NON_LENSES} needed"
    return ""


def _find_intervals(sample: ScoredSample, quantities: list[Quantity]) -> dict[str, Interval | None]:
    """Return the interval of each quantity that can have one, by its key."""
    able = [
        quantity.metric
        for quantity in quantities
        if quantity.value is not None and not quantity.why_no_interval
    ]
    intervals: dict[str, Interval | None] = {
        metric.key: metric.interval(sample) for metric in able if metric.interval
    }
    statistics = {metric.key: metric.compute for metric in able if metric.bootstrapped}
    if statistics:
        intervals |= metrics.bootstrap(sample.curve, _resample(sample), statistics)
    return intervals


def _resample(sample: ScoredSample) -> Iterator[Curve]:
    """Return replicates of a sample's curve."""
    if sample.groups is None:
        return metrics.bootstrap_samples(sample.curve)
    return metrics.bootstrap_groups(sample.curve, sample.labels, sample.scores, sample.groups)
