import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS
from scipy.stats import ks_2samp, kstest, poisson, uniform

from lens_hpc import Dataset
from lens_hpc.errors import UserError
from lens_hpc.sky.galaxies import NEIGHBOUR_RADIUS, NEIGHBOURS_PER_ARCMIN2, draw_neighbours
from lens_hpc.sky.mock_mosaics import (
    MockSky,
    PlacedObject,
    Stamp,
    _draw_field,
    draw_placed,
    make_mock_mosaics,
    paint,
)
from lens_hpc.sky.mock_survey import MockSurvey, SurveyDesign, draw_object, make_mock_survey
from lens_hpc.sky.photometry import Measured
from lens_hpc.sky.surveys import EUCLID, HSC, ZERO_POINT, ImagingSurvey
from lens_hpc.sky.tiling import Window, fit_tiling, square
from tests.conftest import call
from tests.kills import files_of


def make_design(survey: ImagingSurvey = EUCLID, **changes: Any) -> SurveyDesign:
    design = SurveyDesign(
        survey=survey,
        objects=12,
        seed=5,
        prevalence=0.5,
        size=survey.size,
        pixel_scale=survey.pixel_scale,
        bands=survey.bands,
    )
    return dataclasses.replace(design, **changes)


def make_sky(survey: ImagingSurvey = EUCLID, **changes: Any) -> MockSky:
    design = make_design(survey, **changes)
    tiles = fit_tiling((1, 1), None, design.objects, design.size, design.pixel_scale)
    return MockSky(design, tiles)


# ---- what is painted ----


@pytest.mark.parametrize("survey", [EUCLID, HSC])
@pytest.mark.parametrize("is_lens", [True, False])
def test_a_cutout_of_the_sky_holds_what_a_cutout_of_its_own_would(
    survey: ImagingSurvey, is_lens: bool
) -> None:
    """Without noise, to a small part of it: the cutout survey paints the same scene at once."""
    sky = make_sky(survey)
    place = (150, 90)
    placed = draw_placed(sky, 3, is_lens, place)
    window = square(*place, sky.design.size)
    reached = [each for each in placed.stamps if 0 not in window.common(each.window).shape]
    found = paint(window, sky.design.bands, reached)

    camera = sky.camera(0)
    drawn = draw_object(sky.rng(3), sky.design, camera, is_lens)
    wanted = drawn.crowded_scene().expose(camera)
    assert float(wanted.max()) > 10 * camera.sky[0]

    sigmas = (found - wanted) / camera.noise(wanted)
    assert float(sigmas.abs().max()) < 0.25
    assert float(sigmas.std()) < 0.05


def test_windows_of_the_sky_join_without_a_seam() -> None:
    sky = make_sky()
    stamps = draw_placed(sky, 1, True, (100, 100)).stamps[:1]
    whole = paint(Window(60, 220, 60, 220), sky.design.bands, stamps)
    left = paint(Window(60, 220, 60, 137), sky.design.bands, stamps)
    right = paint(Window(60, 220, 137, 220), sky.design.bands, stamps)
    assert (whole[:, :, :77] == left).all()
    assert (whole[:, :, 77:] == right).all()


def test_light_is_lost_in_the_noise_where_an_object_ends() -> None:
    """Else the square in which it is painted would show."""
    sky = make_sky()
    for number in range(8):
        stamp = draw_placed(sky, number, True, (0, 0)).stamps[0]
        flux = stamp.scene.expose(stamp.camera)
        edges = [flux[:, 0], flux[:, -1], flux[:, :, 0], flux[:, :, -1]]
        brightest = max(float(edge.max()) for edge in edges)
        assert brightest < 0.2 * stamp.camera.sky[0]


def test_the_field_is_as_dense_as_the_rings_and_leaves_them_out() -> None:
    sky = make_sky(objects=100)
    size = sky.design.size
    nowhere = PlacedObject(None, (-1e6, -1e6), (0.0, 0.0), [])  # type: ignore[arg-type]
    middles = [(300.0, 300.0), (900.0, 700.0)]
    objects = [nowhere._replace(middle=middle) for middle in middles]

    def places(stamps: list[Stamp]) -> np.ndarray:
        found = []
        for stamp in stamps:
            (light,) = stamp.scene.lights
            half_span = (size - 1) / 2
            row = stamp.window.top + half_span + light.y / sky.design.pixel_scale
            column = stamp.window.left + half_span + light.x / sky.design.pixel_scale
            assert max(abs(light.x), abs(light.y)) <= 0.51 * sky.design.pixel_scale
            found.append((row, column))
        return np.array(found)

    everywhere = places(_draw_field(sky, [nowhere]))
    beside = places(_draw_field(sky, objects))
    radius = NEIGHBOUR_RADIUS * size / 2
    distances = np.linalg.norm(everywhere[:, None] - np.array(middles), axis=2)
    assert (distances < radius).any()
    np.testing.assert_array_equal(beside, everywhere[(distances > radius).all(axis=1)])

    # Their number comes of whole discs, of which there is a round number.
    area_arcmin2 = np.prod(sky.tiling.shape) * (sky.design.pixel_scale / 60) ** 2
    expected = NEIGHBOURS_PER_ARCMIN2 * area_arcmin2
    low, high = poisson(expected).interval(0.999)
    assert low <= len(everywhere) <= high
    assert everywhere.min(axis=0) == pytest.approx([0, 0], abs=40)
    assert everywhere.max(axis=0) == pytest.approx(sky.tiling.shape, abs=40)


