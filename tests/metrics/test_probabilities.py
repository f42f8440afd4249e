import numpy as np
import pytest
from hypothesis import given
from sklearn.metrics import brier_score_loss

from lens_hpc import metrics
from tests.metrics.rankings import Ranking, rankings


@given(rankings())
def test_brier_is_scikit_learns(ranking: Ranking) -> None:
    labels, scores = ranking
    probabilities = 1 / (1 + np.exp(-scores))
    expected = brier_score_loss(labels, probabilities)
    assert metrics.brier(labels, probabilities) == pytest.approx(expected, abs=1e-12)


def test_the_calibration_error_is_the_gap_by_bins() -> None:
    labels = np.array([1, 0, 1, 1, 0, 0, 0, 1])
    stated = np.array([0.9, 0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1])
    found = metrics.reliability(labels, stated)
    assert found.expected_calibration_error == pytest.approx(0.15)

    perfect = metrics.reliability(np.array([1, 0]), np.array([1.0, 0.0]))
    assert perfect.expected_calibration_error == 0


@pytest.mark.parametrize("prevalence", [0.5, 0.01])
def test_bins_hold_equal_counts_of_what_is_expected(prevalence: float) -> None:
    rng = np.random.default_rng(0)
    stated = rng.beta(2 * prevalence, 2 * (1 - prevalence), size=100_000)
    labels = (rng.random(len(stated)) < stated).astype(int)
    bins = metrics.reliability_in_bins(labels, stated)

    assert bins.counts.sum() == len(stated)
    assert (bins.counts * bins.lenses).sum() == pytest.approx(labels.sum())
    assert (bins.counts * bins.probability).sum() == pytest.approx(stated.sum())
    expected = bins.counts * bins.probability / stated.sum()
    expected += bins.counts * (1 - bins.probability) / (1 - stated).sum()
    # The first and last cells may hold more than a bin.
    assert (expected > 0.5 * 2 / 10).all()
    assert len(bins.counts) >= 5
    inside = (bins.low <= bins.probability) & (bins.probability <= bins.high)
    assert inside.sum() >= len(bins.counts) - 1


def test_bins_are_of_equal_count_where_half_are_expected_to_be_lenses() -> None:
    stated = np.linspace(0.001, 0.999, 1000)
    bins = metrics.reliability_in_bins((stated > 0.5).astype(int), stated)
    assert len(bins.counts) == 10
    np.testing.assert_allclose(bins.counts, 100, atol=1)
    assert bins.lenses.tolist() == [0] * 5 + [1] * 5
    low, high = metrics.wilson(1.0, int(bins.counts[-1]), 1.959964)
    assert (bins.low[-1], bins.high[-1]) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("stated", "counts"),
    [
        ([0.3] * 5, [5]),
        ([0.0, 1.0], [2]),
        ([0.0] * 30 + [1.0] * 30, [30, 30]),
        # One that is left over goes to its neighbours.
        ([0.1] * 50 + [0.2], [51]),
    ],
)
def test_ties_stay_together_and_few_samples_are_one_bin(
    stated: list[float], counts: list[int]
) -> None:
    labels = np.arange(len(stated)) % 2
    assert metrics.reliability_in_bins(labels, np.array(stated)).counts.tolist() == counts
