import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from lens_hpc.analysis import metrics


@st.composite
def rankings(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels of both classes, and scores with or without ties."""
    labels = np.array(draw(st.lists(st.integers(0, 1), min_size=2, max_size=60).filter(lambda x: 0 < sum(x) < len(x))))
    values = st.integers(-3, 3) if draw(st.booleans()) else st.floats(-5, 5)
    scores = draw(st.lists(values, min_size=len(labels), max_size=len(labels)))
    return labels, np.array(scores, dtype=np.float64)


@given(rankings())
def test_auc_is_scikit_learns_and_the_variance_the_direct_one(ranking: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = ranking
    auc, variance = metrics.delong(labels, scores)
    assert auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    positive, negative = scores[labels == 1], scores[labels == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    direct = sum(
        means.var(ddof=1) / len(means) if len(means) > 1 else 0.0 for means in (wins.mean(axis=1), wins.mean(axis=0))
    )
    assert variance == pytest.approx(direct, abs=1e-12)


@given(rankings())
def test_the_interval_holds_the_auc_and_stays_within_0_and_1(ranking: tuple[np.ndarray, np.ndarray]) -> None:
    result = metrics.evaluate(*ranking)
    low, high = result.auc_ci95
    assert 0 <= low <= result.auc <= high <= 1


def test_the_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    truth = 0.8555  # of unit normals 1.5 apart: Phi(1.5 / sqrt 2)
    covered = 0
    for _ in range(400):
        scores = np.concatenate([rng.normal(1.5, 1, 60), rng.normal(0, 1, 90)])
        low, high = metrics.evaluate(np.repeat([1, 0], [60, 90]), scores).auc_ci95
        covered += low <= truth <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_a_perfect_ranking_does_not_claim_certainty() -> None:
    low, high = metrics.evaluate(np.repeat([1, 0], [5, 50]), np.arange(55)[::-1]).auc_ci95
    assert high == 1.0
    assert 0.4 < low < 0.6


def test_tpr_counts_lenses_above_the_false_positive_of_that_number() -> None:
    #         three lenses, the first false positive, one lens, nine more false positives, one lens
    labels = np.array([1, 1, 1, 0, 1, *[0] * 9, 1])
    scores = np.arange(len(labels))[::-1].astype(float)
    assert metrics.true_positive_rate_before(labels, scores, 1) == 3 / 5
    assert metrics.true_positive_rate_before(labels, scores, 10) == 4 / 5
    assert metrics.true_positive_rate_before(labels, scores, 11) is None


def test_ties_at_the_threshold_count_against_us() -> None:
    assert metrics.true_positive_rate_before(np.array([1, 1, 0, 0]), np.array([2.0, 1, 1, 0]), 1) == 0.5
    assert metrics.evaluate(np.array([1, 0]), np.array([1.0, 1.0])).tpr0 == 0.0


@pytest.mark.parametrize("labels", [[1, 1], [0, 0], [1, 0, -1], []])
def test_one_class_alone_is_refused(labels: list[int]) -> None:
    with pytest.raises(ValueError, match="need lenses and non-lenses"):
        metrics.evaluate(np.array(labels), np.zeros(len(labels)))


def test_nan_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        metrics.evaluate(np.array([1, 0]), np.array([np.nan, 0]))
