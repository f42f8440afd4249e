"""The results of an evaluation: what metrics.json holds, and what the report and the terminal show."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from lens_hpc.analysis import metrics
from lens_hpc.analysis.calibration import Calibration, maps
from lens_hpc.analysis.metrics import Curve, Interval, Reliability, Selection

RATES = (1e-2, 1e-3, 1e-4)
PARTIAL_RATE = 1e-2
# Of fewer samples of a class, or groups with it, nothing is known of how they vary.
FEWEST = 5
ONE_CLASS = "both classes are needed"


@dataclass(frozen=True)
class Quantity:
    """A number with its interval, or why there is none."""

    value: float | None
    ci95: Interval | None = None
    why_not: str = ""


@dataclass(frozen=True)
class Probabilities:
    """How true some probabilities are."""

    brier: float
    reliability: Reliability


def judge(labels: np.ndarray, probabilities: np.ndarray) -> Probabilities:
    """Of (N,) probabilities against labels."""
    return Probabilities(metrics.brier(labels, probabilities), metrics.reliability(labels, probabilities))


@dataclass(frozen=True)
class Survey:
    """The survey that the finder is meant for."""

    prevalence: float
    """Share of lenses among its objects."""
    size: int
    """Its objects."""
    completeness: tuple[float, ...]
    """Shares of the lenses that one may want to find."""


@dataclass(frozen=True)
class Results:
    """All that is said of the scores of a split."""

    n: int
    """Labelled samples."""
    n_lenses: int
    n_unlabelled: int
    quantities: dict[str, Quantity]
    survey: Survey
    selections: list[Selection] = field(default_factory=list)
    probabilities: dict[str, Probabilities] = field(default_factory=dict)
    """The model's own, and calibrated ones, by the name of their column."""
    curve: Curve | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, flat where one number is meant."""
        flat: dict[str, Any] = {"n": self.n, "n_lenses": self.n_lenses, "n_unlabelled": self.n_unlabelled}
        for name, quantity in self.quantities.items():
            flat[name] = quantity.value
            if quantity.ci95:
                flat[f"{name}_ci95"] = quantity.ci95
        flat["calibration"] = {
            name: {"brier": found.brier, "expected_calibration_error": found.reliability.expected_calibration_error}
            for name, found in self.probabilities.items()
        }
        flat["survey"] = {"prevalence": self.survey.prevalence, "size": self.survey.size}
        flat["selections"] = [asdict(selection) for selection in self.selections]
        flat["not_said"] = {name: q.why_not for name, q in self.quantities.items() if q.why_not}
        return flat


def evaluate(
    labels: np.ndarray,
    logits: np.ndarray,
    survey: Survey,
    groups: np.ndarray | None = None,
    calibration: Calibration | None = None,
) -> Results:
    """Everything about (N,) logits with labels 1, 0 or -1 for unlabelled, which are left out; groups are (N,) int.

    ValueError for NaN logits. What needs lenses and non-lenses is not said where one class is missing.
    """
    known = labels >= 0
    unlabelled = int((~known).sum())
    if unlabelled:
        labels, logits, groups = labels[known], logits[known], None if groups is None else groups[known]
    if groups is not None:
        groups = np.unique(groups, return_inverse=True)[1]
    lenses = int((labels == 1).sum())
    counted = partial(Results, n=len(labels), n_lenses=lenses, n_unlabelled=unlabelled, survey=survey)
    if lenses in {0, len(labels)}:
        names = ("auc", "tpr0", "tpr10", *map(name_of_rate, RATES), "average_precision", "partial_auc")
        return counted(quantities={name: Quantity(None, why_not=ONE_CLASS) for name in names})
    curve = metrics.rank(labels, logits)
    probabilities = {name: judge(labels, to_p(logits)) for name, to_p in maps(calibration).items()}
    return counted(
        quantities=measure(curve, labels, logits, groups),
        selections=[metrics.select(curve, wanted, survey.prevalence, survey.size) for wanted in survey.completeness],
        probabilities=probabilities,
        curve=curve,
    )


def measure(curve: Curve, labels: np.ndarray, logits: np.ndarray, groups: np.ndarray | None) -> dict[str, Quantity]:
    """Numbers of the ranking, with their intervals: DeLong's for the AUC, bootstrapped for the others."""
    area, variance = metrics.delong(curve)
    statistics: dict[str, Callable[[Curve], np.ndarray]] = {
        "auc_bootstrap": metrics.auc,
        "tpr0": partial(metrics.completeness_before, false_positives=1),
        "tpr10": partial(metrics.completeness_before, false_positives=10),
        **{name_of_rate(rate): partial(metrics.completeness_at_rate, rate=rate) for rate in RATES},
        "average_precision": metrics.average_precision,
    }
    smaller = int(min(curve.lenses, curve.non_lenses))
    ranges: dict[str, Interval | None] = dict.fromkeys(statistics)
    if groups is None and smaller >= FEWEST:
        ranges = metrics.bootstrap(curve, metrics.resample(curve), statistics)
    elif groups is not None and min(len(np.unique(groups[labels == label])) for label in (0, 1)) >= FEWEST:
        ranges = metrics.bootstrap(curve, metrics.resample_groups(curve, labels, logits, groups), statistics)
    found = {"auc": Quantity(area, metrics.interval(area, variance, smaller) if smaller >= FEWEST else None)}
    for name, statistic in statistics.items():
        needed = {"tpr10": 10} | {name_of_rate(rate): metrics.non_lenses_needed(rate) for rate in RATES}
        if curve.non_lenses < needed.get(name, 1):
            why = f"not enough negatives: {curve.non_lenses:,} of the {needed[name]:,} needed"
            found[name] = Quantity(None, why_not=why)
        else:
            found[name] = Quantity(float(statistic(curve)), ranges[name])
    return found | {"partial_auc": Quantity(metrics.partial_auc(curve, PARTIAL_RATE))}


def name_of_rate(rate: float) -> str:
    """Key of the completeness at a false positive rate: tpr_at_fpr_1e-3."""
    return f"tpr_at_fpr_1e{round(np.log10(rate))}"
