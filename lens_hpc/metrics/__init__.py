"""The metrics of lens finders: pure functions of labels and scores, and the table of all metrics.

`metrics.auc(metrics.rank(labels, scores))` is how other rooms use them. Nothing is imported here
but NumPy, SciPy and scikit-learn.
"""

from lens_hpc.metrics.agreement import cohen_kappa, fleiss_kappa
from lens_hpc.metrics.comparing import Difference, compare_arms, compare_aucs
from lens_hpc.metrics.inspection import (
    Inspection,
    first_percent,
    inspect_top,
    lenses_in_top,
    share_interval,
)
from lens_hpc.metrics.intervals import (
    agresti_coull,
    auc_interval,
    average_precision_interval,
    average_precision_moments,
    completeness_at_rate_interval,
    completeness_interval,
    wilson,
)
from lens_hpc.metrics.probabilities import (
    Reliability,
    ReliabilityBins,
    brier,
    reliability,
    reliability_in_bins,
)
from lens_hpc.metrics.ranking import (
    Curve,
    Interval,
    auc,
    average_precision,
    delong,
    fractions_right,
    interval,
    partial_auc,
    rank,
)
from lens_hpc.metrics.resampling import (
    bootstrap,
    bootstrap_groups,
    bootstrap_samples,
    coarsen,
)
from lens_hpc.metrics.samples import ScoredSample
from lens_hpc.metrics.selection import blaker, threshold_of_rate
from lens_hpc.metrics.swap import Skills, Swap, run_swap
from lens_hpc.metrics.table import Metric
from lens_hpc.metrics.top import (
    Selection,
    allowed_at_rate,
    completeness_at_rate,
    completeness_before,
    highest_rate,
    non_lenses_needed,
    purity_at_least,
    select,
)
from lens_hpc.metrics.weighted import Estimate, SurveyEstimate, estimate_survey

__all__ = [
    "Curve",
    "Difference",
    "Estimate",
    "Inspection",
    "Interval",
    "Metric",
    "Reliability",
    "ReliabilityBins",
    "ScoredSample",
    "Selection",
    "Skills",
    "SurveyEstimate",
    "Swap",
    "agresti_coull",
    "allowed_at_rate",
    "auc",
    "auc_interval",
    "average_precision",
    "average_precision_interval",
    "average_precision_moments",
    "blaker",
    "bootstrap",
    "bootstrap_groups",
    "bootstrap_samples",
    "brier",
    "coarsen",
    "cohen_kappa",
    "compare_arms",
    "compare_aucs",
    "completeness_at_rate",
    "completeness_at_rate_interval",
    "completeness_before",
    "completeness_interval",
    "delong",
    "estimate_survey",
    "first_percent",
    "fleiss_kappa",
    "fractions_right",
    "highest_rate",
    "inspect_top",
    "interval",
    "lenses_in_top",
    "non_lenses_needed",
    "partial_auc",
    "purity_at_least",
    "rank",
    "reliability",
    "reliability_in_bins",
    "run_swap",
    "select",
    "share_interval",
    "threshold_of_rate",
    "wilson",
]
