"""The tiles of a survey: which files there are, and which tile holds which position."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from lens_hpc.dataset.positions import unit_vectors
from lens_hpc.errors import UserError
from lens_hpc.packing.catalogue_files import FileCheck
from lens_hpc.packing.cells import from_frame
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.packing.mosaic_files import open_mosaic
from lens_hpc.packing.mosaic_settings import TILE
from lens_hpc.packing.parts import band_parts
from lens_hpc.packing.recipe import Recipe
from lens_hpc.packing.sky_grids import SkyGrid
from lens_hpc.packing.templates import (
    check_template,
    expand_template,
    files_below,
    match_files,
)

NO_TILE = -1

BandFiles = tuple[str | None, ...]
"""Path of the mosaic of each band, relative to the source folder; None where there is none."""


def find_tiles(recipe: Recipe, source: Path) -> dict[str, BandFiles]:
    """Return the files of each tile that has any, in the order of the tiles' names.

    Raises UserError where no file fits the recipe, or where two are of the same tile and band.
    """
    paths = files_below(source, recipe.follow_links)
    by_band = [_files_of_band(recipe, source, band, paths) for band in recipe.bands]
    names = sorted(set().union(*by_band))
    return {name: tuple(files.get(name) for files in by_band) for name in names}


def _files_of_band(recipe: Recipe, source: Path, band: str, paths: list[str]) -> dict[str, str]:
    """Return the file of each tile that a band has."""
    assert recipe.mosaics is not None
    pattern = recipe.mosaics.path_of(band)
    try:
        check_template(pattern, is_pattern=True)
    except UserError as error:
        raise UserError(f"mosaics.path: {error}") from error
    fields = match_files(pattern, source, band, paths, "mosaics.path")
    found = expand_template(pattern, from_frame(fields), band, is_pattern=True)

    files: dict[str, str] = {}
    for name, path in zip(fields[TILE], found, strict=True):
        if files.setdefault(name, path) != path:
            raise UserError(
                f"{source}: {files[name]} and {path} are both of tile {name}, band {band}; move "
                "one away, or make {tile} in mosaics.path hold what tells them apart"
            )
    return files


# ---- where tiles are ----


class TileGrids(NamedTuple):
    """Where tiles lie on the sky."""

    grids: list[SkyGrid | None]
    """The grid of each tile; None where it could not be read."""
    faults: dict[int, str]
    """Number of such a tile: why not."""


def read_grids(
    recipe: Recipe, source: Path, tiles: Mapping[str, BandFiles], needed: Sequence[int]
) -> TileGrids:
    """Read where some tiles lie, given by their numbers.

    The finest band says it; where that has no file or none that can be read, the next one does.
    """
    grids: list[SkyGrid | None] = [None] * len(tiles)
    faults = {}
    files = list(tiles.values())
    check = FileCheck(source, recipe.follow_links)
    for number in needed:
        try:
            grids[number] = _read_grid(recipe, source, files[number], check)
        except BadCutoutError as error:
            faults[number] = str(error)
    return TileGrids(grids, faults)


def _read_grid(recipe: Recipe, source: Path, files: BandFiles, check: FileCheck) -> SkyGrid:
    """Return the grid of the finest band that has one; BadCutoutError says why none has."""
    hdus = band_parts(recipe.hdu, recipe.bands)
    bands = list(zip(recipe.bands, files, hdus, strict=True))
    bands.sort(key=lambda each: recipe.pixel_scale_of(each[0]))

    faults = []
    for _, path, hdu in bands:
        if path is None:
            continue
        reason, _ = check.check(path)
        if reason:
            raise BadCutoutError(reason)
        try:
            with open_mosaic(source / path) as mosaic:
                return SkyGrid(mosaic.plane(hdu))
        except BadCutoutError as error:
            faults.append(error)
    raise faults[0]


def assign_tiles(grids: Sequence[SkyGrid | None], positions: np.ndarray) -> np.ndarray:
    """Return the number of the tile that holds each position (N, 2), or NO_TILE: (N,).

    *Unit: degrees, ICRS*. Of several it is the one in which the position lies farthest from an
    edge, and the first of those that are equal.
    """
    tile_of_row = np.full(len(positions), NO_TILE)
    widest = np.zeros(len(positions))
    rows_with_place = np.flatnonzero(np.isfinite(positions).all(axis=1))
    tree = cKDTree(unit_vectors(positions[rows_with_place]), balanced_tree=False)
    for number, grid in enumerate(grids):
        if grid is None:
            continue

        # Only positions near the tile are looked at, of which there are few.
        near = tree.query_ball_point(grid.outline.centre, grid.outline.radius, return_sorted=True)
        rows = rows_with_place[np.array(near, dtype=np.int64)]
        margins = grid.margins_of(positions[rows])
        is_better = margins > widest[rows]
        tile_of_row[rows[is_better]] = number
        widest[rows[is_better]] = margins[is_better]
    return tile_of_row
