"""A labelled mock survey as mosaics: overlapping tiles, whose catalogue says where objects lie.

Objects have the law of those of `mock_survey`: a cutout from the mosaics, with what is in it and
how it is recorded, could be one of that survey. Between them the sky goes on, with as many faint
galaxies as lie around each object. It is painted and recorded in cells, each a function of the
seed and its number alone, so that a pixel has the same noise in all tiles that hold it.
"""

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from astropy.coordinates import SkyCoord
from astropy.io import fits
from scipy.spatial import cKDTree

from lens_hpc import files
from lens_hpc.holding import held
from lens_hpc.progress import Progress
from lens_hpc.sky.camera import Camera, draw_camera
from lens_hpc.sky.galaxies import NEIGHBOUR_RADIUS, Scene, draw_neighbours
from lens_hpc.sky.light import Light
from lens_hpc.sky.mock_survey import (
    RECIPE,
    TRUTH,
    MockSurvey,
    ObjectRow,
    SurveyDesign,
    draw_labels,
    draw_object,
    make_objects,
    workers,
    write_recipe,
    write_truth,
)
from lens_hpc.sky.photometry import Measured, measure
from lens_hpc.sky.surveys import ZERO_POINT
from lens_hpc.sky.tiling import Tiling, Window, draw_centre, fit_tiling, scatter, square

MOSAIC_CATALOGUE = "catalogue.parquet"
MOSAIC = "tiles/{tile}/{band}.fits"
ZERO_POINT_WORD = "MAGZERO"
PIXEL = np.dtype(">f4")
FITS_BLOCK_BYTES = 2880

# An object is painted so many cutouts wide: farther out its light is lost in the noise.
PAINTED_WIDTHS = 3

# The last word of each seed says what is drawn. Objects have none, as in `mock_survey`.
CONDITIONS = 1
NOISE = 2
PLACES = 3
FIELD = 4


def make_mock_mosaics(
    out: Path,
    design: SurveyDesign,
    tiles: tuple[int, int],
    tile_size: int | None,
    processes: int,
) -> MockSurvey:
    """Write OUT/tiles/TILE/BAND.fits, catalogue.parquet, truth.csv and recipe.yaml.

    There are rows x columns `tiles` of `tile_size` pixels a side, or with room for the objects if
    that is None. As for `make_mock_survey`, the new folder appears whole, and the number of worker
    processes changes nothing but the time. Raise UserError if `out` exists, if the tiles have no
    room for the objects, or if their cutouts can show no lens.
    """
    fitted = fit_tiling(tiles, tile_size, design.objects, design.size, design.pixel_scale)
    centre = draw_centre(np.random.default_rng(design.seed))
    tiling = replace(fitted, centre=centre)
    sky = MockSky(design, tiling)

    with held(files.final_name(out)), files.whole_folder(out) as folder:
        _write_empty_tiles(folder, sky)
        with workers(processes) as pool:
            objects = _draw_all(pool, sky)
            stamps = [stamp for each in objects for stamp in each.stamps]
            stamps += _draw_field(sky, objects)
            _record_all(pool, folder, sky, stamps)

        rows = [each.row for each in objects]
        _write_catalogue(folder / MOSAIC_CATALOGUE, objects)
        write_truth(folder / TRUTH, rows)
        _write_mosaic_recipe(folder / RECIPE, design)

    lenses = sum(row.is_lens for row in rows)
    number_of_tiles = tiling.rows * tiling.columns
    return MockSurvey(out, len(rows), lenses, number_of_tiles)


class MockSky(NamedTuple):
    """What determines every pixel of the mosaics."""

    design: SurveyDesign
    tiling: Tiling

    def camera(self, cell: int) -> Camera:
        """Return the camera of cutouts, with the conditions of a cell."""
        design = self.design
        rng = self.rng(cell, CONDITIONS)
        return draw_camera(
            rng,
            design.survey,
            design.bands,
            design.size,
            design.pixel_scale,
        )

    def rng(self, number: int, kind: int = 0) -> np.random.Generator:
        """Return the random numbers of an object or, with a kind, of something else."""
        return np.random.default_rng([self.design.seed, number, kind])


# ---- what is on the sky ----


class Stamp(NamedTuple):
    """Something on the sky, and the pixels that are painted with it."""

    window: Window
    camera: Camera
    """As wide as the window."""
    scene: Scene


class PlacedObject(NamedTuple):
    """One object of the survey, and where it lies."""

    row: ObjectRow
    middle: tuple[float, float]
    """Row and column of the middle of its cutout, pixels."""
    position: tuple[float, float]
    """Right ascension and declination of that middle. *Unit: degrees*"""
    stamps: list[Stamp]
    """It and its neighbours."""


def _draw_all(pool: ProcessPoolExecutor, sky: MockSky) -> list[PlacedObject]:
    """Draw all objects of the survey in worker processes."""
    design = sky.design
    rng = sky.rng(0, PLACES)
    places = scatter(rng, sky.tiling, design.objects, design.size)

    draw = partial(draw_placed, sky)
    numbers = range(design.objects)
    return make_objects(pool, draw, numbers, draw_labels(design), places.tolist())


