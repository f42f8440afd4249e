"""Cutouts of a tile that are ready to be scored: batches of the pixels that `pack` would store.

Nearly all cutouts of a survey are good as they were cut. A look at the least and greatest values of
a whole batch tells which; only the others are finished one by one, as `pack` does.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lens_hpc.packing.bad_pixels import are_surely_good
from lens_hpc.packing.cutouts import Cutouts
from lens_hpc.packing.cutting import CutoutBatch, open_tile
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.packing.mosaic_images import MosaicImages
from lens_hpc.packing.recipe import Recipe


class FinishedBatch(NamedTuple):
    """Cutouts of one tile, ready to be scored."""

    rows: np.ndarray
    """Numbers of the positions that they are of, (n,), in growing order."""
    pixels: np.ndarray
    """(n, bands, height, width), in the type and with the values that `pack` stores."""
    edge_fraction: np.ndarray
    """Which part of each lies outside of the mosaics, (n,)."""


def finished_batches(
    recipe: Recipe,
    source: Path,
    files: Sequence[str],
    positions: np.ndarray,
    batch_size: int,
    memory_bytes: int,
    reasons: dict[int, str],
) -> Iterator[FinishedBatch]:
    """Yield the cutouts of positions (N, 2) on one tile, looking at `batch_size` at a time.

    `files` are the tile's mosaics, one a band, relative to the folder `source`. A position without
    a usable cutout is in no batch: `reasons` gets its number and why. Raises BadCutoutError where
    the tile cannot be read. *Unit: degrees, ICRS*
    """
    finisher = _Finisher(recipe, source, files, positions)
    paths = [source / file for file in files]
    with open_tile(recipe, paths, memory_bytes) as tile:
        for batch in tile.cut(positions, batch_size):
            yield finisher.finish(batch, reasons)


class _Finisher:
    """Makes of cutouts of one tile what `pack` would store."""

    def __init__(
        self, recipe: Recipe, source: Path, files: Sequence[str], positions: np.ndarray
    ) -> None:
        self.dtype = np.dtype(recipe.dtype)
        paths = np.broadcast_to(np.array(files, object), (len(positions), len(files)))
        self.images = MosaicImages(recipe, source, paths, positions, memory_bytes=0)
        self.cutouts = Cutouts(recipe, source, paths, stack=self.images)

    def finish(self, batch: CutoutBatch, reasons: dict[int, str]) -> FinishedBatch:
        """Return the usable cutouts of a batch; the others get a reason."""
        edge_fraction = batch.edge_fraction
        is_sure = (edge_fraction == 0) & are_surely_good(batch.pixels, self.dtype)
        if is_sure.all():
            return FinishedBatch(batch.rows, batch.pixels, edge_fraction)

        pixels = batch.pixels
        if pixels.dtype != self.dtype:
            pixels = np.empty(batch.pixels.shape, self.dtype)

        is_usable = np.ones(len(batch.rows), dtype=bool)
        self.images.hold(batch)
        for number in np.flatnonzero(~is_sure).tolist():
            row = int(batch.rows[number])
            try:
                pixels[number] = self.cutouts[row]
            except BadCutoutError as error:
                reasons[row] = str(error)
                is_usable[number] = False
        return FinishedBatch(batch.rows[is_usable], pixels[is_usable], edge_fraction[is_usable])
