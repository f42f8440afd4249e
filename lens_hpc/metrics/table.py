"""The metrics of an evaluation: one entry each, and nothing else to do for a new one.

metrics.json, the terminal, the report, its comparison of runs and its figures follow from METRICS,
in its order. A key is there for ever: it is what users read from metrics.json.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from lens_hpc.metrics.ranking import (
    Curve,
    Interval,
    auc,
    average_precision,
    delong_interval,
    partial_auc,
)
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
    bootstrapped: bool = True
    """Whether its 95% interval comes from resampling."""
    interval: Callable[[Curve], Interval] | None = None
    """A formula for its 95% interval, for a metric that is not bootstrapped."""
    false_positives: int | None = None
    """The false positives at which its value lies on the ROC curve, where it is then marked."""
    digits_compared: int = 3
    """Decimals in the comparison of runs; everywhere else there are four."""
    repeats: str = ""
    """Key of the metric whose value this one has, too, with another interval."""

    @property
    def name(self) -> str:
        """Return the short title where there is one, else the title."""
        return self.short_title or self.title


METRICS: tuple[Metric, ...] = (
    Metric(
        key="auc",
        title="AUC",
        compute=auc,
        headline=True,
        bootstrapped=False,
        interval=delong_interval,
        digits_compared=4,
    ),
    Metric(
        key="auc_bootstrap",
        title="AUC, bootstrapped",
        compute=auc,
        repeats="auc",
    ),
    Metric(
        key="tpr0",
        title="TPR0: completeness before the first false positive",
        short_title="TPR0",
        compute=partial(completeness_before, false_positives=1),
        headline=True,
        false_positives=1,
    ),
    Metric(
        key="tpr10",
        title="TPR10: completeness before the tenth",
        short_title="TPR10",
        compute=partial(completeness_before, false_positives=10),
        headline=True,
        non_lenses_needed=10,
        false_positives=10,
    ),
    Metric(
        key="tpr_at_fpr_1e-2",
        title="completeness at a false positive rate of 1%",
        compute=partial(completeness_at_rate, rate=1e-2),
        non_lenses_needed=non_lenses_needed(1e-2),
    ),
    Metric(
        key="tpr_at_fpr_1e-3",
        title="completeness at a false positive rate of 0.1%",
        compute=partial(completeness_at_rate, rate=1e-3),
        non_lenses_needed=non_lenses_needed(1e-3),
    ),
    Metric(
        key="tpr_at_fpr_1e-4",
        title="completeness at a false positive rate of 0.01%",
        compute=partial(completeness_at_rate, rate=1e-4),
        non_lenses_needed=non_lenses_needed(1e-4),
    ),
    Metric(
        key="average_precision",
        title="average precision",
        compute=average_precision,
        headline=True,
    ),
    Metric(
        key="partial_auc",
        title="partial AUC, false positive rate up to 1% (0.5 by chance)",
        compute=partial(partial_auc, largest_rate=1e-2),
        bootstrapped=False,
    ),
)
