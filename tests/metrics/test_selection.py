from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betaincinv
from scipy.stats import binom

from lens_hpc.metrics import blaker, threshold_of_rate

FRACTIONS = np.linspace(0.0005, 0.9995, 1999)


@cache
def coverage(trials: int) -> np.ndarray:
    """Return the probability that the interval holds each of FRACTIONS, by the binomial law."""
    found = np.arange(trials + 1)
    low, high = np.array([blaker(count, trials) for count in found.tolist()]).T
    holds = (low[:, np.newaxis] <= FRACTIONS) & (high[:, np.newaxis] >= FRACTIONS)
    return (binom.pmf(found[:, np.newaxis], trials, FRACTIONS) * holds).sum(axis=0)


@pytest.mark.parametrize("trials", [1, 2, 7, 20, 21, 33, 50, 100])
def test_the_interval_holds_any_fraction_in_95_percent_of_samples(trials: int) -> None:
    assert coverage(trials).min() >= 0.95


@pytest.mark.parametrize("trials", [20, 21, 33, 50, 100])
def test_nor_is_it_much_too_wide_from_twenty_trials_on(trials: int) -> None:
    is_middle = (FRACTIONS >= 0.1) & (FRACTIONS <= 0.9)
    assert coverage(trials)[is_middle].mean() <= 0.97


@settings(max_examples=30)
@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_it_is_about_the_fraction_and_within_that_of_clopper_and_pearson(
    counts: tuple[int, int],
) -> None:
    found, trials = counts
    low, high = blaker(found, trials)
    assert 0 <= low <= found / trials <= high <= 1
    assert blaker(trials - found, trials) == pytest.approx((1 - high, 1 - low))
    if found:
        assert low >= betaincinv(found, trials - found + 1, 0.025) - 1e-12


@given(
    st.lists(st.sampled_from([-1.5, 0.0, 0.25, 0.5, 2.0]), min_size=1, max_size=40),
    st.floats(0.001, 0.999),
)
def test_no_more_than_the_rate_is_selected_and_as_much_as_ties_allow(
    scores: list[float], rate: float
) -> None:
    logits = np.array(scores, np.float32)
    threshold = threshold_of_rate(logits, rate)
    assert (logits >= threshold).mean() <= rate + 1e-9

    below = logits[logits < threshold]
    assert len(below)
    assert (logits >= below.max()).sum() > np.floor(rate * len(logits) + 1e-9)
