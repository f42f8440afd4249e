"""The rows of a catalogue on the mosaics of a survey: where each lies, and in which files."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lens_hpc.dataset.verdict import first_few
from lens_hpc.errors import UserError
from lens_hpc.packing.catalogue_files import FileCheck
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
    placer = RowPlacer(recipe, source, find_tiles(recipe, source))
    places = placer.place(table)
    placer.check_all()

    files = []
    for number in range(len(placer.names)):
        files.append(placer.files_of(number))
    files.append(("",) * len(recipe.bands))  # of no tile, whose number is -1

    paths_of_tiles = np.array(files, dtype=object)
    return PlacedRows(
        positions=places.positions,
        paths=paths_of_tiles[places.tiles],
        bad=places.bad,
    )


class Places(NamedTuple):
    """On which tile each of N rows lies."""

    positions: np.ndarray
    """Right ascension and declination, (N, 2); NaN where there is none. *Unit: degrees*"""
    tiles: np.ndarray
    """Number of the tile, (N,), or NO_TILE."""
    bad: dict[int, str]
    """Row: why it has no place, or none from which anything can be cut."""


class RowPlacer:
    """Finds the tiles of rows, table by table; what a tile is like is found out once."""

    def __init__(self, recipe: Recipe, source: Path, tiles: Mapping[str, BandFiles]) -> None:
        assert recipe.mosaics is not None
        self.recipe = recipe
        self.mosaics = recipe.mosaics
        self.source = source
        self.tiles = tiles
        self.names = list(tiles)

        self._files = list(tiles.values())
        self._numbers = {name: number for number, name in enumerate(self.names)}
        self._check = FileCheck(source, recipe.follow_links)
        self._faults: dict[int, str] = {}
        self._grids = TileGrids([None] * len(tiles), {})
        self._has_grid: set[int] = set()
        self._tally = _Tally()
        if self.mosaics.tile is None:
            self._read_grids(set(range(len(tiles))))
            _refuse_unplaced_tiles(self._grids)

    def files_of(self, number: int) -> tuple[str, ...]:
        """Return the file of each band of a tile, empty where it has none."""
        return tuple(file or "" for file in self._files[number])

    def place(self, table: CatalogueTable) -> Places:
        """Find the tile of each row of a table."""
        bad: dict[int, str] = {}
        positions = _read_positions(table, self.mosaics, bad)
        if self.mosaics.tile is None:
            tile_of_row = assign_tiles(self._grids.grids, positions)
        else:
            tile_of_row = self._named_tiles(table, self.mosaics.tile, bad)
            self._reject_outside(positions, tile_of_row, bad)

        self._tally.add(positions, tile_of_row)
        _reject_unplaced(positions, tile_of_row, bad)
        for number, rows in rows_of_tiles(tile_of_row):
            _reject(rows, self._fault_of(number), bad)
        return Places(positions, tile_of_row, bad)

    def check_all(self) -> None:
        """Raise UserError where hardly any of all rows that were placed lies on a tile."""
        tally = self._tally
        if tally.unknown_name is not None and not tally.has_known_name:
            raise UserError(
                f"{self.mosaics.tile} = {tally.unknown_name!r} (mosaics.tile): no row names a tile "
                f"of which there is a file; there are {first_few(self.names)}. Make {{tile}} in "
                "mosaics.path fit the column"
            )
        if tally.on_tiles < FEWEST_ON_TILES * tally.count:
            raise UserError(self._describe_other_units())

    # ---- tiles that a column names ----

    def _named_tiles(self, table: CatalogueTable, column: str, bad: dict[int, str]) -> np.ndarray:
        """Return the number of the tile that a column names for each row, (N,)."""
        codes, texts = table.coded(column)
        numbers = [self._numbers.get(text, NO_TILE) for text in texts]
        self._tally.add_names(texts, numbers)

        # What names no tile has the code -1, which is the last.
        number_of_code = np.array([*numbers, NO_TILE])
        tile_of_row = number_of_code[codes]
        known = first_few(self.names)
        for row in np.flatnonzero(tile_of_row == NO_TILE).tolist():
            code = codes[row]
            named = "names no tile" if code < 0 else f"= {texts[code]!r}: no file is of that tile"
            bad.setdefault(row, f"{column} {named}; there are {known}")
        return tile_of_row

    def _reject_outside(
        self, positions: np.ndarray, tile_of_row: np.ndarray, bad: dict[int, str]
    ) -> None:
        """Mark the rows that do not lie on the tile that they name, and take them off it."""
        needed = set(np.unique(tile_of_row).tolist())
        self._read_grids(needed - {NO_TILE})
        for number, rows in rows_of_tiles(tile_of_row):
            grid = self._grids.grids[number]
            if grid is None:
                continue

            # A margin that is NaN is outside, too.
            margins = grid.margins_of(positions[rows])
            outside = rows[~(margins > 0)]
            tile_of_row[outside] = NO_TILE
            name = self.names[number]
            place = grid.describe_place()
            for row in outside.tolist():
                position = _shown(positions[row])
                bad.setdefault(row, f"lies outside of its tile {name}: {position}; {place}")

    def _read_grids(self, needed: set[int]) -> None:
        """Read where some tiles lie, as far as that is not known."""
        new = sorted(needed - self._has_grid)
        found = read_grids(self.recipe, self.source, self.tiles, new)
        for number in new:
            self._grids.grids[number] = found.grids[number]
        self._grids.faults.update(found.faults)
        self._has_grid.update(new)

    # ---- all tiles ----

    def _fault_of(self, number: int) -> str:
        """Say why nothing can be cut from a tile, as far as its headers tell; else empty."""
        if number not in self._faults:
            fault = self._grids.faults.get(number)
            self._faults[number] = fault or self._find_fault(number)
        return self._faults[number]

    def _find_fault(self, number: int) -> str:
        files = self.files_of(number)
        bands = zip(self.recipe.bands, files, strict=True)
        absent = [band for band, file in bands if not file]
        if absent:
            listed = ", ".join(absent)
            pattern = self.mosaics.path_of(absent[0])
            name = self.names[number]
            return f"tile {name} has no file of band {listed}: nothing fits {pattern}"

        for file in files:
            reason, _ = self._check.check(file)
            if reason:
                return reason
        try:
            check_tile(self.recipe, [self.source / file for file in files])
        except BadCutoutError as error:
            return str(error)
        return ""

    def _describe_other_units(self) -> str:
        """Say that hardly any position lies on a tile, with a guess why."""
        tally = self._tally
        mosaics = self.mosaics
        known = [grid for grid in self._grids.grids if grid is not None]
        place = f" Such as {known[0].describe_place()}." if known else ""
        low = tally.low
        high = tally.high
        guess = _guess_units(self._grids, tally.first_positions)
        return (
            f"{self.recipe.catalogue}: {tally.on_tiles:,} of {tally.count:,} positions lie on a "
            f"tile. {mosaics.ra} is from {low[0]:g} to {high[0]:g}, {mosaics.dec} from {low[1]:g} "
            f"to {high[1]:g}, and both must be in degrees (ICRS).{place}{guess}"
        )


class _Tally:
    """What is known of all rows that were placed, however many tables they came in."""

    def __init__(self) -> None:
        self.count = 0
        """Rows that have a position."""
        self.on_tiles = 0
        self.low = np.full(2, np.inf)
        self.high = np.full(2, -np.inf)
        self.first_positions = np.empty((0, 2))
        """Those of the first table with any, which stand for all where units are guessed."""
        self.unknown_name: str | None = None
        self.has_known_name = False

    def add(self, positions: np.ndarray, tile_of_row: np.ndarray) -> None:
        """Count the positions (N, 2) of a table."""
        has_place = np.isfinite(positions).all(axis=1)
        positions = positions[has_place]
        if not len(positions):
            return
        if not self.count:
            self.first_positions = positions

        is_on_tile = tile_of_row[has_place] != NO_TILE
        self.count += len(positions)
        self.on_tiles += int(is_on_tile.sum())
        self.low = np.minimum(self.low, positions.min(axis=0))
        self.high = np.maximum(self.high, positions.max(axis=0))

    def add_names(self, names: list[str], numbers: list[int]) -> None:
        """Note whether any of the names in a table is that of a tile."""
        self.has_known_name |= any(number != NO_TILE for number in numbers)
        if self.unknown_name is None and names:
            self.unknown_name = names[0]


def rows_of_tiles(tile_of_row: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of each tile that has rows, and their numbers, in growing order."""
    order = np.argsort(tile_of_row, kind="stable")
    in_order = tile_of_row[order]
    numbers, starts = np.unique(in_order, return_index=True)
    bounds = np.append(starts, len(order))
    for place, number in enumerate(numbers.tolist()):
        begin, end = bounds[place : place + 2]
        if number != NO_TILE:
            yield number, order[begin:end]


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


