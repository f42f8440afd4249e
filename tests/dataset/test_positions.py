import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_hpc.dataset.positions import find_nearest, first_of_each_place

ARCSEC = 1 / 3600


@given(st.floats(0, 360), st.floats(-90, 90), st.floats(0.01, 5), st.floats(0, 2 * np.pi))
def test_the_distance_is_that_on_the_sphere(
    right_ascension: float, declination: float, separation: float, angle: float
) -> None:
    """A point at that distance in that direction, by the formulas of a spherical triangle."""
    start = np.radians(declination)
    distance = np.radians(separation * ARCSEC)
    end = np.arcsin(
        np.sin(start) * np.cos(distance) + np.cos(start) * np.sin(distance) * np.cos(angle)
    )
    along = np.arctan2(
        np.sin(angle) * np.sin(distance) * np.cos(start),
        np.cos(distance) - np.sin(start) * np.sin(end),
    )
    other = [(right_ascension + np.degrees(along)) % 360, np.degrees(end)]
    numbers, found = find_nearest(np.array([[right_ascension, declination]]), np.array([other]))
    assert numbers.tolist() == [0]
    assert found[0] == pytest.approx(separation, rel=1e-3, abs=2e-3)


@pytest.mark.parametrize(
    ("one", "other"),
    [((359.9999, 0), (0.0001, 0)), ((0, 89.9999), (180, 89.9999)), ((12, -90), (200, -90))],
    ids=["across 0 degrees", "across the pole", "at the pole"],
)
def test_neighbours_of_very_different_right_ascension(one: tuple, other: tuple) -> None:
    numbers, found = find_nearest(np.array([one], float), np.array([other], float), 2.0)
    assert numbers.tolist() == [0]
    assert found[0] <= 0.7201


def test_what_is_farther_than_the_limit_is_not_found() -> None:
    positions = np.array([[10.0, 0], [10, 1]])
    numbers, found = find_nearest(positions, np.array([[10, 1.9 * ARCSEC]]), 2.0)
    assert numbers.tolist() == [0, 1]
    np.testing.assert_allclose(found, [1.9, np.inf])
    _, at_any_distance = find_nearest(np.array([[0.0, -90]]), np.array([[5.0, 90]]))
    assert at_any_distance[0] == pytest.approx(180 * 3600)


def test_a_place_that_is_listed_twice_is_one() -> None:
    positions = np.array([[10, 0], [20, 0], [10, ARCSEC], [360, 0], [0, ARCSEC]])
    assert first_of_each_place(positions, 2.0).tolist() == [0, 1, 3]
    assert first_of_each_place(positions, 0.5).tolist() == [0, 1, 2, 3, 4]