@pytest.mark.parametrize("half_width", [4.0, 8.0])
def test_neighbours_fill_the_disc_that_the_field_leaves_out(half_width: float) -> None:
    rng = np.random.default_rng(0)
    lights = [light for _ in range(4000) for light in draw_neighbours(rng, half_width)]
    area_arcmin2 = np.pi * (NEIGHBOUR_RADIUS * half_width / 60) ** 2
    expected = 4000 * NEIGHBOURS_PER_ARCMIN2 * area_arcmin2
    low, high = poisson(expected).interval(0.999)
    assert low <= len(lights) <= high

    # As dense anywhere in it: the squared radius is uniform.
    squared_radii = np.array([(light.x**2 + light.y**2) / half_width**2 for light in lights])
    assert squared_radii.max() <= NEIGHBOUR_RADIUS**2
    assert kstest(squared_radii, uniform(0, NEIGHBOUR_RADIUS**2).cdf).pvalue > 1e-3


# ---- what is written ----


@pytest.fixture(scope="module")
def mosaics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mosaics") / "s"
    made = make_mock_mosaics(out, make_design(objects=30), (2, 2), None, processes=1)
    assert made == MockSurvey(out, objects=30, lenses=15, tiles=4)
    return out


@pytest.mark.slow
def test_the_same_seed_gives_the_same_tiles_on_any_number_of_processes(tmp_path: Path) -> None:
    for name, processes, seed in (("a", 1, 5), ("b", 3, 5), ("c", 1, 6)):
        design = make_design(seed=seed)
        make_mock_mosaics(tmp_path / name, design, (1, 2), None, processes)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert files_of(tmp_path / "a").keys() == files_of(tmp_path / "c").keys()
    assert files_of(tmp_path / "a") != files_of(tmp_path / "c")


@pytest.mark.slow
def test_tiles_hold_the_same_pixels_where_they_overlap(mosaics: Path) -> None:
    tiles = {}
    for name in ("0-0", "0-1", "1-0", "1-1"):
        with fits.open(mosaics / "tiles" / name / "vis.fits") as hdus:
            hdus.verify("exception")
            tiles[name] = hdus[0].data
            header = hdus[0].header
            assert header["BITPIX"] == -32
            assert header["MAGZERO"] == ZERO_POINT
            assert header["GAIN"] == EUCLID.gain
            assert header["BUNIT"] == "adu"
            assert WCS(header).wcs.ctype[0] == "RA---TAN"

    overlap = 80
    np.testing.assert_array_equal(tiles["0-0"][:, -overlap:], tiles["0-1"][:, :overlap])
    np.testing.assert_array_equal(tiles["0-0"][-overlap:], tiles["1-0"][:overlap])
    corner = tiles["1-1"][:overlap, :overlap]
    np.testing.assert_array_equal(tiles["0-0"][-overlap:, -overlap:], corner)

    # Every pixel was recorded, with noise of its own.
    own = np.stack([pixels[:-overlap, :-overlap] for pixels in tiles.values()])
    assert np.isfinite(own).all()
    assert len(np.unique(own)) > 0.99 * own.size


@pytest.mark.slow
def test_the_catalogue_says_where_the_objects_are(mosaics: Path) -> None:
    catalogue = pq.read_table(mosaics / "catalogue.parquet").to_pydict()
    assert list(catalogue) == ["id", "ra", "dec", "is_lens", "class", *Measured._fields]
    assert len(set(catalogue["id"])) == 30
    assert sum(catalogue["is_lens"]) == 15
    is_lens = [name == "lens" for name in catalogue["class"]]
    assert is_lens == [bool(lens) for lens in catalogue["is_lens"]]
    for name, right_ascension in zip(catalogue["id"], catalogue["ra"], strict=True):
        hours = int(right_ascension / 15)
        assert name.startswith(f"MOCKJ{hours:02d}")

    truth = (mosaics / "truth.csv").read_text().splitlines()
    lenses = [name for name, lens in zip(catalogue["id"], is_lens, strict=True) if lens]
    assert [line.split(",")[0] for line in truth[1:]] == lenses

    # The brightest pixel nearby is the object's own, in the tile that has it.
    found = 0
    with fits.open(mosaics / "tiles" / "0-0" / "vis.fits") as hdus:
        pixels, wcs = hdus[0].data, WCS(hdus[0].header)
    columns, rows = wcs.all_world2pix(catalogue["ra"], catalogue["dec"], 0)
    for row, column in zip(rows, columns, strict=True):
        if min(row, column) > 10 and max(row, column) < len(pixels) - 10:
            near = Cutout2D(pixels, (column, row), 20).data
            y, x = np.unravel_index(near.argmax(), near.shape)
            found += abs(y - 9.5) < 4 and abs(x - 9.5) < 4
    assert found >= 5


