"""Rays from a cutout to the source plane, few where little is to be seen.

They start from square cells of the sky, coarse ones first: pixels, thirds of pixels, and so on. A
cell is split into nine where its light is not what the cells around it promise, or where a source
could hide between rays. So light is counted once, with few rays, however small or strongly lensed a
source is.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from scipy.ndimage import uniform_filter

from lens_hpc.sky.deflection import Lens

SPLIT = 3
"""Cells are split into so many along each side; odd, so that pixels have a middle."""
DEEPEST = 4
"""Cells are split down to pixels / SPLIT^DEEPEST."""
TOLERANCE = 1e-4
"""Nine cells agree if their light is nine times that of the middle one but for this share of the
sources' flux."""
FINEST_PICTURE = 3
"""Down to this level a cell is compared with all cells around it, then with those of its group."""
RESOLUTION = 1.0
"""Near a source, rays meet the source plane closer together than this share of its radius."""
NEAR = 2.0
"""So many radii around a source are near it."""
CENTRE_CELLS = 2.0
"""Cells within so many of their sides from the lens's centre are split."""


class Source(Protocol):
    """What lies behind a lens: `sky.light.Light`, for instance."""

    @property
    def x(self) -> float:
        """Of the centre, arcsec."""

    @property
    def y(self) -> float:
        """Of the centre, arcsec."""

    @property
    def q(self) -> float:
        """Axis ratio."""

    @property
    def radius(self) -> float:
        """Half-light radius, arcsec."""

    @property
    def reach(self) -> float:
        """From the centre: farther out is next to no light, arcsec."""

    def brightness(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the surface brightness at (x, y) for a total flux of 1, 1/arcsec^2."""


class Grid(NamedTuple):
    """A square of pixels from which rays start."""

    size: int
    """Pixels along a side, a multiple of SPLIT."""
    pixel_scale: float
    """Arcsec per pixel."""
    x: float
    """Of the corner of the first pixel, arcsec."""
    y: float

    @property
    def points(self) -> int:
        """Thirds of pixels along a side."""
        return SPLIT * self.size


class Rays(NamedTuple):
    """Where rays start, and what they meet."""

    place: np.ndarray
    """Index of the third of a pixel, row by row, (rays,)."""
    light: np.ndarray
    """Flux of each source in the ray's cell, for sources of flux 1, (sources, rays)."""


class _Cells(NamedTuple):
    """Square cells of the sky of one size, in groups of SPLIT x SPLIT."""

    column: np.ndarray
    """Of each cell, in cells from the grid's edge, (groups, SPLIT^2)."""
    row: np.ndarray
    level: int
    """0 for pixels, 1 for a third of them, and so on."""


class _Picture(NamedTuple):
    """Light of the square cells of one size within a box."""

    light: np.ndarray
    row: int
    """Of the box's first cell, as in `_Cells`."""
    column: int


def shoot_rays(lens: Lens, sources: Sequence[Source], shares: np.ndarray, grid: Grid) -> Rays:
    """Shoot rays through a lens, as many as the light of sources needs.

    `shares` are those of each source in the flux of all, (sources,).
    """
    places = []
    lights = []
    cells = _pixels(grid.size)
    picture = _Picture(np.zeros((grid.size // SPLIT, grid.size // SPLIT)), 0, 0)
    while cells.column.size:
        side = grid.pixel_scale / SPLIT**cells.level
        x = grid.x + (cells.column + 0.5) * side
        y = grid.y + (cells.row + 0.5) * side
        source_x, source_y = lens.source_position(torch.from_numpy(x), torch.from_numpy(y))
        brightness = [source.brightness(source_x, source_y).numpy() for source in sources]
        light = np.stack(brightness) * side**2

        total = np.tensordot(shares, light, 1)
        picture = _picture(cells, total, picture)
        split = _disagree(cells, total, picture) | _may_hide(source_x, source_y, sources)
        # Whatever lies behind the lens, its centre shows a small image of it.
        split |= (x - lens.x) ** 2 + (y - lens.y) ** 2 < (CENTRE_CELLS * side) ** 2
        split &= cells.level < DEEPEST

        places.append(_place(cells, grid.points)[~split])
        lights.append(light[:, ~split])
        cells = _children(cells.column[split], cells.row[split], cells.level + 1)
    return Rays(np.concatenate(places), np.concatenate(lights, axis=1))


def _pixels(size: int) -> _Cells:
    """Return all pixels of a square of that side in groups, `size` being a multiple of SPLIT."""
    blocks = np.arange(size // SPLIT)
    row, column = np.meshgrid(blocks, blocks, indexing="ij")
    return _children(column.ravel(), row.ravel(), level=0)


def _children(column: np.ndarray, row: np.ndarray, level: int) -> _Cells:
    """Return the cells of a level within those of the level above, (cells,), a group each."""
    inner_row, inner_column = np.divmod(np.arange(SPLIT**2), SPLIT)
    return _Cells(column[:, None] * SPLIT + inner_column, row[:, None] * SPLIT + inner_row, level)


def _place(cells: _Cells, points: int) -> np.ndarray:
    """Return the index of each cell in the flat grid of thirds of pixels."""
    if cells.level == 0:
        row = cells.row * SPLIT + SPLIT // 2
        column = cells.column * SPLIT + SPLIT // 2
    else:
        row = cells.row // SPLIT ** (cells.level - 1)
        column = cells.column // SPLIT ** (cells.level - 1)
    return row * points + column


def _picture(cells: _Cells, light: np.ndarray, coarser: _Picture) -> _Picture:
    """Return the light of all cells of a size, within the box that holds those given.

    That of others comes of the `coarser` picture. None is made of cells so small that it would take
    longer than to shoot their rays.
    """
    if cells.level > FINEST_PICTURE:
        return coarser

    row, column = int(cells.row.min()), int(cells.column.min())
    rows = slice(row // SPLIT - coarser.row, cells.row.max() // SPLIT + 1 - coarser.row)
    columns = slice(
        column // SPLIT - coarser.column, cells.column.max() // SPLIT + 1 - coarser.column
    )
    part = coarser.light[rows, columns] / SPLIT**2
    picture = part.repeat(SPLIT, axis=0).repeat(SPLIT, axis=1)
    picture[cells.row - row, cells.column - column] = light
    return _Picture(picture, row, column)


def _disagree(cells: _Cells, light: np.ndarray, picture: _Picture) -> np.ndarray:
    """Return which cells (groups, SPLIT^2) have not the light that those around them promise."""
    if cells.level > FINEST_PICTURE:
        middle = light[:, SPLIT**2 // 2]
        excess = light.sum(axis=1) - SPLIT**2 * middle
        return np.abs(excess)[:, None] > TOLERANCE

    excess = uniform_filter(picture.light, SPLIT, mode="nearest") - picture.light
    excess_of_cells = excess[cells.row - picture.row, cells.column - picture.column]
    return np.abs(excess_of_cells) * SPLIT**2 > TOLERANCE


def _may_hide(x: torch.Tensor, y: torch.Tensor, sources: Sequence[Source]) -> np.ndarray:
    """Return which cells (groups, SPLIT^2) a source may lie in without that their rays tell.

    `x` and `y` are where they meet the source plane.
    """
    u = x.numpy()
    v = y.numpy()
    middle = slice(SPLIT**2 // 2, SPLIT**2 // 2 + 1)
    squared_distances = (u - u[:, middle]) ** 2 + (v - v[:, middle]) ** 2
    # A cell's diagonal, where it is longest. In the lens's centre, its rays go anywhere within it.
    extents = np.sqrt(squared_distances.max(axis=1))

    may_hide = np.zeros(u.shape, dtype=bool)
    for source in sources:
        is_coarse = extents > RESOLUTION * source.radius * source.q
        squared_distances = (u[is_coarse] - source.x) ** 2 + (v[is_coarse] - source.y) ** 2
        near = NEAR * source.radius + extents[is_coarse]
        may_hide[is_coarse] |= squared_distances < near[:, None] ** 2
    return may_hide
