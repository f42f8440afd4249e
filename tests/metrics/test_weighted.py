import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, hypergeom

from lens_hpc.metrics import SurveyEstimate, estimate_survey

CERTAIN = np.ones(50)
NOTHING = np.zeros(0, bool), np.zeros(0)


def draw(
    rng: np.random.Generator, others: int, lenses: int, sampled: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw so many of others and lenses: what is a lens, and with which chance it was drawn."""
    found = rng.hypergeometric(lenses, others, sampled)
    return np.arange(sampled) < found, np.full(sampled, sampled / (others + lenses))


def estimate(
    selected: tuple[np.ndarray, np.ndarray], *rest: tuple[np.ndarray, np.ndarray]
) -> SurveyEstimate:
    parts = [selected, *rest]
    is_lens, probability = (np.concatenate(values) for values in zip(*parts, strict=True))
    return estimate_survey(is_lens, np.arange(len(is_lens)) < len(selected[0]), probability)


def holds(interval: tuple[float, float], truth: float) -> bool:
    return interval[0] - 1e-9 <= truth <= interval[1] + 1e-9


@pytest.mark.parametrize("probability", [0.01, 0.05, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_the_lenses_of_a_survey_lie_in_their_interval(probability: float) -> None:
    """Each number of lenses there may be, by the exact probability of what is sampled of them."""
    sampled = np.arange(80)
    no_lens = np.zeros(1, bool), np.full(1, probability)
    intervals, values = [], []
    for count in sampled:
        lenses = np.ones(count, bool), np.full(count, probability)
        result = estimate(NOTHING, no_lens, lenses).lenses
        assert result is not None
        intervals.append(result.ci95)
        values.append(result.value)

    low, high = np.array(intervals).T
    for truth in np.unique(np.geomspace(1, 40 / probability, 60).astype(int)):
        chances = binom.pmf(sampled, truth, probability)
        assert chances @ ((low <= truth) & (truth <= high)) >= 0.95
        # And the estimate has no bias.
        assert chances @ values == pytest.approx(truth, rel=1e-6)


@pytest.mark.parametrize(
    ("rest", "lenses", "sampled", "found"),
    [
        (100_000, 40, 500, 60),
        (100_000, 40, 5000, 60),
        (10_000, 100, 500, 50),
        (900, 20, 450, 30),
        (900, 5, 800, 3),
        (100_000, 0, 500, 4),
    ],
)
def test_completeness_is_held_where_a_random_slice_of_the_rest_was_graded(
    rest: int, lenses: int, sampled: int, found: int
) -> None:
    """Each number of lenses that the slice may have, by its exact probability."""
    top = np.arange(100) < found, np.ones(100)
    held = 0.0
    for count in range(lenses + 1):
        random = np.arange(sampled) < count, np.full(sampled, sampled / rest)
        completeness = estimate(top, random).completeness
        assert completeness is not None
        is_held = holds(completeness.ci95, found / (found + lenses))
        held += is_held * hypergeom.pmf(count, rest, lenses, sampled)
    assert held >= 0.95


def test_completeness_and_purity_are_held_with_several_chances() -> None:
    """The selection was half looked at, the rest at two rates."""
    rng = np.random.default_rng(4)
    held = []
    for _ in range(200):
        found = draw(rng, others=300, lenses=80, sampled=190)
        uncertain = draw(rng, others=950, lenses=50, sampled=300)
        random = draw(rng, others=20_000, lenses=60, sampled=800)
        result = estimate(found, uncertain, random)
        assert result.completeness is not None
        assert result.purity is not None
        assert result.lenses is not None
        held.append(
            [
                holds(result.completeness.ci95, 80 / 190),
                holds(result.purity.ci95, 80 / 380),
                holds(result.lenses.ci95, 190),
            ]
        )
    assert (np.mean(held, axis=0) >= 0.93).all()


def test_what_was_looked_at_completely_is_certain() -> None:
    is_lens = np.arange(50) % 5 == 0
    result = estimate((is_lens, CERTAIN), (is_lens[:20], CERTAIN[:20]))
    assert result.completeness is not None
    assert result.completeness.ci95 == (10 / 14, 10 / 14)
    assert result.purity is not None
    assert result.purity.ci95 == (10 / 50, 10 / 50)
    assert result.lenses is not None
    assert result.lenses.ci95 == (14, 14)


def test_a_slice_without_lenses_leaves_room_for_some() -> None:
    top = np.ones(50, bool), CERTAIN
    result = estimate(top, (np.zeros(500, bool), np.full(500, 0.01)))
    assert result.completeness is not None
    assert result.completeness.value == 1
    # 368 lenses would all be missed with a probability of 0.025, 390 with one of 0.02.
    low, high = result.completeness.ci95
    assert 50 / (50 + 390) < low <= 50 / (50 + 368)
    assert high == 1


def test_nothing_is_told_of_what_was_not_sampled() -> None:
    lens, no_lens, chance = np.ones(1, bool), np.zeros(1, bool), np.full(1, 0.5)
    assert estimate((lens, chance)).completeness is None
    assert estimate((lens, chance)).lenses is None
    assert estimate(NOTHING, (lens, chance)).purity is None
    assert estimate(NOTHING, (lens, chance)).completeness is None
    assert estimate((no_lens, chance), (no_lens, chance)).completeness is None
    assert estimate(NOTHING) == SurveyEstimate(None, None, None)


@pytest.mark.parametrize("wrong", [0.0, 1.5, float("nan")])
def test_a_chance_that_is_none_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="inclusion probabilities"):
        estimate((np.ones(1, bool), np.array([wrong])))


objects = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.sampled_from([0.001, 0.1, 0.5, 1.0])),
    min_size=1,
    max_size=30,
)


@settings(deadline=None, max_examples=40)
@given(objects)
def test_intervals_are_about_their_values(sample: list[tuple[bool, bool, float]]) -> None:
    is_lens, is_selected, probability = map(np.array, zip(*sample, strict=True))
    result = estimate_survey(is_lens, is_selected, probability)
    for each in (result.completeness, result.purity, result.lenses):
        if each is not None:
            low, high = each.ci95
            assert 0 <= low <= each.value <= high
    for share in (result.completeness, result.purity):
        assert share is None or share.ci95[1] <= 1
