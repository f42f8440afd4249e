from collections import defaultdict
from fractions import Fraction
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from lens_hpc.metrics import run_swap

ITEMS, GRADERS = 12, 4
PRIOR = 0.01
TRUTH = np.array([1, 1, 1, 0, 0, 0, 0, -1, -1, -1, -1, -1])

Vote = tuple[int, int, bool]
votes = st.lists(
    st.tuples(st.integers(0, ITEMS - 1), st.integers(0, GRADERS - 1), st.booleans()),
    min_size=1,
    max_size=60,
)


def in_columns(votes: list[Vote]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    item, grader, says_lens = zip(*votes, strict=True)
    return np.array(item), np.array(grader), np.array(says_lens, bool)


def exact_posteriors(votes: list[Vote]) -> list[float]:
    """Apply Bayes' rule grade by grade, in fractions."""
    right: dict[tuple[int, int], Fraction] = defaultdict(lambda: Fraction(1))
    seen: dict[tuple[int, int], Fraction] = defaultdict(lambda: Fraction(2))
    for item, grader, says_lens in votes:
        truth = int(TRUTH[item])
        right[grader, truth] += says_lens == truth
        seen[grader, truth] += 1

    probability = [Fraction(PRIOR)] * ITEMS
    for item, grader, says_lens in votes:
        of_lens = right[grader, 1] / seen[grader, 1]
        of_other = right[grader, 0] / seen[grader, 0]
        if_lens = of_lens if says_lens else 1 - of_lens
        if_other = 1 - of_other if says_lens else of_other

        is_lens = probability[item] * if_lens
        is_other = (1 - probability[item]) * if_other
        probability[item] = is_lens / (is_lens + is_other)
    return [float(each) for each in probability]


@settings(deadline=None, max_examples=40)
@given(votes)
def test_posteriors_are_those_of_bayes_rule_grade_by_grade(votes: list[Vote]) -> None:
    swap = run_swap(*in_columns(votes), TRUTH, PRIOR)
    np.testing.assert_allclose(swap.posterior, exact_posteriors(votes), rtol=0, atol=1e-12)
    assert (swap.low <= swap.posterior).all()
    assert (swap.posterior <= swap.high).all()


@settings(deadline=None, max_examples=10)
@given(votes, st.randoms())
def test_the_order_of_the_grades_does_not_matter(votes: list[Vote], random: object) -> None:
    swap = run_swap(*in_columns(votes), TRUTH, PRIOR)
    votes.reverse()
    turned = run_swap(*in_columns(votes), TRUTH, PRIOR)
    np.testing.assert_allclose(turned.posterior, swap.posterior, rtol=1e-12)
    np.testing.assert_allclose(turned.low, swap.low, rtol=1e-9)
    np.testing.assert_allclose(turned.high, swap.high, rtol=1e-9)


def test_without_grades_everything_is_as_probable_as_before() -> None:
    nothing = np.zeros(0, np.int64)
    swap = run_swap(nothing, nothing, nothing.astype(bool), TRUTH, PRIOR)
    for values in (swap.posterior, swap.low, swap.high):
        np.testing.assert_allclose(values, PRIOR)


def test_a_grader_who_saw_nothing_that_is_known_counts_nothing() -> None:
    swap = run_swap(*in_columns([(7, 0, True), (8, 0, False)]), TRUTH, PRIOR)
    np.testing.assert_allclose(swap.posterior, PRIOR)
    # But he may be worth something, either way.
    assert swap.low[7] < PRIOR / 3
    assert swap.high[7] > PRIOR * 3


def test_two_who_disagree_leave_a_wider_interval_than_two_who_agree() -> None:
    known = [(item, grader, bool(TRUTH[item])) for item in range(7) for grader in (0, 1)]
    asked = [(7, 0, True), (7, 1, True), (8, 0, True), (8, 1, False)]
    swap = run_swap(*in_columns(known * 30 + asked), TRUTH, 0.5)
    agreeing, disagreeing = logit(swap.high[7:9]) - logit(swap.low[7:9])
    assert disagreeing > 1.5 * agreeing


def test_skills_are_recovered_and_posteriors_come_true() -> None:
    """Graders of any skill: each sees 40 lenses, 40 others, and one item that is asked."""
    rng = np.random.default_rng(1)
    graders, known, prior = 1000, 40, 0.3
    says_lens_of = rng.random((graders, 2))  # of what is none, and of a lens
    truth = np.concatenate([np.repeat([1, 0], known), (rng.random(graders) < prior)])

    asked = 2 * known + np.arange(graders)
    item = np.concatenate([np.tile(np.arange(2 * known), graders), asked])
    grader = np.concatenate([np.repeat(np.arange(graders), 2 * known), np.arange(graders)])
    says_lens = rng.random(len(item)) < says_lens_of[grader, truth[item]]
    shown = np.where(np.arange(len(truth)) < 2 * known, truth, -1)
    swap = run_swap(item, grader, says_lens, shown, prior)

    # The posterior that would be right, if the skills were known.
    if_other, if_lens = np.where(says_lens[-graders:, np.newaxis], says_lens_of, 1 - says_lens_of).T
    expected = expit(logit(prior) + np.log(if_lens / if_other))
    holds = (swap.low[asked] <= expected) & (expected <= swap.high[asked])
    assert holds.mean() >= 0.93

    # Of the items with a posterior of about p, a share of about p are lenses: within 5 deviations.
    posterior = swap.posterior[asked]
    for low, high in pairwise([0, 0.05, 0.2, 0.4, 0.7, 1]):
        is_in = (low <= posterior) & (posterior < high)
        deviation = np.sqrt((posterior * (1 - posterior))[is_in].sum())
        assert deviation > 0
        assert abs((truth[asked] - posterior)[is_in].sum()) < 5 * deviation
