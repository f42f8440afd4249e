"""The results of an evaluation: what metrics.json, the report and the terminal show."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from lens_hpc import metrics
from lens_hpc.metrics import (
    Curve,
    Inspection,
    Interval,
    Metric,
    Reliability,
    ReliabilityBins,
    ScoredSample,
    Selection,
    table,
)
from lens_hpc.reporting.breakdown import Column, Part, break_down
from lens_hpc.reporting.recovery import Recovery
from lens_hpc.reporting.too_few import FEWEST_FOR_SHARE, too_few_for_interval
from lens_hpc.scoring.calibration import Calibration, probability, probability_maps

HALF = 0.5
PROBABILITIES_COUNTED = (0.5, 0.9, 0.99)


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
    bins: ReliabilityBins
    """What a figure shows."""


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
    at_half: Selection | None = None
    """What comes of finding half of the lenses in the survey."""
    inspections: list[Inspection] = field(default_factory=list)
    breakdown: dict[str, list[Part]] = field(default_factory=dict)
    """What is said of each value of a column, by the column's name."""
    recovery: Recovery | None = None
    """Which lenses of a list lie in the split, where the user has given one."""
    probabilities: dict[str, ProbabilityQuality] = field(default_factory=dict)
    """The model's own, and calibrated ones, by the name of their column."""
    sample: ScoredSample | None = None
    """The labelled scores; None where a class is missing."""
    counts_above: dict[str, int] = field(default_factory=dict)
    """Where a class is missing: how many of all samples have a probability above these, by the
    model itself."""

    @property
    def why_no_ranking(self) -> str:
        """What is missing, where a class is."""
        if self.n == 0:
            return "no sample has a label"
        of_labelled = "no labelled sample" if self.n_lenses == 0 else "every labelled sample"
        return f"{of_labelled} is a lens"

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

    @property
    def told_besides(self) -> list[tuple[str, str]]:
        """What the terminal shows besides the headlines: names, and what was found."""
        told = []
        if self.at_half is not None:
            rarity = f"one lens in {1 / self.survey.prevalence:,.0f}"
            purity = f"{self.at_half.purity:.4f}  at least {self.at_half.purity_at_least:.4f}"
            told.append(("purity at 50%", f"{purity} with 95% confidence, where {rarity}"))
        if self.recovery is not None:
            told.append(("known lenses", self.recovery.summary))
        return told

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
        tree["purity_at_completeness_0.5"] = self.at_half and self.at_half.purity
        tree["purity_at_completeness_0.5_at_least"] = self.at_half and self.at_half.purity_at_least
        tree["inspection"] = [asdict(inspection) for inspection in self.inspections]
        tree["breakdown"] = {
            name: [part.as_dict() for part in parts] for name, parts in self.breakdown.items()
        }
        tree["recovery"] = self.recovery and self.recovery.as_dict()
        tree["counts_above"] = self.counts_above
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
    columns: Mapping[str, Column] | None = None,
) -> Results:
    """Evaluate logits (N,) against labels (N,) of 1, 0 or -1.

    Samples with label -1 are unlabelled and left out. `groups` are (N,) int. The results are broken
    down by each of `columns`, (N,). Where one class is missing, there are no values for what needs
    both. Raise ValueError for NaN logits.
    """
    columns = columns or {}
    all_logits = logits
    labelled = labels >= 0
    unlabelled_count = int((~labelled).sum())
    if unlabelled_count:
        labels = labels[labelled]
        logits = logits[labelled]
        groups = None if groups is None else groups[labelled]
        columns = {
            name: Column(column.codes[labelled], column.names) for name, column in columns.items()
        }
    if groups is not None:
        # Numbered without gaps, as those of unlabelled samples may be gone.
        _, groups = np.unique(groups, return_inverse=True)

    lens_count = int((labels == 1).sum())
    results = Results(len(labels), lens_count, unlabelled_count, survey)
    if lens_count in {0, len(labels)}:
        quantities = _quantities_without_values(results.why_no_ranking)
        return replace(results, quantities=quantities, counts_above=count_above(all_logits))

    sample = ScoredSample(labels, logits, groups)
    selections = [
        metrics.select(sample, wanted, survey.prevalence, survey.size)
        for wanted in survey.completeness
    ]
    at_half = metrics.select(sample, HALF, survey.prevalence, survey.size)
    breakdown = {
        name: break_down(sample, column, at_half.threshold) for name, column in columns.items()
    }
    return replace(
        results,
        quantities=measure_ranking(sample),
        selections=selections,
        at_half=at_half,
        inspections=_inspect_top(sample),
        breakdown=breakdown,
        probabilities=_assess_each(labels, logits, calibration),
        sample=sample,
    )


def _inspect_top(sample: ScoredSample) -> list[Inspection]:
    has_intervals = not too_few_for_interval(sample, FEWEST_FOR_SHARE)
    return metrics.inspect_top(sample, has_intervals)


def _quantities_without_values(why_not: str) -> dict[str, Quantity]:
    quantities = {}
    for metric in table.METRICS:
        if not metric.repeats:
            quantities[metric.key] = Quantity(metric, None, why_not=why_not)
    return quantities


def count_above(logits: np.ndarray) -> dict[str, int]:
    """Return how many of logits (N,) say more than some probabilities, by these."""
    probabilities = probability(logits)
    return {f"{one:g}": int((probabilities > one).sum()) for one in PROBABILITIES_COUNTED}


def _assess_each(
    labels: np.ndarray, logits: np.ndarray, calibration: Calibration | None
) -> dict[str, ProbabilityQuality]:
    """Return the quality of each kind of probability, by its column's name."""
    return {
        name: assess_probabilities(labels, to_probability(logits))
        for name, to_probability in probability_maps(calibration).items()
    }


def assess_probabilities(labels: np.ndarray, probabilities: np.ndarray) -> ProbabilityQuality:
    """Compare probabilities (N,) with labels (N,) of 1 and 0."""
    brier = metrics.brier(labels, probabilities)
    return ProbabilityQuality(
        brier=brier,
        reliability=metrics.reliability(labels, probabilities),
        bins=metrics.reliability_in_bins(labels, probabilities),
    )


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
    return too_few_for_interval(sample, metric.lenses_needed)


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
