"""Where the tiles of a mock survey and its objects lie.

All tiles are windows of one grid of pixels, and neighbours overlap, as do the patches of a tract of
HSC-SSP (Bosch et al. 2018, PASJ 70, S5): where they overlap they hold the same pixels.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from lens_hpc.errors import UserError
from lens_hpc.sky.galaxies import NEIGHBOUR_RADIUS

CENTRE = (150.0, 2.0)
"""Right ascension and declination of the middle of a survey. *Unit: degrees*"""

FARTHEST_DECLINATION = 60.0
"""Of a survey's middle, either way. *Unit: degrees*"""

SKY_OF_OBJECT = 4
"""Area of the sky for each object, in areas of a cutout: bright galaxies are denser than they
really are, so that the survey takes little disk."""

SEPARATION = NEIGHBOUR_RADIUS
"""Least distance of two objects, in widths of a cutout: the neighbours that are drawn around each
reach half as far."""

MOST_CROWDED = 0.5
"""Objects per squared separation above which random places are hard to find; 0.69 is the most."""

LEAST_TILE = 3
"""Least width of a tile, in widths of a cutout."""

CELL_SIZE = 1024
"""Most height and width of a cell. *Unit: pixels*"""


class Window(NamedTuple):
    """A rectangle of pixels on the grid of the survey."""

    top: int
    """First row."""
    bottom: int
    """Row after the last one."""
    left: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, neither below 0."""
        height = max(self.bottom - self.top, 0)
        width = max(self.right - self.left, 0)
        return height, width

    def common(self, other: "Window") -> "Window":
        """Return what lies in both."""
        return Window(
            max(self.top, other.top),
            min(self.bottom, other.bottom),
            max(self.left, other.left),
            min(self.right, other.right),
        )

    def slices_of(self, inner: "Window") -> tuple[slice, slice]:
        """Return where a window within this one lies in an array of this one."""
        rows = slice(inner.top - self.top, inner.bottom - self.top)
        columns = slice(inner.left - self.left, inner.right - self.left)
        return rows, columns


def square(row: int, column: int, size: int) -> Window:
    """Return the square window that begins at a pixel."""
    return Window(row, row + size, column, column + size)


@dataclass(frozen=True)
class Tiling:
    """The tiles of a survey, on one grid of pixels."""

    rows: int
    columns: int
    """Number of tiles."""
    tile_size: int
    """Height and width of a tile, pixels."""
    overlap: int
    """What neighbours share, pixels."""
    pixel_scale: float
    """Arcsec per pixel."""
    centre: tuple[float, float] = CENTRE
    """Right ascension and declination of the middle. *Unit: degrees*"""

    @property
    def step(self) -> int:
        """Pixels from the beginning of a tile to that of the next."""
        return self.tile_size - self.overlap

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the survey, pixels."""
        height = self.rows * self.step + self.overlap
        width = self.columns * self.step + self.overlap
        return height, width

    def tiles(self) -> dict[str, Window]:
        """Return the window of each tile, by its name: row-column."""
        tiles = {}
        for row in range(self.rows):
            top = row * self.step
            for column in range(self.columns):
                left = column * self.step
                name = f"{row}-{column}"
                tiles[name] = square(top, left, self.tile_size)
        return tiles

    def cells(self) -> list[Window]:
        """Return the cells, which together are the survey: each lies in a tile whole or not at all.

        A cell is painted at once, and seeing and depth are the same all over it.
        """
        row_edges = self._cell_edges(self.rows)
        column_edges = self._cell_edges(self.columns)
        cells = []
        for top, bottom in pairwise(row_edges):
            for left, right in pairwise(column_edges):
                cell = Window(top, bottom, left, right)
                cells.append(cell)
        return cells

    def cell_of(self, row: int, column: int) -> int:
        """Return the number of the cell in which a pixel lies."""
        row_edges = self._cell_edges(self.rows)
        column_edges = self._cell_edges(self.columns)
        cell_row = np.searchsorted(row_edges, row, side="right") - 1
        cell_column = np.searchsorted(column_edges, column, side="right") - 1

        cells_in_row = len(column_edges) - 1
        return int(cell_row * cells_in_row + cell_column)

    def _cell_edges(self, tiles: int) -> list[int]:
        """Return where cells begin and end along an axis with that number of tiles."""
        length = tiles * self.step + self.overlap
        edges = {length, *range(0, length, CELL_SIZE)}
        for number in range(tiles):
            start = number * self.step
            edges |= {start, start + self.tile_size}
        return sorted(edges)

    def header(self, top: int = 0, left: int = 0) -> dict[str, str | float]:
        """Return the FITS words that say where the pixels of a window lie, which begins at one."""
        # FITS counts pixels from 1.
        height, width = self.shape
        middle_row = (height + 1) / 2
        middle_column = (width + 1) / 2
        right_ascension, declination = self.centre
        scale_degrees = self.pixel_scale / 3600

        # East is to the left.
        return {
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CUNIT1": "deg",
            "CUNIT2": "deg",
            "CRVAL1": right_ascension,
            "CRVAL2": declination,
            "CRPIX1": middle_column - left,
            "CRPIX2": middle_row - top,
            "CDELT1": -scale_degrees,
            "CDELT2": scale_degrees,
            "RADESYS": "ICRS",
        }

    def position(self, row: float, column: float) -> tuple[float, float]:
        """Return right ascension and declination of a point of the survey. *Unit: degrees*"""
        wcs = WCS(self.header())
        right_ascension, declination = wcs.wcs_pix2world(column, row, 0)
        return float(right_ascension), float(declination)


