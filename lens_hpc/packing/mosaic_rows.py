"""The rows of a catalogue on the mosaics of a survey: where each lies, and in which files."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lens_hpc.dataset.verdict import first_few
from lens_hpc.errors import UserError
from lens_hpc.packing.cells import CatalogueTable
from lens_hpc.packing.cutting import check_tile
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.packing.mosaic_settings import Mosaics
from lens_hpc.packing.mosaic_tiles import (
    NO_TILE,
    BandFiles,
    TileGrids,
    assign_tiles,
    find_tiles,
    read_grids,
)
from lens_hpc.packing.recipe import Recipe

FEWEST_ON_TILES = 0.01
"""Share of the rows that lie on a tile below which their coordinates are not what we think."""
DEGREES_PER_HOUR = 15
GUESSES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "radians": np.degrees,
    "hours of right ascension": lambda positions: positions * [DEGREES_PER_HOUR, 1],
    "declination and right ascension, swapped": lambda positions: positions[:, ::-1],
}


class PlacedRows(NamedTuple):
    """Where the N rows of a catalogue lie."""

    positions: np.ndarray
    """Right ascension and declination, (N, 2); NaN where there is none. *Unit: degrees*"""
    paths: np.ndarray
    """Files of the tile of each row, (N, bands), relative to the source folder; empty without."""
    bad: dict[int, str]
    """Row: why it has no place."""


def place_rows(recipe: Recipe, table: CatalogueTable, source: Path) -> PlacedRows:
    """Find the tile of each row of a table.

    Raises UserError where no mosaic fits the recipe, or hardly any row lies on one.
    """
    mosaics = recipe.mosaics
    assert mosaics is not None
    bad: dict[int, str] = {}
    positions = _read_positions(table, mosaics, bad)
    tiles = find_tiles(recipe, source)
    if mosaics.tile is None:
        grids = read_grids(recipe, source, tiles, range(len(tiles)))
        _refuse_unplaced_tiles(grids)
        tile_of_row = assign_tiles(grids.grids, positions)
    else:
        tile_of_row = _named_tiles(table, mosaics.tile, tiles, bad)
        needed = np.unique(tile_of_row[tile_of_row != NO_TILE]).tolist()
        grids = read_grids(recipe, source, tiles, needed)
        _reject_outside(tiles, grids, positions, tile_of_row, bad)

    _reject_faulty_tiles(recipe, source, tiles, tile_of_row, bad)
    has_place = np.isfinite(positions).all(axis=1)
    _refuse_other_units(recipe, grids, positions[has_place], tile_of_row[has_place])
    _reject_unplaced(recipe, tiles, positions, tile_of_row, bad)
    return PlacedRows(positions, _paths_of_rows(recipe, tiles, tile_of_row), bad)


def _read_positions(table: CatalogueTable, mosaics: Mosaics, bad: dict[int, str]) -> np.ndarray:
    """Return right ascension and declination of each row, (N, 2), NaN where one is missing."""
    columns = []
    for name, most in ((mosaics.ra, 360), (mosaics.dec, 90)):
        numbers, wrong = table.numbers(name)
        filled = pc.fill_null(numbers.cast(pa.float64(), safe=False), np.nan)
        values = np.array(filled.to_numpy(zero_copy_only=False))

        values[wrong] = np.nan
        for row in np.flatnonzero(~(np.abs(values) <= most)).tolist():
            text = table.text(name, row)
            shown = "is missing" if text == "None" else f"= {text!r} is no position"
            bad.setdefault(row, f"{name} {shown}; it must be a number in degrees")
            values[row] = np.nan
        columns.append(values)
    return np.stack(columns, axis=1)


# ---- tiles that are found by where they lie ----


def _refuse_unplaced_tiles(grids: TileGrids) -> None:
    """Raise UserError where a tile does not say where it lies: its rows cannot be known."""
    if grids.faults:
        listed = first_few(list(grids.faults.values()))
        raise UserError(
            f"tiles of which nobody knows where they lie: {listed}; mend or move them, or name a "
            "column with the tile of each row (mosaics.tile)"
        )


def _reject_unplaced(
    recipe: Recipe,
    tiles: Mapping[str, BandFiles],
    positions: np.ndarray,
    tile_of_row: np.ndarray,
    bad: dict[int, str],
) -> None:
    """Mark the rows that lie on no tile, or on one that lacks a band."""
    for row in np.flatnonzero(tile_of_row == NO_TILE).tolist():
        right_ascension, declination = positions[row]
        bad.setdefault(
            row, f"lies on no tile: position {right_ascension:.6f} {declination:+.6f} degrees"
        )

    assert recipe.mosaics is not None
    for number, (name, files) in enumerate(tiles.items()):
        absent = [band for band, file in zip(recipe.bands, files, strict=True) if file is None]
        if not absent:
            continue
        pattern = recipe.mosaics.path_of(absent[0])
        for row in np.flatnonzero(tile_of_row == number).tolist():
            bad.setdefault(
                row,
                f"tile {name} has no file of band {', '.join(absent)}: nothing fits {pattern}",
            )


# ---- tiles that a column names ----


def _named_tiles(
    table: CatalogueTable, column: str, tiles: Mapping[str, BandFiles], bad: dict[int, str]
) -> np.ndarray:
    """Return the number of the tile that a column names for each row, (N,)."""
    codes, texts = table.coded(column)
    if texts and not set(texts) & set(tiles):
        raise UserError(
            f"{column} = {texts[0]!r} (mosaics.tile): no row names a tile of which there is a "
            f"file; there are {first_few(list(tiles))}. Make {{tile}} in mosaics.path fit the "
            "column"
        )
    numbers = {name: number for number, name in enumerate(tiles)}
    number_of_code = np.array([numbers.get(text, NO_TILE) for text in texts] + [NO_TILE])
    tile_of_row = number_of_code[codes]

    for row in np.flatnonzero(tile_of_row == NO_TILE).tolist():
        code = codes[row]
        named = "names no tile" if code < 0 else f"= {texts[code]!r}: no file is of that tile"
        known = first_few(list(tiles))
        bad.setdefault(row, f"{column} {named}; there are {known}")
    return tile_of_row


def _reject_outside(
    tiles: Mapping[str, BandFiles],
    grids: TileGrids,
    positions: np.ndarray,
    tile_of_row: np.ndarray,
    bad: dict[int, str],
) -> None:
    """Mark the rows that do not lie on the tile that they name, or on one that cannot be read."""
    for number, name in enumerate(tiles):
        rows = np.flatnonzero(tile_of_row == number)
        grid = grids.grids[number]
        if grid is None:
            bad |= {row: grids.faults[number] for row in rows.tolist() if row not in bad}
            continue

        is_outside = ~(grid.margins_of(positions[rows]) > 0)
        for row in rows[is_outside].tolist():
            right_ascension, declination = positions[row]
            bad.setdefault(
                row,
                f"lies outside of its tile {name}: position {right_ascension:.6f} "
                f"{declination:+.6f} degrees; {grid.describe_place()}",
            )
        tile_of_row[rows[is_outside]] = NO_TILE


# ---- all rows ----


def _reject_faulty_tiles(
    recipe: Recipe,
    source: Path,
    tiles: Mapping[str, BandFiles],
    tile_of_row: np.ndarray,
    bad: dict[int, str],
) -> None:
    """Mark the rows of tiles from which nothing can be cut, as far as their headers tell."""
    for number in np.unique(tile_of_row[tile_of_row != NO_TILE]).tolist():
        files = list(tiles.values())[number]
        if None in files:
            continue
        try:
            check_tile(recipe, [source / str(file) for file in files])
        except BadCutoutError as error:
            rows = np.flatnonzero(tile_of_row == number).tolist()
            bad |= {row: str(error) for row in rows if row not in bad}


def _refuse_other_units(
    recipe: Recipe, grids: TileGrids, positions: np.ndarray, tile_of_row: np.ndarray
) -> None:
    """Raise UserError where hardly any position lies on a tile, with a guess why."""
    count = len(positions)
    on_tiles = np.count_nonzero(tile_of_row != NO_TILE)
    if not count or on_tiles >= FEWEST_ON_TILES * count:
        return

    mosaics = recipe.mosaics
    assert mosaics is not None
    guess = _guess_units(grids, positions)
    known = [grid for grid in grids.grids if grid is not None]
    place = f" Such as {known[0].describe_place()}." if known else ""
    low, high = positions.min(axis=0), positions.max(axis=0)
    raise UserError(
        f"{recipe.catalogue}: {on_tiles:,} of {count:,} positions lie on a tile. {mosaics.ra} is "
        f"from {low[0]:g} to {high[0]:g}, {mosaics.dec} from {low[1]:g} to {high[1]:g}, and both "
        f"must be in degrees (ICRS).{place}{guess}"
    )


def _guess_units(grids: TileGrids, positions: np.ndarray) -> str:
    """Say what the coordinates seem to be; empty where nothing brings them onto the tiles."""
    for unit, convert in GUESSES.items():
        converted = convert(positions)
        is_valid = (np.abs(converted[:, 0]) <= 360) & (np.abs(converted[:, 1]) <= 90)
        tile_of_row = assign_tiles(grids.grids, converted[is_valid])
        if np.count_nonzero(tile_of_row != NO_TILE) > len(positions) / 2:
            return f" They seem to be {unit}: write degrees into the catalogue"
    return ""


def _paths_of_rows(
    recipe: Recipe, tiles: Mapping[str, BandFiles], tile_of_row: np.ndarray
) -> np.ndarray:
    files = [[path or "" for path in paths] for paths in tiles.values()]
    files.append([""] * len(recipe.bands))  # of no tile, whose number is -1
    return np.array(files, dtype=object)[tile_of_row]
