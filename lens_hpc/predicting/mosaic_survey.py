"""A survey whose objects lie on mosaics, and are scored straight from these, tile by tile."""

import hashlib
from collections.abc import Iterator
from urllib.parse import quote

import numpy as np

from lens_hpc.packing.cutting import check_tile
from lens_hpc.packing.finished_cutouts import finished_batches
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.packing.plan import MIB
from lens_hpc.packing.recipe import PackSettings
from lens_hpc.packing.survey_rows import SurveyRows, TileRows
from lens_hpc.predicting.object_table import object_table
from lens_hpc.predicting.survey import PartCutouts, PartRows, SurveyPart, kind_of_recipe

NO_TILE = "no-tile"
LONGEST_NAME = 150


class MosaicSurvey:
    """The objects of a catalogue, sorted by tile, and the mosaics of each tile."""

    def __init__(self, recipe: PackSettings, rows: SurveyRows) -> None:
        assert recipe.size is not None
        self.recipe = recipe
        self.source = recipe.source
        self.sorted = rows
        self.kind = kind_of_recipe(recipe, recipe.size)
        self.parts = [self._part(tile) for tile in rows.tiles]

    def _part(self, tile: TileRows) -> SurveyPart:
        """Return what a tile is as a part; its rows and the stamps of its files identify it."""
        digest = hashlib.sha256(tile.digest.encode())
        size = 0
        for file in dict.fromkeys(tile.files):
            path = self.source / file
            # One that is missing gives its rows a reason.
            stamp = "missing"
            if path.is_file():
                status = path.stat()
                size += status.st_size
                stamp = f"{status.st_size} {status.st_mtime_ns}"
            digest.update(f"\0{file}\0{stamp}".encode())
        return SurveyPart(part_name(tile), tile.objects, size, digest.hexdigest())

    def rows(self, part: int) -> PartRows:
        """Return the objects of a tile."""
        found = self.sorted.read(part)
        tile = self.sorted.tiles[part].name
        held = self._own_columns()
        table = object_table(found.ids, found.positions, tile, found.kept, held)
        return PartRows(table, found.features, found.reasons)

    def _own_columns(self) -> set[str]:
        """Return the columns of the catalogue that are kept in any case, under the same name."""
        mosaics = self.recipe.mosaics
        assert mosaics is not None
        own = {"ra": mosaics.ra, "dec": mosaics.dec, "tile": mosaics.tile}
        return {name for name, column in own.items() if name == column}

    def batches(
        self, part: int, rows: PartRows, batch_size: int, reasons: dict[int, str]
    ) -> Iterator[PartCutouts]:
        """Yield the cutouts of a tile. Raises BadCutoutError where it cannot be read."""
        is_placed = np.ones(len(rows.table), dtype=bool)
        is_placed[list(rows.reasons)] = False
        placed = np.flatnonzero(is_placed)
        if not len(placed):
            self._check_readable(part, rows)
        yield from self._cut(part, placed, rows.positions, batch_size, reasons)

    def _check_readable(self, part: int, rows: PartRows) -> None:
        """Raise BadCutoutError where it is the tile that keeps all its objects from a cutout."""
        tile = self.sorted.tiles[part]
        if tile.name is None:
            return
        if not all(tile.files):
            raise BadCutoutError(next(iter(rows.reasons.values())))
        check_tile(self.recipe, [self.source / file for file in tile.files])

    def cutouts(self, part: int, rows: np.ndarray) -> np.ndarray:
        """Return the cutouts of some objects of a tile; BadCutoutError where one is not usable."""
        positions = self.sorted.read(part).positions
        reasons: dict[int, str] = {}
        cut = list(self._cut(part, np.sort(rows), positions, len(rows), reasons))
        if reasons:
            raise BadCutoutError(next(iter(reasons.values())))
        numbers = np.concatenate([batch.rows for batch in cut])
        pixels = np.concatenate([batch.pixels for batch in cut])

        # Strips come in another order.
        order = np.argsort(numbers)
        return pixels[order[np.searchsorted(numbers[order], rows)]]

    def _cut(
        self,
        part: int,
        rows: np.ndarray,
        positions: np.ndarray,
        batch_size: int,
        reasons: dict[int, str],
    ) -> Iterator[PartCutouts]:
        """Yield the cutouts of these rows of a tile, whose positions (N, 2) are given."""
        if not len(rows):
            return
        own: dict[int, str] = {}
        cut = finished_batches(
            self.recipe,
            self.source,
            self.sorted.tiles[part].files,
            positions[rows],
            batch_size,
            self.recipe.tile_memory * MIB,
            own,
        )
        for batch in cut:
            yield PartCutouts(rows[batch.rows], batch.pixels, batch.edge_fraction)
        # Its numbers are those of the positions that it was given.
        reasons.update((int(rows[number]), reason) for number, reason in own.items())


def part_name(tile: TileRows) -> str:
    """Return the name of a tile's file of scores, which any file system can hold."""
    if tile.name is None:
        return f"{NO_TILE}-{tile.part:05d}"
    name = quote(tile.name, safe=" ")
    if len(name) > LONGEST_NAME:
        digest = hashlib.sha256(tile.name.encode()).hexdigest()[:16]
        name = f"{name[:LONGEST_NAME]}-{digest}"
    return f"tile-{name}"
