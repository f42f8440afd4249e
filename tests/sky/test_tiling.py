import itertools

import numpy as np
import pytest
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from lens_hpc.errors import UserError
from lens_hpc.sky import tiling
from lens_hpc.sky.tiling import (
    LEAST_TILE,
    SEPARATION,
    SKY_OF_OBJECT,
    Tiling,
    Window,
    fit_tiling,
    scatter,
    square,
)

counts = st.integers(1, 4)


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    overlap = draw(st.integers(1, 9))
    tile_size = draw(st.integers(3 * overlap, 60))
    return Tiling(draw(counts), draw(counts), tile_size, overlap, 0.1)


@settings(max_examples=30)
@given(tilings(), st.integers(5, 40))
def test_each_pixel_is_in_one_cell_which_a_tile_holds_whole_or_not(
    tiles: Tiling, cell_size: int
) -> None:
    covered = np.zeros(tiles.shape, dtype=int)
    survey = Window(0, tiles.shape[0], 0, tiles.shape[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiling, "CELL_SIZE", cell_size)
        cells = tiles.cells()
        for number, cell in enumerate(cells):
            covered[survey.slices_of(cell)] += 1
            assert max(cell.shape) <= cell_size
            assert tiles.cell_of(cell.top, cell.left) == number
            assert tiles.cell_of(cell.bottom - 1, cell.right - 1) == number
    assert (covered == 1).all()

    in_tiles = 0 * covered
    for tile in tiles.tiles().values():
        in_tiles[survey.slices_of(tile)] += 1
        for cell in cells:
            common = tile.common(cell)
            assert 0 in common.shape or common == cell
    assert in_tiles.min() == 1


@settings(max_examples=30)
@given(tilings())
def test_neighbours_overlap_and_give_the_same_position_to_a_pixel(tiles: Tiling) -> None:
    windows = list(tiles.tiles().values())
    for one, other in itertools.pairwise(windows):
        if other.left == 0:
            continue
        assert one.common(other).shape == (tiles.tile_size, tiles.overlap)
        row, column = other.top + 3, other.left

        positions = [tiles.position(row, column)]
        for window in (one, other):
            wcs = WCS(tiles.header(window.top, window.left))
            found = wcs.wcs_pix2world(column - window.left, row - window.top, 0)
            positions.append((float(found[0]), float(found[1])))
        np.testing.assert_allclose(positions, [positions[0]] * 3, rtol=0, atol=1e-10)


def test_north_is_up_and_east_to_the_left() -> None:
    tiles = Tiling(1, 1, 101, 10, pixel_scale=0.2)
    assert tiles.position(50, 50) == pytest.approx(tiling.CENTRE)
    right_ascension, declination = tiles.position(60, 50)
    assert declination - tiling.CENTRE[1] == pytest.approx(2 / 3600)
    assert right_ascension == pytest.approx(tiling.CENTRE[0])
    assert tiles.position(50, 40)[0] > tiling.CENTRE[0]


@given(counts, counts, st.integers(1, 5000), st.integers(32, 100))
def test_tiles_have_the_wanted_sky_for_each_object_and_hardly_more(
    rows: int, columns: int, objects: int, size: int
) -> None:
    tiles = fit_tiling((rows, columns), None, objects, size, 0.1)
    wanted = objects * SKY_OF_OBJECT * size**2
    assert np.prod(tiles.shape) >= wanted

    smaller = Tiling(rows, columns, tiles.tile_size - 1, size, 0.1)
    is_least = tiles.tile_size == LEAST_TILE * size
    assert is_least or np.prod(smaller.shape) < wanted


@pytest.mark.parametrize(("tile_size", "objects"), [(239, 4), (900, 200)])
def test_tiles_without_room_are_refused(tile_size: int, objects: int) -> None:
    enough = fit_tiling((1, 1), None, objects, 80, 0.1).tile_size
    with pytest.raises(UserError, match=f"no room for {objects} .* which makes it {enough}"):
        fit_tiling((1, 1), tile_size, objects, 80, 0.1)
    assert fit_tiling((1, 1), enough, objects, 80, 0.1).tile_size == enough


@given(counts, counts, st.integers(1, 60), st.integers(32, 41), st.integers(0, 99))
def test_places_lie_in_the_survey_apart_from_each_other(
    rows: int, columns: int, objects: int, size: int, seed: int
) -> None:
    tiles = fit_tiling((rows, columns), None, objects, size, 0.1)
    places = scatter(np.random.default_rng(seed), tiles, objects, size)
    assert places.shape == (objects, 2)
    assert pdist(places).min(initial=np.inf) >= SEPARATION * size

    middles = places + (size - 1) / 2
    assert (middles > -0.5).all()
    assert (middles < np.array(tiles.shape) - 0.5).all()


def test_places_are_also_at_edges_and_in_overlaps() -> None:
    tiles = fit_tiling((2, 2), None, 2000, 40, 0.1)
    places = scatter(np.random.default_rng(0), tiles, 2000, 40)
    middles = places + 19.5
    is_beyond = (places < 0) | (places + 40 > tiles.shape)
    assert 20 < is_beyond.any(axis=1).sum() < 200

    in_several = 0
    for row, column in middles.astype(int).tolist():
        pixel = square(row, column, 1)
        holders = [tile for tile in tiles.tiles().values() if tile.common(pixel) == pixel]
        in_several += len(holders) > 1
    assert 20 < in_several < 200

    # All over the survey: about as many in each quarter.
    is_above = middles > np.array(tiles.shape) / 2
    quarters = np.bincount(is_above @ [1, 2], minlength=4)
    assert quarters.min() > 420


def test_surveys_of_two_seeds_lie_elsewhere_and_one_seed_in_one_place() -> None:
    centres = [tiling.draw_centre(np.random.default_rng(seed)) for seed in (0, 1, 2, 0)]
    assert centres[0] == centres[3]
    rounded = {(round(ra), round(dec)) for ra, dec in centres}
    assert len(rounded) == 3
    for ra, dec in centres:
        assert 0 <= ra < 360
        assert abs(dec) <= 60
