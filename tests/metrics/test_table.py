"""The table of metrics, and the page that says how to add one."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lens_hpc import metrics
from lens_hpc.metrics.table import METRICS
from tests.metrics.rankings import binormal
from tests.test_how_to import ROOT, Reader

# The partial AUC takes one curve only.
FOR_REPLICATES = [metric for metric in METRICS if metric.key != "partial_auc"]
# What users read from metrics.json.
KEYS = [
    "auc",
    "auc_bootstrap",
    "tpr0",
    "tpr10",
    "tpr_at_fpr_1e-2",
    "tpr_at_fpr_1e-3",
    "tpr_at_fpr_1e-4",
    "average_precision",
    "partial_auc",
]


def test_the_keys_and_their_order_are_there_for_ever() -> None:
    assert [metric.key for metric in METRICS][: len(KEYS)] == KEYS
    assert len({metric.key for metric in METRICS}) == len(METRICS)


def test_the_headline_numbers_are_those_of_lens_finders() -> None:
    names = [metric.name for metric in METRICS if metric.headline]
    assert names[:4] == ["AUC", "TPR0", "TPR10", "average precision"]


@pytest.mark.parametrize("metric", FOR_REPLICATES, ids=lambda metric: metric.key)
def test_what_may_be_bootstrapped_has_a_value_for_each_replicate(metric: metrics.Metric) -> None:
    curve = metrics.rank(*binormal(300, 20_000))
    several = next(metrics.bootstrap_samples(curve))
    values = metric.compute(several)
    assert values.shape == several.lenses.shape
    assert ((values >= 0) & (values <= 1)).all()

    one = metrics.Curve(several.thresholds, several.true_positives[7], several.false_positives[7])
    assert metric.compute(one) == values[7]


@pytest.mark.slow
def test_the_metric_of_the_page_is_the_direct_count(tmp_path: Path) -> None:
    page = ROOT / "docs" / "how-to" / "metric.md"
    value, low, high = _numbers(Reader(tmp_path).follow(page))

    rng = np.random.default_rng(0)
    labels = np.arange(5000) % 100 == 0
    logits = rng.normal(size=5000) + 3 * labels
    first_percent = np.argsort(-logits)[:50]
    assert value == labels[first_percent].sum() / 50
    assert low < value < high

    program = "from lens_hpc.metrics.table import METRICS; print(METRICS[-1].key)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "completeness_first_percent\n"


def _numbers(printed: str) -> list[float]:
    for bracket in "(),":
        printed = printed.replace(bracket, " ")
    return [float(word) for word in printed.split()]
