import numpy as np
import pytest
from hypothesis import given
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from lens_hpc import metrics
from tests.metrics.rankings import Ranking, fractions_right, rankings, variance_of_mean


@given(rankings())
def test_the_curve_is_scikit_learns(ranking: Ranking) -> None:
    curve = metrics.rank(*ranking)
    false_rate, true_rate, thresholds = roc_curve(*ranking, drop_intermediate=False)

    np.testing.assert_allclose(curve.thresholds, thresholds[1:], rtol=0, atol=0)
    np.testing.assert_allclose(curve.true_positives / curve.lenses, true_rate[1:], atol=1e-12)
    np.testing.assert_allclose(curve.false_positives / curve.non_lenses, false_rate[1:], atol=1e-12)


@given(rankings())
def test_areas_and_precision_are_scikit_learns(ranking: Ranking) -> None:
    curve = metrics.rank(*ranking)
    precision = average_precision_score(*ranking)
    assert metrics.auc(curve) == pytest.approx(roc_auc_score(*ranking), abs=1e-12)
    assert metrics.average_precision(curve) == pytest.approx(precision, abs=1e-12)

    for rate in (0.01, 0.3):
        area = roc_auc_score(*ranking, max_fpr=rate)
        assert metrics.partial_auc(curve, rate) == pytest.approx(area, abs=1e-12)


@given(rankings())
def test_delong_is_the_direct_computation(ranking: Ranking) -> None:
    area, variance = metrics.delong(metrics.rank(*ranking))

    by_lens, by_non_lens = fractions_right(*ranking)
    expected = variance_of_mean(by_lens) + variance_of_mean(by_non_lens)
    assert area == pytest.approx(by_lens.mean(), abs=1e-12)
    assert variance == pytest.approx(expected, abs=1e-12)

    found = metrics.fractions_right(*ranking)
    np.testing.assert_allclose(np.concatenate(found), np.concatenate([by_lens, by_non_lens]))


@pytest.mark.slow
@given(rankings())
def test_the_interval_holds_the_auc_and_stays_within_0_and_1(ranking: Ranking) -> None:
    curve = metrics.rank(*ranking)
    area, variance = metrics.delong(curve)
    low, high = metrics.interval(area, variance, int(min(curve.lenses, curve.non_lenses)))
    assert 0 <= low <= area <= high <= 1


def test_a_perfect_ranking_does_not_claim_certainty() -> None:
    low, high = metrics.interval(1.0, 0.0, 5)
    assert high == 1.0
    assert 0.4 < low < 0.6


@pytest.mark.parametrize(
    ("labels", "scores", "said"),
    [
        ([], [], "no samples"),
        ([1, 0, -1], [1, 2, 3], "must be 0 or 1"),
        ([1, 0], [np.nan, 0], "1 of 2 scores are NaN"),
    ],
)
def test_what_cannot_be_ranked_is_refused(
    labels: list[int], scores: list[float], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        metrics.rank(np.array(labels), np.array(scores))
