"""Cutting: the cutouts of positions on a tile, all bands, straight from its mosaics.

A tile is one piece of the sky, with a mosaic for each band. Its cutouts come in batches: a batch
is gathered from each band by one call, from a mosaic that is mapped or, where it is compressed,
from the rows that its cutouts need. No image is read twice, and none is held whole that takes more
memory than allowed.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lens_hpc.packing.bad_pixels import is_word, mask_pixels
from lens_hpc.packing.gathering import Strip, Windows, gather, window_starts
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.packing.mosaic_bands import Band, finest_of, open_bands
from lens_hpc.packing.mosaic_files import MosaicFile, MosaicPlane, open_mosaic
from lens_hpc.packing.recipe import Recipe
from lens_hpc.packing.wide_pixels import WideWindows, find_wide_windows, resample_cutouts

SPARSE = 1 / 8
"""Share of a mapped image's pages below which each is read without those around it."""
MOST_IN_PARTS = 0.5
"""Share of a compressed image's rows above which all are decompressed at once, which is faster."""


class CutoutBatch(NamedTuple):
    """Cutouts of one tile, on the grid of its finest band."""

    rows: np.ndarray
    """Numbers of the positions that they are of, (n,), in growing order."""
    pixels: np.ndarray
    """(n, bands, height, width) float32; NaN where there is no measurement."""
    is_outside: np.ndarray | None
    """Which of the pixels lie outside of the mosaics; None where all lie inside."""

    @property
    def edge_fraction(self) -> np.ndarray:
        """Which part of the pixels of each cutout lies outside of the mosaics, (n,)."""
        if self.is_outside is None:
            return np.zeros(len(self.rows))
        return np.asarray(self.is_outside.mean(axis=(1, 2, 3)))


class _Places(NamedTuple):
    """Where the cutouts lie in one band."""

    windows: Windows
    wide: WideWindows | None
    """How wide pixels lie in the cutouts; None for a band with the finest pixels."""

    def take(self, rows: np.ndarray) -> "_Places":
        """Return some of them, by their numbers."""
        wide = None if self.wide is None else self.wide.take(rows)
        return _Places(self.windows.take(rows), wide)


class _Strips(NamedTuple):
    """What is read of one band."""

    pixels: Strip
    mask: Strip | None


class _BandCut(NamedTuple):
    """Cutouts of one band, (n, height, width)."""

    values: np.ndarray
    is_nothing: np.ndarray | None
    """Which pixels hold no measurement, besides those that are NaN."""
    is_outside: np.ndarray | None


@contextmanager
def open_tile(recipe: Recipe, paths: Sequence[Path], memory_bytes: int) -> "Iterator[Tile]":
    """Open the mosaics of a tile, one path a band of the recipe.

    `memory_bytes` is what a compressed mosaic may take. Raises BadCutoutError, with the file, for
    what cannot be read or does not fit the recipe.
    """
    with ExitStack() as stack:
        files = {}
        for path in dict.fromkeys(paths):
            files[path] = stack.enter_context(open_mosaic(path))
        yield Tile(recipe, [files[path] for path in paths], memory_bytes)


def check_tile(recipe: Recipe, paths: Sequence[Path]) -> None:
    """Raise BadCutoutError for a tile from which nothing can be cut, as far as headers tell.

    Gzipped mosaics would have to be unzipped: their faults are told when they are.
    """
    if any(path.name.lower().endswith(".gz") for path in paths):
        return
    with open_tile(recipe, paths, memory_bytes=0):
        pass


