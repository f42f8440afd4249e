from pathlib import Path

import numpy as np
import pytest

from lens_hpc.errors import UserError
from lens_hpc.packing.mosaic_tiles import NO_TILE, assign_tiles, find_tiles, read_grids
from tests.packing.mosaic_surveys import SCALE_ARCSEC, make_header, make_recipe, noise, write_mosaic

SHAPE = (100, 100)
SIDE_DEGREES = 100 * SCALE_ARCSEC / 3600


def write_files(folder: Path, names: list[str]) -> None:
    """Write empty files, as only their names count."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_tiles_are_found_by_the_names_of_their_files(tmp_path: Path) -> None:
    write_files(tmp_path, ["b/g.fits", "b/r.fits", "a/r.fits", "a/g.fits", "a/weight.fits"])
    assert find_tiles(make_recipe(), tmp_path) == {
        "a": ("a/g.fits", "a/r.fits"),
        "b": ("b/g.fits", "b/r.fits"),
    }


def test_bands_may_have_paths_of_their_own_and_tiles_lack_some(tmp_path: Path) -> None:
    write_files(tmp_path, ["vis/VIS_7_v2.fits", "nir/J-7.fits", "nir/J-9.fits", "nir/J-x.fits"])
    path = {"g": r"vis/VIS_{tile}_{version}.fits", "r": r"nir/J-{tile:\d+}.fits"}
    assert find_tiles(make_recipe(mosaics={"path": path}), tmp_path) == {
        "7": ("vis/VIS_7_v2.fits", "nir/J-7.fits"),
        "9": (None, "nir/J-9.fits"),
    }


def test_two_files_of_one_tile_are_refused(tmp_path: Path) -> None:
    write_files(tmp_path, ["a_g_1.fits", "a_g_2.fits", "a_r_1.fits"])
    recipe = make_recipe(mosaics={"path": "{tile}_{band}_{version}.fits"})
    with pytest.raises(
        UserError, match=r"a_g_1\.fits and a_g_2\.fits are both of tile a, band g; move one away"
    ):
        find_tiles(recipe, tmp_path)


def test_no_file_that_fits_is_told_with_the_setting(tmp_path: Path) -> None:
    write_files(tmp_path, ["a_g.fits"])
    with pytest.raises(UserError, match=r"no file matches mosaics\.path = \{tile\}/\{band\}\.fits"):
        find_tiles(make_recipe(), tmp_path)


@pytest.mark.parametrize("path", ["{tile}/{band", "{tile}}.fits", "{tile:(}.fits", "{tile!r}.fits"])
def test_a_path_that_is_no_pattern_is_told(tmp_path: Path, path: str) -> None:
    write_files(tmp_path, ["a.fits"])
    with pytest.raises(UserError, match=r"mosaics\.path"):
        find_tiles(make_recipe(mosaics={"path": path + "{tile}"}), tmp_path)


# ---- which tile holds a position ----


def write_row_of_tiles(folder: Path, centres: list[float]) -> None:
    """Write tiles along the equator, in one band."""
    for number, centre in enumerate(centres):
        header = make_header(SHAPE, (centre % 360, 0.0))
        write_mosaic(folder / f"{number}.fits", noise(SHAPE), header)


def test_a_position_belongs_to_the_tile_whose_edge_is_farthest(tmp_path: Path) -> None:
    # Two that overlap by half, across right ascension 0, and two that are the same.
    write_row_of_tiles(tmp_path, [0, SIDE_DEGREES / 2, 90, 90])
    recipe = make_recipe(bands=["g"], mosaics={"path": "{tile}.fits"})
    grids = read_grids(recipe, tmp_path, find_tiles(recipe, tmp_path), range(4))
    assert grids.faults == {}

    steps = np.array([-0.6, -0.4, 0, 0.2, 0.3, 0.9, 1.1])
    positions = np.stack([steps * SIDE_DEGREES % 360, np.zeros(7)], axis=1)
    expected = [NO_TILE, 0, 0, 0, 1, 1, NO_TILE]
    assert assign_tiles(grids.grids, positions).tolist() == expected
    assert assign_tiles(grids.grids, np.array([[90, 0.0]])).tolist() == [2]
    assert assign_tiles(grids.grids, np.array([[np.nan, 0]])).tolist() == [NO_TILE]
    assert assign_tiles(grids.grids, np.zeros((0, 2))).tolist() == []


def test_the_tile_of_a_position_does_not_depend_on_the_others(tmp_path: Path) -> None:
    write_row_of_tiles(tmp_path, [0, SIDE_DEGREES / 2])
    recipe = make_recipe(bands=["g"], mosaics={"path": "{tile}.fits"})
    grids = read_grids(recipe, tmp_path, find_tiles(recipe, tmp_path), range(2)).grids
    rng = np.random.default_rng(0)
    positions = rng.uniform(-1, 1, (200, 2)) * SIDE_DEGREES
    together = assign_tiles(grids, positions)
    alone = [int(assign_tiles(grids, positions[[row]])[0]) for row in range(200)]
    assert together.tolist() == alone
    assert set(alone) == {NO_TILE, 0, 1}


def test_another_band_says_where_a_tile_lies_when_the_finest_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "g.fits").write_text("no image")
    write_mosaic(tmp_path / "a" / "r.fits", noise(SHAPE), make_header(SHAPE))
    recipe = make_recipe()
    tiles = find_tiles(recipe, tmp_path)
    assert read_grids(recipe, tmp_path, tiles, [0]).grids[0] is not None

    (tmp_path / "a" / "r.fits").write_text("no image")
    grids = read_grids(recipe, tmp_path, tiles, [0])
    assert grids.grids == [None]
    assert "a/g.fits: cannot be read as a mosaic" in grids.faults[0]


def test_links_that_lead_out_of_the_source_are_not_followed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "a").mkdir(parents=True)
    outside = write_mosaic(tmp_path / "g.fits", noise(SHAPE), make_header(SHAPE))
    (source / "a" / "g.fits").symlink_to(outside)
    recipe = make_recipe(bands=["g"])
    grids = read_grids(recipe, source, find_tiles(recipe, source), [0])
    assert "a/g.fits: a link leads out of the source folder" in grids.faults[0]

    recipe = make_recipe(bands=["g"], follow_links=True)
    assert read_grids(recipe, source, find_tiles(recipe, source), [0]).faults == {}
