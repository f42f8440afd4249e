import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_hpc.packing.gathering import Strip, Windows, gather
from lens_hpc.packing.resampling import resample_plane
from lens_hpc.packing.wide_pixels import OnFineGrid, find_wide_windows, resample_cutouts

SHAPE = (20, 22)
IMAGE = np.random.default_rng(0).normal(5, 1, SHAPE)


def cut(
    corners: np.ndarray, size: tuple[int, int], ratio: float, keep_brightness: bool = False
) -> OnFineGrid:
    """Cut the image at corners (N, 2), x and y, on a grid with `ratio` times narrower pixels."""
    wide = find_wide_windows(corners, size, ratio)
    gathered = gather(Strip(0, IMAGE), Windows(wide.starts, wide.wide_size, SHAPE))
    return resample_cutouts(gathered.numbers, gathered.is_outside, wide, keep_brightness)


@given(st.floats(2, 7), st.floats(2, 7), st.integers(1, 12), st.integers(1, 12), st.floats(1, 4))
def test_the_light_of_a_cutout_is_that_of_its_part_of_the_sky(
    x: float, y: float, height: int, width: int, ratio: float
) -> None:
    found = cut(np.array([[x, y]]), (height, width), ratio).values[0]

    # Each wide pixel counts as much as of its area lies within the cutout.
    inside = []
    for corner, length, pixels in ((y, height, SHAPE[0]), (x, width, SHAPE[1])):
        edges = np.arange(pixels + 1) - 0.5
        clipped = np.clip(edges, corner, corner + length / ratio)
        inside.append(np.diff(clipped))
    expected = inside[0] @ IMAGE @ inside[1]
    assert found.sum() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("keep_brightness", [False, True])
@pytest.mark.parametrize("ratio", [1.5, 2.0, 3.0])
def test_a_cutout_around_the_middle_is_that_of_a_stamp(ratio: float, keep_brightness: bool) -> None:
    height, width = 12, 15
    middle = (np.array(SHAPE[::-1]) - 1) / 2
    corner = middle - np.array([width, height]) / 2 / ratio
    found = cut(corner[None], (height, width), ratio, keep_brightness).values[0]

    expected = resample_plane(IMAGE, ratio, height, width, keep_brightness)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_pixels_that_hold_nothing_spread_and_give_nothing() -> None:
    corners = np.array([[3.2, 4.1]])
    wide = find_wide_windows(corners, (6, 6), 2.0)
    values = gather(Strip(0, IMAGE), Windows(wide.starts, wide.wide_size, SHAPE)).numbers.copy()
    values[0, 1, 2] = np.nan
    found = resample_cutouts(values, None, wide, keep_brightness=False)

    values[0, 1, 2] = 0
    expected = resample_cutouts(values, None, wide, keep_brightness=False)
    np.testing.assert_array_equal(found.values, expected.values)
    assert not found.is_outside.any()

    # A fine pixel is bad where its light would change with that of the bad one.
    values[0, 1, 2] = 1
    brighter = resample_cutouts(values, None, wide, keep_brightness=False)
    np.testing.assert_array_equal(found.is_nothing, brighter.values != expected.values)


def test_beyond_the_mosaic_nothing_is_known() -> None:
    found = cut(np.array([[-2.5, 0.5]]), (4, 8), 2.0)
    assert found.is_outside[0, :, :4].all()
    assert not found.is_outside[0, :, 4:].any()
    np.testing.assert_array_equal(found.is_nothing, found.is_outside)
