import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from lens_hpc import metrics
from lens_hpc.metrics import ScoredSample
from tests.metrics.rankings import Ranking, binormal, rankings


@given(rankings(), st.data())
def test_lenses_in_the_top_are_counted_with_ties_against_us(
    ranking: Ranking, data: st.DataObject
) -> None:
    labels, scores = ranking
    objects = data.draw(st.integers(1, len(labels)))
    # By score, and of equal scores the non-lenses first.
    order = np.lexsort((labels, -scores))
    expected = labels[order][:objects].sum()
    found = metrics.lenses_in_top(metrics.rank(labels, scores), np.array([objects]))
    assert found.tolist() == [expected]


def test_what_is_found_by_inspecting_the_first_hundred_and_more() -> None:
    labels, scores = binormal(600, 2400)
    found = metrics.inspect_top(ScoredSample(labels, scores))
    assert [each.objects for each in found] == [30, 100, 500, 1000]

    best_first = labels[np.argsort(-scores)]
    for each in found:
        assert each.lenses == best_first[: each.objects].sum()
        assert each.share == each.lenses / 600
        # It is never shorter than Wilson's, and hardly longer.
        wilson = binomtest(each.lenses, 600).proportion_ci(method="wilson")
        np.testing.assert_allclose(each.share_ci95, wilson, atol=0.002)


@pytest.mark.parametrize(
    ("count", "objects"), [(100, []), (101, [100]), (999, [100, 500]), (1000, [10, 100, 500])]
)
def test_more_than_there_is_is_not_inspected(count: int, objects: list[int]) -> None:
    labels = np.arange(count) % 2
    found = metrics.inspect_top(ScoredSample(labels, np.arange(count)), has_intervals=False)
    assert [each.objects for each in found] == objects
    assert all(each.share_ci95 is None for each in found)


def test_copies_of_an_object_widen_the_interval_of_a_share() -> None:
    labels, scores = binormal(60, 600)
    once = metrics.share_interval(ScoredSample(labels, scores), 30)
    copies = [np.repeat(values, 4) for values in (labels, scores, np.arange(660))]
    four_times = metrics.share_interval(ScoredSample(*copies), 120)
    assert np.ptp(four_times) > 0.95 * np.ptp(once)


def test_the_share_of_non_lenses_has_their_number_as_trials() -> None:
    sample = ScoredSample(*binormal(60, 600))
    wilson = binomtest(12, 600).proportion_ci(method="wilson")
    np.testing.assert_allclose(metrics.share_interval(sample, 12, label=0), wilson, atol=0.002)


def test_few_groups_of_lenses_say_nothing_about_the_non_lenses() -> None:
    labels, scores = binormal(2, 600)
    grouped = metrics.share_interval(ScoredSample(labels, scores, np.arange(602)), 12, label=0)
    alone = metrics.share_interval(ScoredSample(labels, scores), 12, label=0)
    np.testing.assert_allclose(grouped, alone, atol=0.001)