def _refuse_unplaced_tiles(grids: TileGrids) -> None:
    """Raise UserError where a tile does not say where it lies: its rows cannot be known."""
    if grids.faults:
        listed = first_few(list(grids.faults.values()))
        raise UserError(
            f"tiles of which nobody knows where they lie: {listed}; mend or move them, or name a "
            "column with the tile of each row (mosaics.tile)"
        )


def _reject_unplaced(positions: np.ndarray, tile_of_row: np.ndarray, bad: dict[int, str]) -> None:
    """Mark the rows that lie on no tile."""
    unplaced = np.flatnonzero(tile_of_row == NO_TILE)
    for row in unplaced.tolist():
        position = _shown(positions[row])
        bad.setdefault(row, f"lies on no tile: {position}")


def _shown(position: np.ndarray) -> str:
    right_ascension, declination = position
    return f"position {right_ascension:.6f} {declination:+.6f} degrees"


def _reject(rows: np.ndarray, reason: str, bad: dict[int, str]) -> None:
    """Mark rows as bad for a reason, if there is one; the first reason stays."""
    if not reason:
        return
    for row in rows.tolist():
        bad.setdefault(row, reason)


def _guess_units(grids: TileGrids, positions: np.ndarray) -> str:
    """Say what the coordinates seem to be; empty where nothing brings them onto the tiles."""
    for unit, convert in GUESSES.items():
        converted = convert(positions)
        is_valid = (np.abs(converted[:, 0]) <= 360) & (np.abs(converted[:, 1]) <= 90)
        tile_of_row = assign_tiles(grids.grids, converted[is_valid])
        if np.count_nonzero(tile_of_row != NO_TILE) > len(positions) / 2:
            return f" They seem to be {unit}: write degrees into the catalogue"
    return ""
