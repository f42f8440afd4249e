import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_hpc.packing.gathering import Strip, Windows, gather, window_starts

SHAPE = (30, 40)
IMAGE = np.arange(SHAPE[0] * SHAPE[1], dtype=np.float32).reshape(SHAPE)

sizes = st.tuples(st.integers(1, 50), st.integers(1, 60))
starts = st.lists(st.tuples(st.integers(-70, 50), st.integers(-80, 60)), min_size=1, max_size=8)


@given(sizes, starts)
def test_gathered_cutouts_are_those_of_a_padded_image(
    size: tuple[int, int], places: list[tuple[int, int]]
) -> None:
    windows = Windows(np.array(places), size, SHAPE)
    gathered = gather(Strip(0, IMAGE), windows)

    margin = 200
    padded = np.pad(IMAGE, margin, constant_values=np.nan)
    for number, (row, column) in enumerate(places):
        top, left = row + margin, column + margin
        expected = padded[top : top + size[0], left : left + size[1]]
        found = gathered.numbers[number].copy()
        if gathered.is_outside is not None:
            found[gathered.is_outside[number]] = np.nan
        np.testing.assert_array_equal(found, expected)


@given(sizes, starts)
def test_a_strip_of_the_needed_rows_is_enough(
    size: tuple[int, int], places: list[tuple[int, int]]
) -> None:
    windows = Windows(np.array(places), size, SHAPE)
    is_needed = windows.needed_rows()
    rows = {row + offset for row, _ in places for offset in range(size[0])}
    assert set(np.flatnonzero(is_needed).tolist()) == rows & set(range(SHAPE[0]))
    if not is_needed.any():
        return

    # Rows that are not needed hold anything.
    begin, last = np.flatnonzero(is_needed)[[0, -1]].tolist()
    strip = np.where(is_needed[:, None], IMAGE, -1)[begin : last + 1]
    part, whole = gather(Strip(begin, strip), windows), gather(Strip(0, IMAGE), windows)
    if whole.is_outside is None:
        np.testing.assert_array_equal(part.numbers, whole.numbers)
    else:
        is_inside = ~whole.is_outside
        np.testing.assert_array_equal(part.is_outside, whole.is_outside)
        np.testing.assert_array_equal(part.numbers[is_inside], whole.numbers[is_inside])


@pytest.mark.parametrize(
    ("pixel", "size", "start"),
    [
        (7.0, 5, 5),  # the pixel that holds the point is the middle
        (7.49, 5, 5),
        (7.51, 5, 6),
        (7.0, 4, 5),  # the nearest corner of a pixel is the middle
        (7.01, 4, 6),
        (-0.5, 1, -1),
    ],
)
def test_cutouts_begin_where_those_of_astropy_do(pixel: float, size: int, start: int) -> None:
    found = window_starts(np.array([[pixel, 3.0]]), (5, size))
    assert found.tolist() == [[1, start]]


@pytest.mark.parametrize("nowhere", [np.nan, np.inf, -np.inf, 1e300])
def test_what_has_no_place_lies_outside(nowhere: float) -> None:
    windows = Windows(window_starts(np.array([[nowhere, 3.0]]), (5, 5)), (5, 5), SHAPE)
    is_outside = gather(Strip(0, IMAGE), windows).is_outside
    assert is_outside is not None
    assert is_outside.all()