def fit_tiling(
    tiles: tuple[int, int], tile_size: int | None, objects: int, size: int, pixel_scale: float
) -> Tiling:
    """Return tiles, rows x columns, with room for so many objects with cutouts of a size.

    Raise UserError where tiles of `tile_size` have no such room; with None they get all they need.
    """
    rows, columns = tiles
    least = LEAST_TILE * size
    roomy = max(least, _roomy_tile_size(rows, columns, objects, size))
    tiling = Tiling(rows, columns, tile_size or roomy, size, pixel_scale)

    height, width = tiling.shape
    separation = SEPARATION * size
    crowd = objects * separation**2 / (height * width)
    if tiling.tile_size < least or crowd > MOST_CROWDED:
        raise UserError(
            f"tile_size={tile_size}: {rows}x{columns} such tiles have no room for {objects:,} "
            f"objects with cutouts of {size} pixels; leave it out, which makes it {roomy}"
        )
    return tiling


def _roomy_tile_size(rows: int, columns: int, objects: int, size: int) -> int:
    """Return the width of tiles that together have the wanted sky for each object.

    With a step from tile to tile it is (rows step + overlap) (columns step + overlap) = area.
    """
    overlap = size
    area = objects * SKY_OF_OBJECT * size**2
    quadratic = rows * columns
    linear = overlap * (rows + columns)
    constant = overlap**2 - area

    discriminant = linear**2 - 4 * quadratic * constant
    root = math.sqrt(discriminant)
    step = (root - linear) / (2 * quadratic)
    return math.ceil(step) + overlap


def draw_centre(rng: np.random.Generator) -> tuple[float, float]:
    """Draw where a survey lies, so that two of them have no object in common. *Unit: degrees*"""
    right_ascension = rng.uniform(0, 360)
    declination = rng.uniform(-FARTHEST_DECLINATION, FARTHEST_DECLINATION)
    return float(right_ascension), float(declination)


def scatter(rng: np.random.Generator, tiling: Tiling, objects: int, size: int) -> np.ndarray:
    """Draw the first row and column of the cutout of each object, (objects, 2) integers.

    The middles lie anywhere in the survey, but not too near to each other.
    """
    places = np.empty((0, 2), dtype=np.int64)
    while len(places) < objects:
        drawn_middles = rng.integers(1, tiling.shape, size=(objects, 2))
        drawn = drawn_middles - size // 2
        candidates = np.concatenate([places, drawn])

        # Of two that are too near the later one goes, so that those which stand already stay.
        tree = cKDTree(candidates)
        pairs = tree.query_pairs(SEPARATION * size, output_type="ndarray")
        too_near = np.unique(pairs.max(axis=1))
        places = np.delete(candidates, too_near, axis=0)
    return places[:objects]
