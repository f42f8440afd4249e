from functools import partial
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score, roc_curve

from lens_hpc.analysis import metrics


@st.composite
def rankings(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels of both classes, and scores with or without ties."""
    labels = np.array(draw(st.lists(st.integers(0, 1), min_size=2, max_size=60).filter(lambda x: 0 < sum(x) < len(x))))
    values = st.integers(-3, 3) if draw(st.booleans()) else st.floats(-5, 5)
    scores = draw(st.lists(values, min_size=len(labels), max_size=len(labels)))
    return labels, np.array(scores, dtype=np.float64)


def binormal(lenses: int, others: int, apart: float = 1.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.repeat([1, 0], [lenses, others]), np.concatenate([rng.normal(apart, 1, lenses), rng.normal(0, 1, others)])


@given(rankings())
def test_the_curve_is_scikit_learns(ranking: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = ranking
    curve = metrics.rank(labels, scores)
    false_rate, true_rate, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.thresholds, thresholds[1:], rtol=0, atol=0)
    np.testing.assert_allclose(curve.true_positives / curve.lenses, true_rate[1:], atol=1e-12)
    np.testing.assert_allclose(curve.false_positives / curve.non_lenses, false_rate[1:], atol=1e-12)


@given(rankings())
def test_areas_and_precision_are_scikit_learns(ranking: tuple[np.ndarray, np.ndarray]) -> None:
    curve = metrics.rank(*ranking)
    assert metrics.auc(curve) == pytest.approx(roc_auc_score(*ranking), abs=1e-12)
    assert metrics.average_precision(curve) == pytest.approx(average_precision_score(*ranking), abs=1e-12)
    for rate in (0.01, 0.3):
        assert metrics.partial_auc(curve, rate) == pytest.approx(roc_auc_score(*ranking, max_fpr=rate), abs=1e-12)


@given(rankings())
def test_delong_is_the_direct_computation(ranking: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = ranking
    area, variance = metrics.delong(metrics.rank(labels, scores))
    by_lens, by_non_lens = wins(labels, scores)
    assert area == pytest.approx(by_lens.mean(), abs=1e-12)
    assert variance == pytest.approx(variance_of_mean(by_lens) + variance_of_mean(by_non_lens), abs=1e-12)


@given(rankings(), st.randoms(use_true_random=False))
def test_the_paired_test_is_the_direct_computation(ranking: tuple[np.ndarray, np.ndarray], random: object) -> None:
    labels, one = ranking
    other = np.array([random.choice([-1.0, 0.0, 0.5, 2.0]) for _ in labels])  # type: ignore[attr-defined]
    found = metrics.compare(labels, one, other)
    difference = [a - b for a, b in zip(wins(labels, one), wins(labels, other), strict=True)]
    assert found.difference == pytest.approx(difference[0].mean(), abs=1e-12)
    sigma = np.sqrt(sum(variance_of_mean(part) for part in difference))
    if sigma > 1e-9:
        assert found.ci95[1] - found.ci95[0] == pytest.approx(2 * norm.ppf(0.975) * sigma, abs=1e-9)
        assert found.p_value == pytest.approx(2 * norm.sf(abs(found.difference) / sigma), abs=1e-9)


def wins(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the other class that each lens, and each non-lens, is ranked right against: O(n^2)."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    pairs = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    return pairs.mean(axis=1), pairs.mean(axis=0)


def variance_of_mean(values: np.ndarray) -> float:
    return float(values.var(ddof=1) / len(values)) if len(values) > 1 else 0.0


def test_a_ranking_does_not_differ_from_itself() -> None:
    labels, scores = binormal(30, 40)
    same = metrics.compare(labels, scores, scores)
    assert (same.difference, same.p_value) == (0.0, 1.0)
    better = metrics.compare(labels, labels + 0.01 * scores, scores)
    assert better.difference > 0
    assert better.p_value < 0.01


@given(rankings())
def test_the_interval_holds_the_auc_and_stays_within_0_and_1(ranking: tuple[np.ndarray, np.ndarray]) -> None:
    curve = metrics.rank(*ranking)
    area, variance = metrics.delong(curve)
    low, high = metrics.interval(area, variance, int(min(curve.lenses, curve.non_lenses)))
    assert 0 <= low <= area <= high <= 1


def test_a_perfect_ranking_does_not_claim_certainty() -> None:
    low, high = metrics.interval(1.0, 0.0, 5)
    assert high == 1.0
    assert 0.4 < low < 0.6


# ---- the top of the ranking -------------------------------------------------------------------------------------


def test_tpr_counts_lenses_above_the_false_positive_of_that_number() -> None:
    #         three lenses, the first false positive, one lens, nine more false positives, one lens
    labels = np.array([1, 1, 1, 0, 1, *[0] * 9, 1])
    curve = metrics.rank(labels, np.arange(len(labels))[::-1].astype(float))
    assert metrics.completeness_before(curve, 1) == 3 / 5
    assert metrics.completeness_before(curve, 10) == 4 / 5
    assert np.isnan(metrics.completeness_before(curve, 11))
    assert metrics.completeness_at_rate(curve, 0.0) == 3 / 5
    assert metrics.completeness_at_rate(curve, 0.1) == 4 / 5
    assert metrics.completeness_at_rate(curve, 1.0 - 1e-9) == 4 / 5


@given(rankings(), st.integers(1, 5))
def test_tpr_is_the_direct_count_with_ties_against_us(ranking: tuple[np.ndarray, np.ndarray], number: int) -> None:
    labels, scores = ranking
    negatives = np.sort(scores[labels == 0])[::-1]
    expected = (scores[labels == 1] > negatives[number - 1]).mean() if len(negatives) >= number else np.nan
    np.testing.assert_equal(float(metrics.completeness_before(metrics.rank(labels, scores), number)), expected)


def test_all_ties_find_nothing_before_a_false_positive() -> None:
    curve = metrics.rank(np.array([1, 0, 1]), np.zeros(3))
    assert metrics.auc(curve) == 0.5
    assert metrics.completeness_before(curve, 1) == 0.0
    assert metrics.average_precision(curve) == pytest.approx(2 / 3)


def test_a_selection_in_a_survey_of_rare_lenses() -> None:
    labels, scores = np.repeat([1, 0], [100, 1000]), np.concatenate([np.arange(100) + 1000.5, np.arange(1000)])
    scores[100:110] = 2000  # ten false positives above all lenses
    found = metrics.select(metrics.rank(labels, scores), 0.8, 1e-3, 1_000_000)
    assert (found.true_positives, found.false_positives, found.completeness) == (80, 10, 0.8)
    assert found.threshold == 1020.5
    assert found.candidates == pytest.approx(1_000_000 * (0.001 * 0.8 + 0.999 * 0.01))
    assert found.purity == pytest.approx(800 / found.candidates)
    assert found.purity_at_least < found.purity
    assert found.candidates_at_most > found.candidates


def test_no_false_positive_at_all_does_not_promise_a_pure_survey() -> None:
    labels, scores = np.repeat([1, 0], [50, 200]), np.arange(250)[::-1]
    found = metrics.select(metrics.rank(labels, scores), 1.0, 1e-3, 1_000_000)
    assert found.purity == 1.0
    assert found.purity_at_least == pytest.approx(1e-3 / (1e-3 + 0.999 * (1 - 0.05 ** (1 / 200))), rel=1e-6)


# ---- resampling -------------------------------------------------------------------------------------------------

STATISTICS = {
    "auc": metrics.auc,
    "tpr10": partial(metrics.completeness_before, false_positives=10),
    "average_precision": metrics.average_precision,
}


def test_the_bootstrap_agrees_with_delong_and_holds_the_value() -> None:
    labels, scores = binormal(400, 600)
    curve = metrics.rank(labels, scores)
    found = metrics.bootstrap(curve, metrics.resample(curve), STATISTICS)
    np.testing.assert_allclose(found["auc"], metrics.interval(*metrics.delong(curve), 400), atol=5e-3)
    for name, statistic in STATISTICS.items():
        low, high = found[name]
        assert low < statistic(curve) < high


def test_the_bootstrap_of_a_large_ranking_is_that_of_all_its_places(monkeypatch: pytest.MonkeyPatch) -> None:
    curve = metrics.rank(*binormal(3000, 3000))
    whole = metrics.bootstrap(curve, metrics.resample(curve), STATISTICS)
    monkeypatch.setattr(metrics, "PLACES", 200)
    coarse = metrics.coarsen(curve)
    assert len(coarse.thresholds) <= 401
    assert metrics.auc(coarse) == pytest.approx(metrics.auc(curve), abs=1e-4)
    for name, interval in metrics.bootstrap(curve, metrics.resample(curve), STATISTICS).items():
        np.testing.assert_allclose(interval, whole[name], atol=0.02)


def test_groups_make_intervals_wider() -> None:
    """Each sample eight times over: as many rows, an eighth of the knowledge."""
    labels, scores = (np.repeat(values, 8) for values in binormal(60, 60))
    groups, curve = np.repeat(np.arange(120), 8), metrics.rank(labels, scores)
    alone = metrics.bootstrap(curve, metrics.resample(curve), STATISTICS)["auc"]
    together = metrics.bootstrap(curve, metrics.resample_groups(curve, labels, scores, groups), STATISTICS)["auc"]
    assert (together[1] - together[0]) / (alone[1] - alone[0]) == pytest.approx(np.sqrt(8), rel=0.15)


def test_the_intervals_cover_the_truth() -> None:
    truth, covered = norm.cdf(1.5 / np.sqrt(2)), np.zeros(2)
    for seed in range(300):
        curve = metrics.rank(*binormal(60, 90, seed=seed))
        area, variance = metrics.delong(curve)
        drawn = metrics.bootstrap(curve, islice(metrics.resample(curve, seed), 4), {"auc": metrics.auc})["auc"]
        covered += [low <= truth <= high for low, high in (metrics.interval(area, variance, 60), drawn)]
    assert (covered / 300 >= 0.91).all()
    assert (covered / 300 <= 0.98).all()


def test_what_cannot_be_said_has_no_interval() -> None:
    curve = metrics.rank(*binormal(20, 5))
    found = metrics.bootstrap(curve, metrics.resample(curve), STATISTICS)
    assert found["tpr10"] is None
    assert found["auc"] is not None


# ---- probabilities ----------------------------------------------------------------------------------------------


@given(rankings())
def test_brier_is_scikit_learns(ranking: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = ranking
    probabilities = 1 / (1 + np.exp(-scores))
    assert metrics.brier(labels, probabilities) == pytest.approx(brier_score_loss(labels, probabilities), abs=1e-12)


def test_the_calibration_error_is_the_gap_by_bins() -> None:
    labels, stated = np.array([1, 0, 1, 1, 0, 0, 0, 1]), np.array([0.9, 0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1])
    found = metrics.reliability(labels, stated)
    assert found.expected_calibration_error == pytest.approx(0.15)
    assert metrics.reliability(np.array([1, 0]), np.array([1.0, 0.0])).expected_calibration_error == 0


# ---- what cannot be ranked --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "scores", "said"),
    [
        ([], [], "no samples"),
        ([1, 0, -1], [1, 2, 3], "must be 0 or 1"),
        ([1, 0], [np.nan, 0], "1 of 2 scores are NaN"),
    ],
)
def test_what_cannot_be_ranked_is_refused(labels: list[int], scores: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        metrics.rank(np.array(labels), np.array(scores))