class Tile:
    """The open mosaics of one tile."""

    def __init__(self, recipe: Recipe, files: Sequence[MosaicFile], memory_bytes: int) -> None:
        assert recipe.mosaics is not None
        assert recipe.size is not None
        self.recipe = recipe
        self.size = recipe.size
        self.memory_bytes = memory_bytes
        self.bands = open_bands(recipe, files)
        self.finest = finest_of(self.bands)

    def cut(self, positions: np.ndarray, batch_size: int) -> Iterator[CutoutBatch]:
        """Yield the cutouts of positions (N, 2), right ascension and declination, in batches.

        *Unit: degrees, ICRS*. They come in the order of the positions, unless a mosaic is
        decompressed in strips: then it is that order within each strip. A position that does not
        lie on the tile gets a cutout all of which lies outside.
        """
        places = self._find_places(positions)
        for rows in self._rows_of_strips(places):
            # In a call of its own, so that its strips are forgotten before others are read.
            yield from self._cut_rows(rows, places, batch_size)

    def _cut_rows(
        self, rows: np.ndarray, places: list[_Places], batch_size: int
    ) -> Iterator[CutoutBatch]:
        """Yield the cutouts of rows whose pixels are in memory at the same time."""
        strips = self._read_strips(places, rows)
        for start in range(0, len(rows), batch_size):
            yield self._cut_batch(rows[start : start + batch_size], places, strips)

    # ---- where ----

    def _find_places(self, positions: np.ndarray) -> list[_Places]:
        pixels = self.finest.grid.pixels_of(positions)
        starts = window_starts(pixels, self.size)
        return [self._find_place(band, positions, pixels, starts) for band in self.bands]

    def _find_place(
        self, band: Band, positions: np.ndarray, pixels: np.ndarray, starts: np.ndarray
    ) -> _Places:
        """Return where cutouts lie in a band; `pixels` and `starts` are those of the finest."""
        if band is self.finest:
            return _Places(Windows(starts, self.size, band.grid.shape), None)

        there = band.grid.pixels_of(positions)
        if band.ratio == 1:
            starts = window_starts(there, self.size)
            return _Places(Windows(starts, self.size, band.grid.shape), None)
        corners = there + (starts[:, ::-1] - 0.5 - pixels) / band.ratio
        wide = find_wide_windows(corners, self.size, band.ratio)
        return _Places(Windows(wide.starts, wide.wide_size, band.grid.shape), wide)

    def _rows_of_strips(self, places: list[_Places]) -> Iterator[np.ndarray]:
        """Yield the numbers of the cutouts whose pixels are in memory at the same time."""
        starts = places[self.bands.index(self.finest)].windows.starts[:, 0]
        most = self._most_rows()
        if most >= self.finest.plane.shape[0]:
            yield np.arange(len(starts))
            return

        order = np.argsort(starts, kind="stable")
        sorted_starts = starts[order]
        begin = 0
        while begin < len(order):
            last_start = sorted_starts[begin] + most - self.size[0]
            end = int(np.searchsorted(sorted_starts, last_start, side="right"))
            end = max(end, begin + 1)
            yield np.sort(order[begin:end])
            begin = end

    def _most_rows(self) -> float:
        """Return how many rows of the finest band may be in memory at the same time."""
        most = float("inf")
        for band in self.bands:
            for plane in (band.plane, band.mask):
                if plane is not None and plane.is_compressed:
                    most = min(most, self.memory_bytes / plane.row_bytes * band.ratio)
        return most

    # ---- pixels ----

    def _read_strips(self, places: list[_Places], rows: np.ndarray) -> list[_Strips]:
        """Read what some cutouts need of each band, and of its mask."""
        strips = []
        for band, place in zip(self.bands, places, strict=True):
            windows = place.windows.take(rows)
            mask = None
            if band.mask is not None:
                mask = self._read_strip(band.mask, windows)
            strips.append(_Strips(self._read_strip(band.plane, windows), mask))
        return strips

    def _read_strip(self, plane: MosaicPlane, windows: Windows) -> Strip:
        """Read the rows of an image that cutouts need."""
        if not plane.is_compressed:
            return Strip(0, plane.map(windows.share_of_pages(plane.dtype.itemsize) < SPARSE))

        is_needed = windows.needed_rows()
        fits = plane.shape[0] * plane.row_bytes <= self.memory_bytes
        if fits and is_needed.mean() > MOST_IN_PARTS:
            is_needed[:] = True
        if not is_needed.any():
            is_needed[0] = True  # cutouts that lie outside need a pixel to stand in

        begin, last = np.flatnonzero(is_needed)[[0, -1]].tolist()
        return Strip(begin, plane.decompress(begin, is_needed[begin : last + 1]))

    def _cut_batch(
        self, rows: np.ndarray, places: list[_Places], strips: list[_Strips]
    ) -> CutoutBatch:
        pixels = np.empty((len(rows), len(self.bands), *self.size), np.float32)
        outside = []
        for number, (band, place) in enumerate(zip(self.bands, places, strict=True)):
            cut = self._cut_band(band, place.take(rows), strips[number])
            outside.append(cut.is_outside)

            # Bytes are swapped on the way; what float32 cannot hold becomes infinite.
            with np.errstate(over="ignore"):
                pixels[:, number] = cut.values
                if band.factor != 1:
                    pixels[:, number] *= np.float32(band.factor)
            if cut.is_nothing is not None:
                pixels[:, number][cut.is_nothing] = np.nan
        return CutoutBatch(rows, pixels, _join_bands(outside, pixels.shape))

    def _cut_band(self, band: Band, place: _Places, strips: _Strips) -> _BandCut:
        numbers, is_outside = gather(strips.pixels, place.windows)
        values = band.plane.measured(numbers)

        # Where nothing is known, in the order of what says so.
        is_nothing = is_outside
        word = self.recipe.bad_pixels.mask
        if word is not None:
            is_nothing = _either(is_nothing, is_word(values, word))
        if band.mask is not None and strips.mask is not None:
            marks = band.mask.measured(gather(strips.mask, place.windows).numbers)
            is_nothing = _either(is_nothing, self._marked_bad(band.mask, values, marks))

        if place.wide is None:
            return _BandCut(values, is_nothing, is_outside)
        if is_nothing is not None:
            values = np.where(is_nothing, np.nan, values)
        resampled = resample_cutouts(values, is_outside, place.wide, band.keeps_brightness)
        return _BandCut(*resampled)

    def _marked_bad(self, mask: MosaicPlane, values: np.ndarray, marks: np.ndarray) -> np.ndarray:
        """Return which pixels (n, height, width) are bad as their marks say."""
        assert self.recipe.masks is not None
        try:
            masked = mask_pixels(values, marks, self.recipe.masks.bad)
        except ValueError as error:
            raise BadCutoutError(f"{mask.name}: {error}") from error
        return np.ma.getmaskarray(masked)


def _either(one: np.ndarray | None, other: np.ndarray) -> np.ndarray:
    return other if one is None else one | other


def _join_bands(outside: list[np.ndarray | None], shape: tuple[int, ...]) -> np.ndarray | None:
    """Return what lies outside in any band, (n, bands, height, width); None where nothing does."""
    if all(is_outside is None or not is_outside.any() for is_outside in outside):
        return None
    joined = np.zeros(shape, dtype=bool)
    for number, is_outside in enumerate(outside):
        if is_outside is not None:
            joined[:, number] = is_outside
    return joined
