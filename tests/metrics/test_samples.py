import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_hpc import metrics
from lens_hpc.metrics import ScoredSample
from tests.metrics.rankings import Ranking, binormal, rankings


@given(rankings())
def test_groups_of_one_sample_are_no_groups(ranking: Ranking) -> None:
    labels, scores = ranking
    _, variance = metrics.delong(metrics.rank(labels, scores))
    right = metrics.fractions_right(labels, scores)
    alone = ScoredSample(labels, scores, np.arange(len(labels)))

    assert ScoredSample(labels, scores).variance_of_means(*right) == pytest.approx(
        variance, abs=1e-12
    )
    assert alone.independent == ScoredSample(labels, scores).independent
    assert alone.smallest_sizes == pytest.approx(ScoredSample(labels, scores).smallest_sizes)


@given(rankings(), st.randoms(use_true_random=False))
def test_the_variance_by_groups_is_the_direct_computation(ranking: Ranking, random: object) -> None:
    """Obuchowski 1997, equations 4 to 7, group by group."""
    labels, scores = ranking
    groups = np.array([random.randrange(6) for _ in labels])  # type: ignore[attr-defined]
    by_lens, by_non_lens = metrics.fractions_right(labels, scores)
    area = by_lens.mean()

    lenses, others = {}, {}
    for group in set(groups):
        lenses[group] = sum(by_lens[groups[labels == 1] == group] - area)
        others[group] = sum(by_non_lens[groups[labels == 0] == group] - area)
    m, n = len(by_lens), len(by_non_lens)
    with_lenses = len(set(groups[labels == 1]))
    with_others = len(set(groups[labels == 0]))
    expected = 0.0
    if with_lenses > 1:
        expected += with_lenses / (with_lenses - 1) * sum(v**2 for v in lenses.values()) / m**2
    if with_others > 1:
        expected += with_others / (with_others - 1) * sum(v**2 for v in others.values()) / n**2
    if len(lenses) > 1:
        both = sum(lenses[group] * others[group] for group in lenses)
        expected += 2 * len(lenses) / (len(lenses) - 1) * both / (m * n)

    found = ScoredSample(labels, scores, groups).variance_of_means(by_lens, by_non_lens)
    assert found == pytest.approx(max(expected, 0), abs=1e-12)


def test_copies_of_a_sample_tell_nothing_new() -> None:
    labels, scores = binormal(40, 60)
    copies = [np.repeat(values, 5) for values in (labels, scores, np.arange(100))]
    sample = ScoredSample(*copies)
    assert sample.independent == (40, 60)
    assert sample.smallest_sizes == (40, 60)
    assert sample.sizes(5.0, 1.0, 1e9) == pytest.approx((40, 60))
    # Nothing is known of how alike the groups are: they count as if they were all the same.
    assert sample.sizes(1.0, 1.0, 0) == pytest.approx((40, 60))
    assert sample.sizes(1.0, 1.0, 1e9) == pytest.approx((200, 300))
    low, high = metrics.auc_interval(sample)
    np.testing.assert_allclose(
        (low, high), metrics.auc_interval(ScoredSample(labels, scores)), atol=0.02
    )


@given(rankings(), st.randoms(use_true_random=False))
def test_the_sizes_by_number_above_are_those_of_the_variance_by_groups(
    ranking: Ranking, random: object
) -> None:
    labels, scores = ranking
    groups = np.array([random.randrange(6) for _ in labels])  # type: ignore[attr-defined]
    sample = ScoredSample(labels, scores, groups)
    lenses = int(sample.curve.lenses)
    by_group = np.bincount(groups[labels == 1])
    group_count = np.count_nonzero(by_group)
    largest = np.square(by_group).sum() / lenses

    for found, threshold in zip(sample.curve.true_positives, sample.curve.thresholds, strict=True):
        share = found / lenses
        is_above = scores[labels == 1] >= threshold
        deviations = [
            (is_above[groups[labels == 1] == group] - share).sum() for group in set(groups)
        ]
        ratio = largest
        if 0 < share < 1 and group_count > 1:
            variance = group_count / (group_count - 1) * np.square(deviations).sum() / lenses**2
            ratio = min(max(variance / (share * (1 - share) / lenses), 1), largest)
        rarer = min(found, lenses - found)
        effect = (rarer * ratio + 4 * largest) / (rarer + 4)
        assert sample.sizes_by_number_above[0][int(found)] == pytest.approx(lenses / effect)


def test_without_groups_each_sample_counts() -> None:
    labels, scores = binormal(40, 60)
    lenses, non_lenses = ScoredSample(labels, scores).sizes_by_number_above
    assert np.array_equal(lenses, np.full(41, 40))
    assert np.array_equal(non_lenses, np.full(61, 60))
