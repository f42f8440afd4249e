"""The cutouts of a packing's rows, from mosaics.

The rows of a shard lie on many tiles, and those of a tile in many shards. So the rows of a shard
are cut before they are read, tile by tile, and each mosaic is opened once a shard.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lens_hpc.packing.cutting import CutoutBatch, open_tile
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.packing.recipe import Recipe

BATCH_SIZE = 256


class MosaicCutout(NamedTuple):
    """The cutout of one row."""

    pixels: np.ndarray
    """(bands, height, width) float32; NaN where there is no measurement."""
    is_outside: np.ndarray | None
    """Which of them lie outside of the mosaics; None where all lie inside."""


class MosaicImages:
    """The cutouts of N rows, from the mosaics of a survey.

    `paths` (N, bands) are the files of each row's tile, relative to the folder `source`, and
    `positions` (N, 2) right ascension and declination. *Unit: degrees, ICRS*
    """

    def __init__(
        self,
        recipe: Recipe,
        source: Path,
        paths: np.ndarray,
        positions: np.ndarray,
        memory_bytes: int,
    ) -> None:
        self.recipe = recipe
        self.source = source
        self.paths = paths
        self.positions = positions
        self.memory_bytes = memory_bytes
        self._cut: dict[int, MosaicCutout | BadCutoutError] = {}

    def name(self, row: int, band: int = 0) -> str:
        """Return what to call the cutout of a row and band in a message: the path of its file."""
        return str(self.paths[row, band])

    def unit(self, row: int, band: int) -> str:
        """Return the unit of the cutouts, to which all bands are brought: the recipe's."""
        return self.recipe.units

    def prepare(self, rows: np.ndarray, begin: Callable[[int], None]) -> None:
        """Cut these rows, and forget those before; `begin` is told a row of each tile in turn."""
        if all(row in self._cut for row in rows.tolist()):
            return
        self._cut = {}
        for rows_of_tile in self._by_tile(rows):
            begin(int(rows_of_tile[0]))
            self._cut |= self._cut_tile(rows_of_tile)

    def hold(self, batch: CutoutBatch) -> None:
        """Take over the cutouts of a batch, and forget those before."""
        self._cut = dict(zip(batch.rows.tolist(), _split_batch(batch), strict=True))

    def read(self, row: int) -> MosaicCutout:
        """Return the cutout of a row; BadCutoutError says why there is none."""
        row = int(row)
        found = self._cut.get(row)
        if found is None:
            found = self._cut_tile(np.array([row]))[row]
        if isinstance(found, BadCutoutError):
            raise found
        return found

    def _by_tile(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the rows of each tile, in their order."""
        rows_of_tile: dict[tuple[str, ...], list[int]] = {}
        for row in np.sort(rows).tolist():
            rows_of_tile.setdefault(tuple(self.paths[row]), []).append(row)
        for tile in sorted(rows_of_tile):
            yield np.array(rows_of_tile[tile])

    def _cut_tile(self, rows: np.ndarray) -> dict[int, MosaicCutout | BadCutoutError]:
        """Return the cutouts of rows of one tile, or why there are none."""
        paths = [self.source / path for path in self.paths[rows[0]]]
        cutouts: dict[int, MosaicCutout | BadCutoutError] = {}
        try:
            with open_tile(self.recipe, paths, self.memory_bytes) as tile:
                for batch in tile.cut(self.positions[rows], BATCH_SIZE):
                    row_numbers = rows[batch.rows].tolist()
                    cutouts |= zip(row_numbers, _split_batch(batch), strict=True)
        except BadCutoutError as error:
            return dict.fromkeys(rows.tolist(), error)
        return cutouts


def _split_batch(batch: CutoutBatch) -> Iterator[MosaicCutout]:
    at_edge = batch.edge_fraction > 0
    for number, pixels in enumerate(batch.pixels):
        is_outside = None
        if batch.is_outside is not None and at_edge[number]:
            is_outside = batch.is_outside[number]
        yield MosaicCutout(pixels, is_outside)
