import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from lens_hpc import metrics
from tests.metrics.rankings import Ranking, binormal, fractions_right, rankings, variance_of_mean


@given(rankings(), st.randoms(use_true_random=False))
def test_the_paired_test_is_the_direct_computation(ranking: Ranking, random: object) -> None:
    labels, one = ranking
    other = np.array([random.choice([-1.0, 0.0, 0.5, 2.0]) for _ in labels])  # type: ignore[attr-defined]
    found = metrics.compare_aucs(labels, one, other)

    one_lenses, one_non_lenses = fractions_right(labels, one)
    other_lenses, other_non_lenses = fractions_right(labels, other)
    by_lens = one_lenses - other_lenses
    by_non_lens = one_non_lenses - other_non_lenses
    assert found.difference == pytest.approx(by_lens.mean(), abs=1e-12)

    sigma = np.sqrt(variance_of_mean(by_lens) + variance_of_mean(by_non_lens))
    if sigma > 1e-9:
        low, high = found.ci95
        assert high - low == pytest.approx(2 * norm.ppf(0.975) * sigma, abs=1e-9)
        p_value = 2 * norm.sf(abs(found.difference) / sigma)
        assert found.p_value == pytest.approx(p_value, abs=1e-9)


def test_a_ranking_does_not_differ_from_itself() -> None:
    labels, scores = binormal(30, 40)
    same = metrics.compare_aucs(labels, scores, scores)
    assert (same.difference, same.p_value) == (0.0, 1.0)

    better = metrics.compare_aucs(labels, labels + 0.01 * scores, scores)
    assert better.difference > 0
    assert better.p_value < 0.01


@pytest.mark.parametrize(
    ("p_value", "shown"), [(np.nan, "unknown"), (1e-13, "< 1e-12"), (0.01234, "0.012")]
)
def test_a_p_value_is_shown_as_far_as_it_means_anything(p_value: float, shown: str) -> None:
    assert metrics.Difference(0.1, (0.0, 0.2), p_value).shown_p == shown
