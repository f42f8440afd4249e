"""Cutouts from a band whose pixels are wider than those of the finest band, put on its grid.

Unlike the bands of a stamp (`resampling`), those of a mosaic have no common centre: each cutout
begins at a part of a wide pixel of its own.
"""

import math
from typing import NamedTuple

import numpy as np

from lens_hpc.packing.gathering import begins_somewhere
from lens_hpc.packing.resampling import LEAST_OVERLAP, as_means, pixel_overlaps

DIGITS = 6
"""Of a place among wide pixels; what lies beyond them is the rounding of world coordinates."""


class WideWindows(NamedTuple):
    """Where N cutouts lie among wide pixels."""

    starts: np.ndarray
    """Row and column of the first wide pixel that each touches, (N, 2) int64."""
    begins: np.ndarray
    """Where that pixel begins in the cutout, down and across, (N, 2). *Unit: fine pixels*"""
    size: tuple[int, int]
    """Height and width of the cutouts, in fine pixels."""
    wide_size: tuple[int, int]
    """Height and width of what they need, in wide pixels."""
    ratio: float
    """How many times wider those are."""

    def take(self, rows: np.ndarray) -> "WideWindows":
        """Return some of them, by their numbers."""
        return self._replace(starts=self.starts[rows], begins=self.begins[rows])


def find_wide_windows(corners: np.ndarray, size: tuple[int, int], ratio: float) -> WideWindows:
    """Return where cutouts lie whose first corners are at points (N, 2), x and y, of a wide grid.

    `size` is height and width in fine pixels. NaN has no place in the image.
    """
    edges = np.round(corners[:, ::-1] + 0.5, DIGITS)
    edges = begins_somewhere(edges)
    first = np.floor(edges)

    # One more than fits, as the first and the last may be parts.
    height, width = size
    wide_height = math.ceil(height / ratio) + 1
    wide_width = math.ceil(width / ratio) + 1
    return WideWindows(
        starts=first.astype(np.int64),
        begins=(first - edges) * ratio,
        size=size,
        wide_size=(wide_height, wide_width),
        ratio=ratio,
    )


class OnFineGrid(NamedTuple):
    """Cutouts (N, height, width) on the grid of the finest band."""

    values: np.ndarray
    is_nothing: np.ndarray
    """Which pixels touch one that holds no measurement."""
    is_outside: np.ndarray
    """Which pixels touch what lies outside of the mosaic."""


def resample_cutouts(
    values: np.ndarray, is_outside: np.ndarray | None, windows: WideWindows, keep_brightness: bool
) -> OnFineGrid:
    """Put wide pixels (N, wide height, wide width) on the fine grid, by the overlap of areas.

    Flux is shared, so that its sum is conserved; with `keep_brightness` a fine pixel is the mean
    of those that it overlaps. `values` are not finite where there is no measurement: these pixels
    give nothing to the others.
    """
    down, across = windows.begins.T
    height, width = windows.size
    wide_height, wide_width = windows.wide_size
    rows = pixel_overlaps(down, height, wide_height, windows.ratio)
    columns = pixel_overlaps(across, width, wide_width, windows.ratio)

    # A fine pixel is as bad as any that it touches.
    is_nothing = ~np.isfinite(values)
    if is_outside is None:
        is_outside = np.zeros(values.shape, dtype=bool)
    touches_nothing = _spread(is_nothing | is_outside, rows, columns)
    touches_outside = _spread(is_outside, rows, columns)

    real = np.where(is_nothing, 0, values)
    if keep_brightness:
        rows = as_means(rows)
        columns = as_means(columns)
    fine = rows @ real.astype(np.float64) @ columns.swapaxes(1, 2)
    return OnFineGrid(fine, touches_nothing, touches_outside)


def _spread(marks: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return which fine pixels overlap a wide one that is marked."""
    touched_rows = rows > LEAST_OVERLAP
    touched_columns = columns > LEAST_OVERLAP
    counts = touched_rows.astype(np.float32) @ marks.astype(np.float32)
    counts = counts @ touched_columns.swapaxes(1, 2).astype(np.float32)
    return np.asarray(counts > 0)