@pytest.mark.slow
def test_its_recipe_packs_it(mosaics: Path, tmp_path: Path) -> None:
    call("pack", mosaics / "recipe.yaml", f"source={mosaics}", f"output={tmp_path / 'd'}")
    catalogue = pq.read_table(mosaics / "catalogue.parquet").to_pydict()
    numbers = {name: number for number, name in enumerate(catalogue["id"])}

    tiles = []
    for path in sorted(mosaics.glob("tiles/*/vis.fits")):
        with fits.open(path) as hdus:
            tiles.append((hdus[0].data, WCS(hdus[0].header)))

    compared = 0
    packed = Dataset(tmp_path / "d")
    for split in packed:
        for sample in packed[split]:
            number = numbers.pop(sample.id)
            assert sample.label == catalogue["is_lens"][number]
            compared += is_cutout_of_a_tile(sample.image[0], tiles, catalogue, number)
    assert not numbers
    assert compared >= 20


def is_cutout_of_a_tile(
    image: np.ndarray, tiles: list[Any], catalogue: dict[str, Any], number: int
) -> bool:
    """Whether a tile holds the whole cutout: then it is compared with it."""
    for pixels, wcs in tiles:
        place = wcs.all_world2pix(catalogue["ra"][number], catalogue["dec"][number], 0)
        row, column = (int(np.ceil(float(axis) - 40)) for axis in place[::-1])
        if min(row, column) >= 0 and max(row, column) + 80 <= len(pixels):
            np.testing.assert_array_equal(image, pixels[row : row + 80, column : column + 80])
            return True
    return False


def test_a_folder_that_exists_is_kept(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with pytest.raises(UserError, match="already exists"):
        make_mock_mosaics(tmp_path / "s", make_design(), (1, 1), None, processes=1)


def test_nothing_is_written_where_tiles_have_no_room(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no room for 12 objects"):
        make_mock_mosaics(tmp_path / "s", make_design(), (1, 1), 240, processes=1)
    assert list(tmp_path.iterdir()) == []


# ---- the law ----


@pytest.mark.slow
def test_cutouts_of_the_mosaics_have_the_law_of_the_cutout_survey(tmp_path: Path) -> None:
    """Noise, sky, brightness and the place of the middle, by Kolmogorov-Smirnov tests.

    They want independent samples, so one object a cell is taken: a cell has one depth and seeing.
    """
    design = make_design(objects=160)
    make_mock_survey(tmp_path / "c", dataclasses.replace(design, seed=6), processes=1)
    make_mock_mosaics(tmp_path / "m", design, (4, 4), None, processes=1)

    single = []
    for path in sorted(tmp_path.glob("c/cutouts/*.fits")):
        single.append(statistics(fits.getdata(path)[0]))

    tiling = fit_tiling((4, 4), None, design.objects, design.size, design.pixel_scale)
    windows = tiling.tiles()
    cells = set()
    cut = []
    catalogue = pq.read_table(tmp_path / "m" / "catalogue.parquet").to_pydict()
    positions = np.array([catalogue["ra"], catalogue["dec"]]).T
    for path in sorted(tmp_path.glob("m/tiles/*/vis.fits")):
        with fits.open(path) as hdus:
            pixels, wcs = hdus[0].data, WCS(hdus[0].header)
        window = windows[path.parent.name]
        for column, row in wcs.all_world2pix(positions, 0):
            if not (min(row, column) > 40 and max(row, column) < len(pixels) - 41):
                continue

            cell = tiling.cell_of(window.top + int(row), window.left + int(column))
            if cell not in cells:
                cut.append(statistics(Cutout2D(pixels, (column, row), 80).data))
                cells.add(cell)

    assert len(cut) > 30
    for name in single[0]:
        one = [each[name] for each in single]
        other = [each[name] for each in cut]
        assert ks_2samp(one, other).pvalue > 0.01, name


def statistics(cutout: np.ndarray) -> dict[str, float]:
    """Return numbers of a cutout of 80 x 80 pixels, each of which has a law over a survey."""
    border = np.concatenate([cutout[:6].ravel(), cutout[-6:].ravel()])
    differences = np.diff(border)
    axis = np.arange(80) - 39.5
    inner = cutout[35:45, 35:45].clip(min=0)
    return {
        "noise": 1.4826 * float(np.median(np.abs(differences))) / np.sqrt(2),
        "sky": float(np.median(border)),
        "flux": float(cutout[20:60, 20:60].sum()),
        "peak": float(cutout[36:44, 36:44].max()),
        "x": float((inner.sum(axis=0) * axis[35:45]).sum() / inner.sum()),
        "y": float((inner.sum(axis=1) * axis[35:45]).sum() / inner.sum()),
        "concentration": float(inner.sum() / cutout[20:60, 20:60].sum()),
    }
