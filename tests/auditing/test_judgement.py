from math import comb

import numpy as np
import pytest

from lens_hpc.auditing.judgement import (
    CHANCE_OF_SHARE_TOLD,
    EXPOSURE_LIMITS,
    NAME_LIMITS,
    OBJECT_LIMITS,
    judge_power,
    tell_apart,
)
from lens_hpc.auditing.shortcuts import MINIMUM_ROWS, Power, measure_rank_power


@pytest.mark.parametrize(("lenses", "non_lenses", "told"), [(20, 50, 10), (7, 30, 3), (40, 5, 5)])
def test_the_chance_is_that_of_an_order_at_random(lenses: int, non_lenses: int, told: int) -> None:
    values = np.where(np.arange(non_lenses) < told, 0, 1)
    found = tell_apart(values, np.ones(lenses))

    # Of all orders, those count in which the first `told` are non-lenses; counted, not sampled.
    together = lenses + non_lenses
    assert found.share == pytest.approx(told / non_lenses)
    assert found.chance == pytest.approx(comb(together - told, lenses) / comb(together, lenses))


def test_either_end_counts_and_missing_values_do_not() -> None:
    lenses = np.array([3.0, 4, np.nan])
    assert tell_apart(np.array([1.0, 2, 3, np.nan]), lenses).share == pytest.approx(2 / 3)
    assert tell_apart(np.array([3.0, 9]), lenses).share == 0.5
    assert tell_apart(np.array([np.nan]), lenses).share == 0


def test_classes_that_are_alike_are_not_notable() -> None:
    rng = np.random.default_rng(0)
    for lenses in (10, 30, 300):
        found = [tell_apart(*np.split(rng.normal(size=400), [lenses])) for _ in range(100)]
        assert not any(told.is_notable for told in found)
        assert min(told.chance for told in found) > CHANCE_OF_SHARE_TOLD


def test_a_name_is_never_a_leak() -> None:
    perfect = Power(auc=1, ci95=(0.99, 1), tpr0=1)
    assert judge_power("ids", perfect, NAME_LIMITS).verdict == "look"
    assert judge_power("flux", perfect, OBJECT_LIMITS).verdict == "leak"


def test_of_many_numbers_that_say_nothing_none_is_worth_a_look() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(2 * MINIMUM_ROWS) % 2
    areas = []
    for _ in range(200):
        power = measure_rank_power(labels, rng.normal(size=len(labels)))
        assert judge_power("noise", power, EXPOSURE_LIMITS).verdict == "fine"
        assert power is not None
        areas.append(power.auc)

    # The better of two directions: half a normal distribution.
    assert np.sqrt(np.mean(np.square(np.array(areas) - 0.5))) == pytest.approx(0.075, abs=0.01)
