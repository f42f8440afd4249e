import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_hpc import metrics
from tests.metrics.rankings import Ranking, binormal, rankings


def test_tpr_counts_lenses_above_the_false_positive_of_that_number() -> None:
    # Three lenses, the first false positive, one lens, nine more false positives, one lens.
    labels = np.array([1, 1, 1, 0, 1, *[0] * 9, 1])
    curve = metrics.rank(labels, np.arange(len(labels))[::-1].astype(float))

    assert metrics.completeness_before(curve, 1) == 3 / 5
    assert metrics.completeness_before(curve, 10) == 4 / 5
    assert np.isnan(metrics.completeness_before(curve, 11))
    assert metrics.completeness_at_rate(curve, 0.0) == 3 / 5
    assert metrics.completeness_at_rate(curve, 0.1) == 4 / 5
    assert metrics.completeness_at_rate(curve, 1.0 - 1e-9) == 4 / 5


@given(rankings(), st.integers(1, 5))
def test_tpr_is_the_direct_count_with_ties_against_us(ranking: Ranking, number: int) -> None:
    labels, scores = ranking
    negatives = np.sort(scores[labels == 0])[::-1]
    expected = np.nan
    if len(negatives) >= number:
        expected = (scores[labels == 1] > negatives[number - 1]).mean()

    found = metrics.completeness_before(metrics.rank(labels, scores), number)
    np.testing.assert_equal(float(found), expected)


def test_all_ties_find_nothing_before_a_false_positive() -> None:
    curve = metrics.rank(np.array([1, 0, 1]), np.zeros(3))
    assert metrics.auc(curve) == 0.5
    assert metrics.completeness_before(curve, 1) == 0.0
    assert metrics.average_precision(curve) == pytest.approx(2 / 3)


def test_a_selection_in_a_survey_of_rare_lenses() -> None:
    labels = np.repeat([1, 0], [100, 1000])
    scores = np.concatenate([np.arange(100) + 1000.5, np.arange(1000)])
    scores[100:110] = 2000  # ten false positives above all lenses

    found = metrics.select(metrics.ScoredSample(labels, scores), 0.8, 1e-3, 1_000_000)
    assert (found.true_positives, found.false_positives, found.completeness) == (80, 10, 0.8)
    assert found.threshold == 1020.5
    assert found.candidates == pytest.approx(1_000_000 * (0.001 * 0.8 + 0.999 * 0.01))
    assert found.purity == pytest.approx(800 / found.candidates)
    assert found.purity_at_least < found.purity
    assert found.candidates_at_most > found.candidates


def test_no_false_positive_at_all_does_not_promise_a_pure_survey() -> None:
    labels = np.repeat([1, 0], [50, 200])
    scores = np.arange(250)[::-1]
    found = metrics.select(metrics.ScoredSample(labels, scores), 1.0, 1e-3, 1_000_000)
    assert found.purity == 1.0

    highest_rate = 1 - 0.05 ** (1 / 200)
    expected = 1e-3 / (1e-3 + 0.999 * highest_rate)
    assert found.purity_at_least < expected
    assert found.candidates_at_most == pytest.approx(1_000_000 * (1e-3 + 0.999 * highest_rate))


@pytest.mark.parametrize(("found", "false"), [(1, 0), (5, 0), (25, 3), (45, 40), (50, 200)])
def test_the_purity_is_bounded_as_often_as_it_says(found: int, false: int) -> None:
    """The true values are drawn: those that C and F may have, where this was seen."""
    labels = np.repeat([1, 0], [50, 200])
    scores = np.concatenate([np.arange(50) < found, np.arange(200) < false]).astype(float)
    position = 0
    bound = metrics.purity_at_least(metrics.ScoredSample(labels, scores), position, 1e-3)

    rng = np.random.default_rng(0)
    completeness = rng.beta(found, 50 - found + 1, 100_000)
    rate = rng.beta(false + 1, max(200 - false, 1e-9), 100_000)
    purity = 1e-3 * completeness / (1e-3 * completeness + 0.999 * rate)
    assert np.mean(purity >= bound) == pytest.approx(0.95, abs=0.02)


def test_nothing_found_bounds_no_purity() -> None:
    sample = metrics.ScoredSample(np.array([0, 1, 1]), np.array([3.0, 2.0, 1.0]))
    bounds = metrics.purity_at_least(sample, np.arange(3), 1e-3)
    assert bounds[0] == 0
    assert (bounds[1:] > 0).all()


def test_rows_of_a_group_bound_no_more_than_one_of_them() -> None:
    labels, scores = binormal(40, 300)
    once = metrics.select(metrics.ScoredSample(labels, scores), 0.5, 1e-3, 1_000_000)
    copies = [np.repeat(values, 4) for values in (labels, scores, np.arange(340))]
    four_times = metrics.select(metrics.ScoredSample(*copies), 0.5, 1e-3, 1_000_000)
    assert four_times.purity_at_least == pytest.approx(once.purity_at_least)
    assert four_times.candidates_at_most == pytest.approx(once.candidates_at_most)
