"""The metrics of an evaluation: one entry each, and nothing else to do for a new one.

metrics.json, the terminal, the report, its comparison of runs and its figures follow from METRICS,
in its order. A key is there for ever: it is what users read from metrics.json.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from lens_hpc.metrics.intervals import (
    auc_interval,
    average_precision_interval,
    completeness_at_rate_interval,
    completeness_interval,
)
from lens_hpc.metrics.ranking import Curve, Interval, auc, average_precision, partial_auc
from lens_hpc.metrics.samples import ScoredSample
from lens_hpc.metrics.top import completeness_at_rate, completeness_before, non_lenses_needed


@dataclass(frozen=True)
class Metric:
    """A number that describes a ranking, and how it is shown."""

    key: str
    """Its key in metrics.json; its interval has KEY_ci95."""
    title: str
    """What the report's table calls it."""
    compute: Callable[[Curve], np.ndarray | float]
    """Its value; if it is bootstrapped, a fraction from 0 to 1, and for curves (..., T) values
    (...)."""
    short_title: str = ""
    """What the terminal, cards and columns call it; the title, if empty."""
    headline: bool = False
    """Whether the terminal, the cards and the comparison of runs show it."""
    non_lenses_needed: int = 1
    """A sample with fewer non-lenses has no value."""
    lenses_needed: int = 10
    """A sample with fewer lenses, or fewer groups that have some, has no interval."""
    bootstrapped: bool = True
    """Whether its 95% interval comes from resampling."""
    interval: Callable[[ScoredSample], Interval] | None = None
    """A formula for its 95% interval, for a metric that is not bootstrapped."""
    interval_of: str = ""
    """What the interval is of, where the terminal must say so."""
    false_positives: int | None = None
    """The false positives at which its value lies on the ROC curve, where it is then marked."""
    digits_compared: int = 3
    """Decimals in the comparison of runs; everywhere else there are four."""
    repeats: str = ""
    """Key of the metric that this one, of an earlier version, is now the same as; only
    metrics.json has it still."""

    @property
    def name(self) -> str:
        """Return the short title where there is one, else the title."""
        return self.short_title or self.title


def _completeness_before(key: str, title: str, short_title: str, false_positives: int) -> Metric:
    """Return the entry of the completeness before a false positive of this sample."""
    return Metric(
        key=key,
        title=title,
        short_title=short_title,
        compute=partial(completeness_before, false_positives=false_positives),
        headline=True,
        non_lenses_needed=false_positives,
        bootstrapped=False,
        interval=partial(completeness_interval, false_positives=false_positives),
        interval_of=" at this threshold",
        false_positives=false_positives,
    )


def _completeness_at_rate(key: str, title: str, rate: float) -> Metric:
    """Return the entry of the completeness at a false positive rate."""
    return Metric(
        key=key,
        title=title,
        compute=partial(completeness_at_rate, rate=rate),
        non_lenses_needed=non_lenses_needed(rate),
        bootstrapped=False,
        interval=partial(completeness_at_rate_interval, rate=rate),
    )


METRICS: tuple[Metric, ...] = (
    Metric(
        key="auc",
        title="AUC, ties counted half",
        short_title="AUC",
        compute=auc,
        headline=True,
        lenses_needed=5,
        bootstrapped=False,
        interval=auc_interval,
        digits_compared=4,
    ),
    Metric(
        key="auc_bootstrap",
        title="AUC",
        compute=auc,
        bootstrapped=False,
        repeats="auc",
    ),
    _completeness_before(
        "tpr0", "TPR0: completeness at this threshold, before the first false positive", "TPR0", 1
    ),
    _completeness_before(
        "tpr10", "TPR10: completeness at this threshold, before the tenth", "TPR10", 10
    ),
    _completeness_at_rate("tpr_at_fpr_1e-2", "completeness at a false positive rate of 1%", 1e-2),
    _completeness_at_rate("tpr_at_fpr_1e-3", "completeness at a false positive rate of 0.1%", 1e-3),
    _completeness_at_rate(
        "tpr_at_fpr_1e-4", "completeness at a false positive rate of 0.01%", 1e-4
    ),
    Metric(
        key="average_precision",
        title="average precision",
        compute=average_precision,
        headline=True,
        bootstrapped=False,
        interval=average_precision_interval,
    ),
    Metric(
        key="partial_auc",
        title="partial AUC, false positive rate up to 1% (0.5 by chance)",
        compute=partial(partial_auc, largest_rate=1e-2),
        bootstrapped=False,
    ),
)
