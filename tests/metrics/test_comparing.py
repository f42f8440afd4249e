import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from lens_hpc import metrics
from lens_hpc.metrics import ScoredSample
from tests.metrics.rankings import Ranking, binormal, fractions_right, rankings


@given(rankings(), st.randoms(use_true_random=False))
def test_the_paired_interval_is_the_direct_computation(ranking: Ranking, random: object) -> None:
    labels, one = ranking
    other = np.array([random.choice([-1.0, 0.0, 0.5, 2.0]) for _ in labels])  # type: ignore[attr-defined]
    found = metrics.compare_aucs(labels, one, other)

    one_right, other_right = fractions_right(labels, one), fractions_right(labels, other)
    sums = [
        np.cov(pair) / len(pair[0]) if len(pair[0]) > 1 else np.zeros((2, 2))
        for pair in zip(one_right, other_right, strict=True)
    ]
    covariance = sums[0] + sums[1]
    scale = np.sqrt(covariance[0, 0] * covariance[1, 1])
    correlation = covariance[0, 1] / scale if scale > 0 else 0.0

    quantile = t.ppf(0.975, max(min(labels.sum(), (1 - labels).sum()) - 1, 1))
    areas = [right[0].mean() for right in (one_right, other_right)]
    limits = [metrics.auc_interval(ScoredSample(labels, s), quantile, 0.5) for s in (one, other)]
    below, above = areas[0] - limits[0][0], limits[1][1] - areas[1]
    reach = below**2 + above**2 - 2 * correlation * below * above
    of_difference = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    reach = max(reach, quantile**2 * of_difference)
    assert found.difference == pytest.approx(areas[0] - areas[1], abs=1e-12)
    assert found.ci95[0] == pytest.approx(found.difference - np.sqrt(max(reach, 0)), abs=1e-6)


@given(rankings(), st.randoms(use_true_random=False))
def test_a_p_value_below_5_percent_is_an_interval_without_0(
    ranking: Ranking, random: object
) -> None:
    labels, one = ranking
    other = np.array([random.choice([-1.0, 0.0, 0.5, 2.0]) for _ in labels])  # type: ignore[attr-defined]
    groups = np.array([random.randrange(9) for _ in labels])  # type: ignore[attr-defined]
    for grouping in (None, groups):
        found = metrics.compare_aucs(labels, one, other, grouping)
        low, high = found.ci95
        assert low <= found.difference <= high
        if not np.isnan(found.p_value) and abs(found.p_value - 0.05) > 1e-9:
            assert (found.p_value < 0.05) == (low > 0 or high < 0)

        swapped = metrics.compare_aucs(labels, other, one, grouping)
        np.testing.assert_allclose(swapped.ci95, (-high, -low), atol=1e-9)


def test_a_ranking_does_not_differ_from_itself() -> None:
    labels, scores = binormal(30, 40)
    same = metrics.compare_aucs(labels, scores, scores)
    assert (same.difference, same.p_value) == (0.0, 1.0)

    better = metrics.compare_aucs(labels, labels + 0.01 * scores, scores)
    assert better.difference > 0
    assert better.p_value < 0.01


def test_copies_of_the_rows_make_no_difference_significant() -> None:
    labels, one = binormal(30, 60)
    other = one + np.random.default_rng(1).normal(size=90)
    once = metrics.compare_aucs(labels, one, other)
    copies = [np.repeat(values, 9) for values in (labels, one, other, np.arange(90))]
    of_rows = metrics.compare_aucs(*copies[:3])
    of_groups = metrics.compare_aucs(*copies)
    assert of_rows.p_value < 0.2 * once.p_value
    assert of_groups.p_value == pytest.approx(once.p_value, rel=0.3)


@pytest.mark.parametrize(
    ("p_value", "shown"), [(np.nan, "unknown"), (1e-13, "< 1e-12"), (0.01234, "0.012")]
)
def test_a_p_value_is_shown_as_far_as_it_means_anything(p_value: float, shown: str) -> None:
    assert metrics.Difference(0.1, (0.0, 0.2), p_value).shown_p == shown
