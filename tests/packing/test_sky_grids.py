import tempfile
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.packing.mosaic_files import open_mosaic
from lens_hpc.packing.sky_grids import SkyGrid, check_bands_agree, check_pixel_scale
from tests.packing.mosaic_surveys import SCALE_ARCSEC, Projection, make_header, write_mosaic

SHAPE = (40, 60)


def grid_of(header: fits.Header, shape: tuple[int, int] = SHAPE) -> SkyGrid:
    """Return the grid of a mosaic with this header."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_mosaic(Path(folder) / "g.fits", np.zeros(shape, np.uint8), header)
        with open_mosaic(path) as mosaic:
            return SkyGrid(mosaic.plane(None))


@settings(max_examples=30)
@given(
    st.floats(0, 360),
    st.floats(-90, 90),
    st.floats(0, 360),
    st.sampled_from(["TAN", "SIP", "TPV"]),
)
def test_positions_come_back_to_their_pixels(
    ra: float, dec: float, angle: float, projection: Projection
) -> None:
    grid = grid_of(make_header(SHAPE, (ra, dec), projection, angle_degrees=angle))
    points = np.random.default_rng(0).uniform(-0.5, [59.5, 39.5], (20, 2))
    found = grid.pixels_of(grid.positions_of(points))
    np.testing.assert_allclose(found, points, atol=2e-5)


@pytest.mark.parametrize("projection", ["TAN", "SIP", "TPV"])
def test_far_away_there_is_no_pixel(projection: Projection) -> None:
    grid = grid_of(make_header(SHAPE, (150, 2), projection))
    positions = np.array(
        [[330, -2], [150, -88], [60, 2], [150.2, 2], [np.nan, 2], [150, np.nan], [150, 2]]
    )
    found = grid.pixels_of(positions)
    assert np.isnan(found[:-1]).all()
    np.testing.assert_allclose(found[-1], [29.5, 19.5], atol=1e-5)

    margins = grid.margins_of(positions)
    assert np.isnan(margins[:-1]).all()
    assert margins[-1] == pytest.approx(20, abs=1e-5)


def test_the_margin_is_that_of_the_nearest_edge() -> None:
    grid = grid_of(make_header(SHAPE))
    points = np.array([[-0.5, 20], [3, 20], [57, 20], [30, 2], [30, 38.5], [-4, 20]])
    margins = grid.margins_of(grid.positions_of(points))
    np.testing.assert_allclose(margins, [0, 3.5, 2.5, 2.5, 1, -3.5], atol=1e-5)


@pytest.mark.parametrize(
    "words",
    [
        {"CTYPE1": None, "CTYPE2": None},
        {"CTYPE1": "X", "CTYPE2": "Y"},
        {"CTYPE1": "WAVE", "CTYPE2": "DEC--TAN"},
        {"CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN"},
        {"CD1_1": 0.0, "CD1_2": 0.0},
        {"CTYPE1": "RA---XYZ", "CTYPE2": "DEC--XYZ"},
    ],
)
def test_coordinates_that_are_none_of_the_sky_are_refused(words: dict[str, object]) -> None:
    header = make_header(SHAPE)
    for word, value in words.items():
        if value is None:
            del header[word]
        else:
            header[word] = value
    with pytest.raises(BadCutoutError, match=r"g\.fits.*"):
        check_pixel_scale(grid_of(header), SCALE_ARCSEC)


@pytest.mark.parametrize("projection", ["TAN", "SIP", "TPV"])
@pytest.mark.parametrize("dec", [0, 60, 89.99])
def test_the_pixel_scale_is_that_in_the_middle(dec: float, projection: Projection) -> None:
    grid = grid_of(make_header(SHAPE, (10, dec), projection))
    assert grid.pixel_scale == pytest.approx(SCALE_ARCSEC, rel=2e-3)
    check_pixel_scale(grid, SCALE_ARCSEC * 1.015)
    for wrong in (0.97, 1.03):
        with pytest.raises(BadCutoutError, match=r"pixel_scale says 0\.\d+; mend pixel_scale"):
            check_pixel_scale(grid, SCALE_ARCSEC * wrong)


@pytest.mark.parametrize("ratio", [1, 3])
def test_bands_agree_where_they_show_the_same_sky(ratio: int) -> None:
    finest = grid_of(make_header(SHAPE, scale_arcsec=SCALE_ARCSEC / ratio))
    shape = (SHAPE[0] // ratio, SHAPE[1] // ratio)
    header = make_header(shape)
    header["CRPIX1"] += 0.9 / ratio
    check_bands_agree(finest, grid_of(header, shape), ratio)

    header["CRPIX1"] += 0.2 / ratio
    with pytest.raises(BadCutoutError, match=r"put a position .* pixels from where"):
        check_bands_agree(finest, grid_of(header, shape), ratio)


def test_bands_that_begin_at_other_corners_agree() -> None:
    header = make_header(SHAPE)
    finest = grid_of(header)
    header["CRPIX1"] -= 20
    check_bands_agree(finest, grid_of(header, (40, 40)), 1)
    with pytest.raises(BadCutoutError):
        check_bands_agree(finest, grid_of(header, SHAPE), 1)


def test_positions_are_those_of_icrs() -> None:
    header = make_header(SHAPE)
    header["RADESYS"] = "FK5"
    header["EQUINOX"] = 1980.0
    grid = grid_of(header)
    expected = WCS(header).pixel_to_world(3, 7).icrs
    found = SkyCoord(*grid.positions_of(np.array([[3.0, 7.0]])).T, unit="deg")
    assert found[0].separation(expected).arcsec < 1e-6