def draw_placed(sky: MockSky, number: int, is_lens: bool, place: tuple[int, int]) -> PlacedObject:
    """Draw the object of a number, and measure its catalogue row.

    `place` is the first row and column of its cutout.
    """
    design, tiling = sky
    row, column = place
    half = design.size // 2
    cell = tiling.cell_of(row + half, column + half)
    camera = sky.camera(cell)

    rng = sky.rng(number)
    drawn = draw_object(rng, design, camera, is_lens)
    measured = measure(rng, drawn.crowded_scene())

    half_span = _half_span(camera)
    middle = row + half_span, column + half_span
    position = tiling.position(*middle)
    catalogued = ObjectRow(
        id=_name(*position),
        object_class=drawn.object_class,
        measured=measured,
        truth=drawn.truth,
    )
    stamps = [
        _wide_stamp(camera, drawn.scene, place),
        *_neighbours(camera, drawn.neighbours, middle),
    ]
    return PlacedObject(catalogued, middle, position, stamps)


def _half_span(camera: Camera) -> float:
    """Return how far the middle of a cutout lies from the middle of its first pixel, pixels."""
    return (camera.size - 1) / 2


def _name(right_ascension: float, declination: float) -> str:
    """Return the name of an object by its position, so that no other survey has it."""
    position = SkyCoord(right_ascension, declination, unit="deg")
    digits = position.to_string("hmsdms", sep="", precision=2, pad=True)
    return "MOCKJ" + digits.replace(" ", "")


def _wide_stamp(camera: Camera, scene: Scene, place: tuple[int, int]) -> Stamp:
    """Return an object whose cutout begins at a place, painted beyond the cutout."""
    row, column = place
    width = PAINTED_WIDTHS * camera.size
    margin = (width - camera.size) // 2
    window = square(row - margin, column - margin, width)
    return Stamp(window, replace(camera, size=width), scene)


def _neighbours(
    camera: Camera, lights: Sequence[Light], middle: tuple[float, float]
) -> Iterator[Stamp]:
    """Yield the faint galaxies around the middle of an object."""
    row, column = middle
    for light in lights:
        rows_above = light.y / camera.pixel_scale
        columns_right = light.x / camera.pixel_scale
        yield _faint_stamp(camera, light, row + rows_above, column + columns_right)


def _faint_stamp(camera: Camera, light: Light, row: float, column: float) -> Stamp:
    """Return a faint galaxy at a row and column, painted as wide as a cutout."""
    half_span = _half_span(camera)
    wanted_top = row - half_span
    wanted_left = column - half_span
    top = round(wanted_top)
    left = round(wanted_left)

    # Pixels are whole, so that it rarely lies in the very middle of them.
    y = (wanted_top - top) * camera.pixel_scale
    x = (wanted_left - left) * camera.pixel_scale
    moved = replace(light, x=x, y=y)

    window = square(top, left, camera.size)
    scene = Scene(z=0, lights=(moved,))
    return Stamp(window, camera, scene)


def _draw_field(sky: MockSky, objects: list[PlacedObject]) -> list[Stamp]:
    """Draw faint galaxies all over the survey, as dense as around objects but not there."""
    design, tiling = sky
    half_size = design.size / 2
    radius = NEIGHBOUR_RADIUS * half_size

    # As many as discs around objects would have that have the area of the survey.
    rng = sky.rng(0, FIELD)
    height, width = tiling.shape
    discs = round(height * width / (math.pi * radius**2))
    lights = []
    for _ in range(discs):
        lights += draw_neighbours(rng, half_size * design.pixel_scale)
    places = rng.uniform(0, tiling.shape, size=(len(lights), 2))

    # Around objects there are galaxies already.
    middles = [each.middle for each in objects]
    distances, _ = cKDTree(middles).query(places)
    is_in_field = distances > radius

    number_of_cells = len(tiling.cells())
    cameras = [sky.camera(cell) for cell in range(number_of_cells)]
    stamps = []
    for number in np.flatnonzero(is_in_field).tolist():
        row, column = places[number].tolist()
        cell = tiling.cell_of(int(row), int(column))
        stamp = _faint_stamp(cameras[cell], lights[number], row, column)
        stamps.append(stamp)
    return stamps


# ---- pixels ----


def _record_all(pool: ProcessPoolExecutor, folder: Path, sky: MockSky, stamps: list[Stamp]) -> None:
    """Record each cell in the tiles that hold it."""
    cells = sky.tiling.cells()
    windows = np.array([stamp.window for stamp in stamps])
    stamps_of_cell = []
    for cell in cells:
        is_near = _do_meet(cell, windows)
        near = [stamps[number] for number in np.flatnonzero(is_near)]
        stamps_of_cell.append(near)

    record = partial(_record_cell, folder, sky)
    numbers = range(len(cells))
    with Progress(len(cells), "simulate", "cells") as progress:
        for _ in pool.map(record, numbers, stamps_of_cell):
            progress.update(1)


