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
