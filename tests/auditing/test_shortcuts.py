from collections.abc import Callable

import numpy as np
import pytest

from lens_hpc.auditing.shortcuts import (
    EXPOSURE_NUMBERS,
    MINIMUM_ROWS,
    OBJECT_NUMBERS,
    Power,
    measure_centres,
    measure_cutouts,
    measure_power,
    measure_rank_power,
)

Measure = Callable[[np.ndarray, np.ndarray, np.ndarray | None], Power | None]


def test_a_cutout_is_measured_as_it_was_made() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal([[[[5.0]], [[8.0]]]], [[[[1.0]], [[2.0]]]], (1, 2, 64, 64))
    images[0, :, 32, 32] += 500
    images[0, 1, :16] = 8  # a quarter of the rows
    numbers = measure_cutouts(images.astype(np.float32))[0]

    total_flux, peak, sky_level, sky_rms, blank_lines = numbers.T
    assert len(numbers.T) == len(OBJECT_NUMBERS + EXPOSURE_NUMBERS)
    np.testing.assert_allclose(total_flux, 500, atol=300)
    np.testing.assert_allclose(peak, 500, atol=8)
    np.testing.assert_allclose(sky_level, [5, 8], atol=0.2)
    assert sky_rms[0] == pytest.approx(1, rel=0.1)
    np.testing.assert_allclose(blank_lines, [0, 1 / 8])


def test_the_centre_of_the_light_is_where_the_galaxy_is() -> None:
    rng = np.random.default_rng(0)
    offsets = rng.uniform(-3, 3, (50, 2))
    y, x = np.indices((40, 48))
    from_centre = np.hypot(
        x - 23.5 - offsets[:, 0, None, None], y - 19.5 - offsets[:, 1, None, None]
    )
    light = 20 * np.exp(-from_centre / 3)
    neighbour = 20 * np.exp(-np.hypot(x - 45, y - 3) / 2)
    images = light[:, None] + neighbour + rng.normal(5, 1, (50, 2, 40, 48))
    np.testing.assert_allclose(measure_centres(images), offsets, atol=0.25)
    np.testing.assert_array_equal(measure_centres(np.ones((2, 1, 8, 9))), 0)


def test_of_many_numbers_those_are_trained_on_that_tell_most() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    numbers = rng.normal(size=(200, 500))
    nothing = measure_power(labels, numbers, None)
    assert nothing is not None
    assert nothing.ci95[0] < 0.6

    numbers[:, 250] += 5 * labels
    numbers[:, 251] = 1
    power = measure_power(labels, numbers, None)
    assert power is not None
    assert power.auc > 0.98


@pytest.mark.slow
def test_a_tree_uses_what_lies_in_between_or_is_missing_and_an_order_does_not() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    in_between = np.where(labels == 1, rng.uniform(-1, 1, 400), rng.choice([-2, 2], 400))
    mostly_missing = np.where(labels == 1, np.nan, rng.normal(size=400))

    for values in (in_between, mostly_missing):
        power = measure_power(labels, values, None)
        assert power is not None
        assert power.auc > 0.99

    by_order = measure_rank_power(labels, in_between)
    assert by_order is not None
    assert by_order.auc < 0.6


def test_a_rank_counts_in_both_directions() -> None:
    labels = np.arange(200) % 2
    for values in (labels + 0.0, -labels + 0.0):
        power = measure_rank_power(labels, values)
        assert power is not None
        assert power.auc == 1


@pytest.mark.parametrize("measure", [measure_power, measure_rank_power])
def test_copies_of_a_row_tell_no_more_than_one(measure: Measure) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    values = labels + rng.normal(size=80)
    copies = [np.repeat(each, 9) for each in (labels, values, np.arange(80))]

    def width(power: Power | None) -> float:
        assert power is not None
        return float(np.ptp(power.ci95))

    of_rows = width(measure(copies[0], copies[1], None))
    of_groups = width(measure(*copies))
    assert of_groups > 2 * of_rows
    assert of_groups == pytest.approx(width(measure(labels, values, None)), rel=0.3)


def test_too_small_a_class_is_not_judged() -> None:
    labels = (np.arange(200) < MINIMUM_ROWS - 1).astype(int)
    assert measure_power(labels, labels + 0.0, None) is None
    assert measure_rank_power(labels, labels + 0.0) is None