def _do_meet(window: Window, others: np.ndarray) -> np.ndarray:
    """Return which of other windows (N, 4) have pixels in common with one, (N,)."""
    top, bottom, left, right = others.T
    rows_meet = (top < window.bottom) & (bottom > window.top)
    columns_meet = (left < window.right) & (right > window.left)
    return rows_meet & columns_meet


def _record_cell(folder: Path, sky: MockSky, cell: int, stamps: list[Stamp]) -> None:
    """Paint a cell, and record it with its noise in the tiles that hold it."""
    window = sky.tiling.cells()[cell]
    flux = paint(window, sky.design.bands, stamps)
    rng = sky.rng(cell, NOISE)
    pixels = sky.camera(cell).record(rng, flux)

    for name, tile in sky.tiling.tiles().items():
        if tile.common(window) != window:
            continue
        for band, plane in zip(sky.design.bands, pixels, strict=True):
            path = _path_of(folder, name, band)
            _write_pixels(path, tile, window, plane)


def paint(window: Window, bands: tuple[str, ...], stamps: list[Stamp]) -> torch.Tensor:
    """Return the noiseless flux in each pixel of a window, (bands, height, width).

    Each of the stamps has pixels in common with the window.
    """
    flux = torch.zeros(len(bands), *window.shape)
    for stamp in stamps:
        painted = stamp.scene.expose(stamp.camera)
        common = window.common(stamp.window)
        there = window.slices_of(common)
        here = stamp.window.slices_of(common)
        flux[:, *there] += painted[:, *here]
    return flux


# ---- files ----


def _path_of(folder: Path, tile: str, band: str) -> Path:
    return folder / MOSAIC.format(tile=tile, band=band)


def _write_empty_tiles(folder: Path, sky: MockSky) -> None:
    """Write a mosaic for each tile and band, as long as it will be, without its pixels."""
    for name, window in sky.tiling.tiles().items():
        for band in sky.design.bands:
            path = _path_of(folder, name, band)
            path.parent.mkdir(parents=True, exist_ok=True)
            header = _tile_header(sky, window, band)
            header.tofile(path)

            header_bytes = path.stat().st_size
            os.truncate(path, header_bytes + _pixel_bytes(window))


def _tile_header(sky: MockSky, window: Window, band: str) -> fits.Header:
    # An array that takes no memory says what kind of image it is.
    pixels = np.broadcast_to(np.float32(0), window.shape)
    header = fits.PrimaryHDU(pixels).header
    header.update(sky.tiling.header(window.top, window.left))

    header["FILTER"] = band
    header["BUNIT"] = ("adu", "flux units")
    header[ZERO_POINT_WORD] = (ZERO_POINT, "AB magnitude of one flux unit")
    header["GAIN"] = (sky.design.survey.gain, "electrons per flux unit")
    return header


def _pixel_bytes(window: Window) -> int:
    """Return how much of a mosaic's file is pixels, with what fills the last block."""
    height, width = window.shape
    own = height * width * PIXEL.itemsize
    blocks = math.ceil(own / FITS_BLOCK_BYTES)
    return blocks * FITS_BLOCK_BYTES


def _write_pixels(path: Path, tile: Window, window: Window, pixels: np.ndarray) -> None:
    """Write the pixels of a window of a tile, (height, width), into its file."""
    header_bytes = path.stat().st_size - _pixel_bytes(tile)
    _, width = tile.shape
    rows, columns = tile.slices_of(window)

    with path.open("r+b") as file:
        for row, values in enumerate(pixels, rows.start):
            pixels_before = row * width + columns.start
            file.seek(header_bytes + pixels_before * PIXEL.itemsize)
            file.write(values.astype(PIXEL).tobytes())


def _write_catalogue(path: Path, objects: list[PlacedObject]) -> None:
    """Write what a survey would know, and the label."""
    rows = [each.row for each in objects]
    positions = np.array([each.position for each in objects])
    table = {
        "id": [row.id for row in rows],
        "ra": positions[:, 0],
        "dec": positions[:, 1],
        "is_lens": [row.is_lens for row in rows],
        "class": [row.object_class for row in rows],
    }

    measured = np.array([row.measured for row in rows])
    for name, values in zip(Measured._fields, measured.T, strict=True):
        table[name] = pa.array(values, from_pandas=True)
    pq.write_table(pa.table(table), path)


def _write_mosaic_recipe(path: Path, design: SurveyDesign) -> None:
    images: dict[str, Any] = {
        "mosaics": {
            "path": MOSAIC,
            "ra": "ra",
            "dec": "dec",
            "zero_point": ZERO_POINT_WORD,
        },
        "size": [design.size, design.size],
    }
    kept = ["class", "ra", "dec"]
    write_recipe(path, design, MOSAIC_CATALOGUE, images, kept)
