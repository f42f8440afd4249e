"""The rows of a survey that may be too large for the memory, sorted by tile in a folder.

FOLDER/survey.json      tiles, types of kept columns, and what all of it was made from
FOLDER/rows.arrow, slices.npy       the rows (lens_hpc.packing.sorted_rows)
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from lens_hpc._version import __version__
from lens_hpc.errors import UserError
from lens_hpc.files import whole_folder
from lens_hpc.logs import logger
from lens_hpc.packing.catalogue import LONGEST_ID, Catalogue, read_rows, warn_of_features
from lens_hpc.packing.catalogue_tables import joins_of, stream_tables
from lens_hpc.packing.cells import CatalogueTable
from lens_hpc.packing.joins import Choice, choose_rows, tell_choice
from lens_hpc.packing.mosaic_rows import RowPlacer
from lens_hpc.packing.mosaic_tiles import NO_TILE, BandFiles, find_tiles
from lens_hpc.packing.recipe import Recipe
from lens_hpc.packing.sorted_rows import (
    FEATURE,
    KEPT,
    CatalogueRows,
    SortedRows,
    SortedTable,
    digest_of,
    write_sorted,
)
from lens_hpc.packing.survey_ids import RepeatedId, SeenIds
from lens_hpc.texts import printable

SURVEY = "survey.json"
DAMAGES = (OSError, EOFError, ValueError, LookupError, TypeError, pa.ArrowException)
"""What the libraries raise for files of ours that a disk has damaged."""
HASHES = "hashes"
TABLE_ROWS = 1 << 18
"""Rows of the catalogue that are in memory at a time."""
MOST_WITHOUT_TILE = 1 << 17
"""Rows on no tile that are one part: there may be more than fit into memory."""


class TileRows(NamedTuple):
    """What a catalogue has on one tile, or a part of what it has on none."""

    name: str | None
    """None: on no tile."""
    part: int
    """Of the rows on no tile, from 0; the rows of a tile are one part."""
    files: tuple[str, ...]
    """Of each band, relative to the source folder; empty where it has none, or for no tile."""
    objects: int
    digest: str
    """SHA-256 of all that `SurveyRows.read` returns."""


class SurveyRows:
    """The rows that `sort_rows` has written to a folder.

    `tiles` are those that have rows, in the order of their names; what lies on none comes last.
    Raises UserError for a folder that is damaged.
    """

    def __init__(self, folder: Path) -> None:
        try:
            content = (folder / SURVEY).read_bytes()
            self._survey = json.loads(content)
            self._rows = SortedRows(folder)
            self._rows.types = self._survey["types"]
            self.tiles = [_tile_from(described) for described in self._survey["tiles"]]
        except DAMAGES as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{folder}: is damaged ({reason}); delete it, and run the same line again: the "
                "catalogue is sorted anew"
            ) from error

    def read(self, tile: int) -> CatalogueRows:
        """Return the rows of a tile, by its number in `tiles`."""
        return self._rows.read(tile)

    def is_of(self, recipe: Recipe, source: Path) -> bool:
        """Say whether recipe, catalogue and tiles are still those that the rows were made from."""
        tiles = find_tiles(recipe, source)
        now = _describe_source(recipe, source, tiles)
        as_written = json.loads(json.dumps(now))
        return bool(as_written == self._survey["source"])


def _tile_from(described: dict[str, Any]) -> TileRows:
    files = tuple(described["files"])
    return TileRows(**{**described, "files": files})


def sort_rows(recipe: Recipe, source: Path, folder: Path, table_rows: int = TABLE_ROWS) -> None:
    """Write the rows of a catalogue of positions to a folder, sorted by their tile.

    `recipe` has mosaics; what it says of labels and splits should be taken out. The folder
    appears whole, and replaces an older one. Raises UserError for what is wrong with the catalogue
    as a whole, and where an id stands twice; what is wrong with a row becomes its reason.
    """
    if not source.is_dir():
        raise UserError(f"source = {source}: there is no such folder")
    tiles = find_tiles(recipe, source)
    made_from = _describe_source(recipe, source, tiles)
    placer = RowPlacer(recipe, source, tiles)

    with whole_folder(folder, replace=True) as aside:
        seen = SeenIds(aside / HASHES)
        sorter = _TableSorter(recipe, placer, seen)
        tables = stream_tables(recipe, source, table_rows)
        write_sorted(aside, sorter.sort_all(tables))

        # Now all rows are known, and can be looked up.
        rows = SortedRows(aside)
        repeated = seen.find_repeated(rows.id_of_row)
        if repeated:
            raise UserError(_describe_repeated(recipe, repeated))
        seen.remove()
        rows.decide_types()

        survey = {
            "source": made_from,
            "types": rows.types,
            "tiles": _describe_tiles(placer, rows),
        }
        text = json.dumps(survey)
        (aside / SURVEY).write_text(text, encoding="utf-8")


class _TableSorter:
    """Reads the rows of tables, finds their tiles, and sorts them."""

    def __init__(self, recipe: Recipe, placer: RowPlacer, seen: SeenIds) -> None:
        self.recipe = recipe
        self.placer = placer
        self.seen = seen
        self._first_row = 0
        """Row of the catalogue with which the next table begins."""
        self._unplaced = 0
        """Rows that lie on no tile."""

    def sort_all(self, tables: Iterable[CatalogueTable]) -> Iterator[SortedTable]:
        """Yield the rows of each table, of which one has any, then check what concerns all."""
        where = self.recipe.where
        chosen = 0
        left_out = 0
        unknown = 0
        for table in tables:
            choice = choose_rows(table, where)
            left_out += choice.left_out
            unknown += choice.unknown
            if len(choice.rows):
                # The first rows stand for all where a feature looks as if it was not measured.
                is_first = not chosen
                yield self._sort(choice, is_first)
            chosen += len(choice.rows)
            self._first_row += len(table)

        tell_choice(where, chosen, left_out, unknown)
        self.placer.check_all()
        logger.info("%d rows of %s sorted by tile", chosen, self.recipe.catalogue)

    def _sort(self, choice: Choice, is_first: bool) -> SortedTable:
        columns = self.recipe.columns
        catalogue = read_rows(columns, choice)
        if is_first:
            warn_of_features(columns, choice.table, catalogue.features)

        rows = self._first_row + choice.rows
        self._refuse_repeated(catalogue.ids, rows)
        places = self.placer.place(choice.table)
        for row, reason in places.bad.items():
            catalogue.reject(row, reason)

        table = {
            "id": pa.array(catalogue.ids, pa.string()),
            "row": pa.array(rows),
            "ra": pa.array(places.positions[:, 0]),
            "dec": pa.array(places.positions[:, 1]),
            "reason": _reasons_of(catalogue),
        }
        for number, name in enumerate(columns.features):
            values = catalogue.features[:, number]
            table[FEATURE + name] = pa.array(values)
        for name in columns.keep:
            table[KEPT + name] = choice.table.columns[name]

        tiles = self._with_parts(places.tiles)
        order = np.argsort(tiles, kind="stable")
        in_order = pa.record_batch(table).take(pa.array(order))
        return SortedTable(in_order, tiles[order])

    def _refuse_repeated(self, ids: np.ndarray, rows: np.ndarray) -> None:
        # What is no id, or was cut, has its reason already.
        lengths = np.strings.str_len(ids)
        is_id = (lengths > 0) & (lengths <= LONGEST_ID)
        repeated = self.seen.add(ids[is_id], rows[is_id])
        if repeated:
            raise UserError(_describe_repeated(self.recipe, repeated))

    def _with_parts(self, tile_of_row: np.ndarray) -> np.ndarray:
        """Return the tiles of rows, (N,), with numbers after all tiles for parts without one."""
        is_unplaced = tile_of_row == NO_TILE
        place = self._unplaced + np.cumsum(is_unplaced) - 1
        part = place // MOST_WITHOUT_TILE
        self._unplaced += int(is_unplaced.sum())

        tiles = len(self.placer.names)
        return np.where(is_unplaced, tiles + part, tile_of_row)


def _reasons_of(catalogue: Catalogue) -> pa.Array:
    """Return why each row has no cutout, as texts; null for one that may have."""
    reasons: list[str | None] = [None] * len(catalogue)
    for row, reason in catalogue.bad.items():
        # The name of a file may be no UTF-8.
        reasons[row] = printable(reason)
    return pa.array(reasons, pa.string())


# ---- what is written beside the rows ----


def _describe_repeated(recipe: Recipe, repeated: RepeatedId) -> str:
    first, second = repeated.first_row, repeated.second_row
    return (
        f"{recipe.catalogue}: the id {repeated.id!r} stands in row {first:,} and in row "
        f"{second:,}, counted from 0; each object needs an id of its own: take one row out, or "
        "make columns.id of several columns, as in {field}_{number}"
    )


def _describe_tiles(placer: RowPlacer, rows: SortedRows) -> list[dict[str, Any]]:
    tiles = []
    for place, number in enumerate(rows.numbers.tolist()):
        content = rows.read(place)
        part = number - len(placer.names)
        is_tile = part < 0
        tile = TileRows(
            name=placer.names[number] if is_tile else None,
            part=0 if is_tile else part,
            files=placer.files_of(number) if is_tile else (),
            objects=len(content.ids),
            digest=digest_of(content),
        )
        tiles.append(tile._asdict())
    return tiles


def _describe_source(
    recipe: Recipe, source: Path, tiles: Mapping[str, BandFiles]
) -> dict[str, Any]:
    """Return what the rows depend on: the recipe, and times and sizes of files."""
    assert recipe.catalogue is not None
    catalogues = [recipe.catalogue]
    catalogues += [join.catalogue for join in joins_of(recipe)]
    tables: list[Path] = []
    for catalogue in catalogues:
        tables += _files_of(source / catalogue)

    mosaics = {file for files in tiles.values() for file in files if file}
    paths = [source / file for file in sorted(mosaics)]
    keys = set(Recipe.model_fields)  # settings of how to work change no row
    return {
        "version": __version__,
        "recipe": recipe.model_dump(mode="json", include=keys),
        "catalogues": _stamps(source, tables),
        "mosaics": _stamps(source, paths),
    }


def _files_of(catalogue: Path) -> list[Path]:
    if not catalogue.is_dir():
        return [catalogue]
    below = catalogue.rglob("*")
    return sorted(path for path in below if path.is_file())


def _stamps(source: Path, files: Iterable[Path]) -> dict[str, list[int]]:
    """Return time and size of each file that is there."""
    stamps = {}
    for file in files:
        if file.exists():
            status = file.stat()
            name = os.path.relpath(file, source)
            stamps[name] = [status.st_mtime_ns, status.st_size]
    return stamps
