"""Resampling: from a band with wide pixels to the grid of the finest one, around one centre."""

import re
from collections.abc import Collection
from functools import lru_cache

import numpy as np

LEAST_OVERLAP = 1e-9
"""Pixels that share less are neighbours; the rest is rounding."""

AREA_OF_SKY = re.compile(
    r"(?<![a-z])(sr|steradians?|(sq)?arcsec(ond)?s?|(sq)?arcmins?|(sq)?deg|mas)(?![a-z])"
)
"""What stands in units of light per area of the sky, in lower case."""


def is_surface_brightness(unit: str) -> bool:
    """Say whether a unit is one of light per area of the sky, such as MJy/sr or mag/arcsec2."""
    return AREA_OF_SKY.search(unit.lower()) is not None


def resample_plane(
    plane: np.ndarray, ratio: float, height: int, width: int, keep_brightness: bool = False
) -> np.ndarray:
    """Put a plane with pixels `ratio` times as wide on the finer grid (height, width).

    Both have the same centre. Flux is shared by the overlap of areas, so the sum over the common
    field is conserved; with `keep_brightness` a fine pixel is the mean of those that it overlaps.
    Outside of the common field it is zero.
    """
    rows = _pixel_overlap(height, plane.shape[0], ratio)
    columns = _pixel_overlap(width, plane.shape[1], ratio)
    if keep_brightness:
        rows = as_means(rows)
        columns = as_means(columns)
    resampled = rows @ plane.astype(np.float64) @ columns.T

    # Counts are no whole numbers any more.
    if plane.dtype.kind != "f":
        return resampled.astype(np.float32)
    return resampled.astype(plane.dtype)


def spread_mask(is_bad: np.ndarray, ratio: float, height: int, width: int) -> np.ndarray:
    """Return which pixels of the finer grid touch a bad pixel of the coarse plane."""
    rows = _pixel_overlap(height, is_bad.shape[0], ratio) > LEAST_OVERLAP
    columns = _pixel_overlap(width, is_bad.shape[1], ratio) > LEAST_OVERLAP
    return rows @ is_bad @ columns.T


@lru_cache(maxsize=64)
def common_pixels(
    fine: int, coarse: int, ratio: float, start: int, stop: int
) -> tuple[slice, slice]:
    """Return what a window of the fine grid and the coarse plane have in common, along an axis.

    The window is from `start` to `stop`. These are the pixels of the window, counted from its
    start, and those of the coarse plane.
    """
    overlap = _pixel_overlap(fine, coarse, ratio)[start:stop] > LEAST_OVERLAP
    in_window = np.flatnonzero(overlap.any(axis=1))
    in_plane = np.flatnonzero(overlap.any(axis=0))
    if not len(in_window):
        return slice(0, 0), slice(0, 0)
    return slice(in_window[0], in_window[-1] + 1), slice(in_plane[0], in_plane[-1] + 1)


@lru_cache(maxsize=64)
def _pixel_overlap(fine: int, coarse: int, ratio: float) -> np.ndarray:
    """Return which part of each coarse pixel lies in each fine one, along an axis: (fine, coarse).

    Both axes have the same middle.
    """
    begin = (fine - coarse * ratio) / 2
    return pixel_overlaps(np.array([begin]), fine, coarse, ratio)[0]


def pixel_overlaps(begins: np.ndarray, fine: int, coarse: int, ratio: float) -> np.ndarray:
    """Return which part of each coarse pixel lies in each fine one, along an axis.

    `begins` (N,) says where the first coarse pixel begins, counted from where the first fine one
    does. The result is (N, fine, coarse). *Unit: one fine pixel*
    """
    fine_edges = np.arange(fine + 1)
    coarse_edges = np.arange(coarse + 1) * ratio + begins[:, None]

    # A pixel reaches from each edge to the next.
    start = np.maximum(fine_edges[:-1, None], coarse_edges[:, None, :-1])
    end = np.minimum(fine_edges[1:, None], coarse_edges[:, None, 1:])
    overlap = np.clip(end - start, 0, None)
    return overlap / ratio


def as_means(overlap: np.ndarray) -> np.ndarray:
    """Return the overlaps of each fine pixel as weights whose sum is 1, or 0 where it has none."""
    total = overlap.sum(axis=-1, keepdims=True)
    return np.where(total > LEAST_OVERLAP, overlap, 0) / np.where(total > LEAST_OVERLAP, total, 1)


# ---- sizes ----


def centred_slices(new: int, old: int) -> tuple[slice, slice]:
    """Return where the common middle of two lengths lies in the new and in the old one."""
    common = min(new, old)
    new_start = (new - common) // 2
    old_start = (old - common) // 2
    in_new = slice(new_start, new_start + common)
    in_old = slice(old_start, old_start + common)
    return in_new, in_old


def share_a_centre(sizes: Collection[tuple[int, ...]], size: tuple[int, int] | None) -> bool:
    """Say whether images can be cut to a size around one centre, which is the same for all."""
    if size is None:
        return False
    one = next(iter(sizes))
    return all(
        length >= cut and (length - other) % 2 == 0
        for lengths in sizes
        for length, other, cut in zip(lengths, one, size, strict=True)
    )
