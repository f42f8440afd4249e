"""Many cutouts of one image in one call: windows of an array that lies in memory or in a file."""

import mmap
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

FAR_OUTSIDE = -(1 << 40)
"""Where a cutout begins that has no place in the image."""


class Windows(NamedTuple):
    """Where N cutouts lie in one image."""

    starts: np.ndarray
    """Row and column of the first pixel of each, (N, 2) int64; it may lie outside of the image."""
    size: tuple[int, int]
    """Height and width of all of them."""
    shape: tuple[int, int]
    """Height and width of the image."""

    def take(self, rows: np.ndarray) -> "Windows":
        """Return some of them, by their numbers."""
        return self._replace(starts=self.starts[rows])

    def share_of_pages(self, pixel_bytes: int) -> float:
        """Return about which part of the image's pages the cutouts need, each on its own."""
        height, width = self.size
        pages_of_a_row = 1 + width * pixel_bytes / mmap.PAGESIZE
        needed = len(self.starts) * height * pages_of_a_row

        image_height, image_width = self.shape
        pages = image_height * image_width * pixel_bytes / mmap.PAGESIZE
        return needed / pages

    def needed_rows(self) -> np.ndarray:
        """Return which rows of the image any of them needs, (height,) bool."""
        image_height = self.shape[0]
        first = self.starts[:, 0]
        last = first + self.size[0]
        begins = np.clip(first, 0, image_height)
        ends = np.clip(last, 0, image_height)

        # A row is needed where more have begun than ended.
        begun = np.bincount(begins, minlength=image_height + 1)
        ended = np.bincount(ends, minlength=image_height + 1)
        open_windows = np.cumsum(begun - ended)
        return np.asarray(open_windows[:-1] > 0)


class Strip(NamedTuple):
    """Some rows of an image that follow each other."""

    begin: int
    """Number of the first of them in the image."""
    numbers: np.ndarray
    """(rows, width), as they lie in the file."""


class Gathered(NamedTuple):
    """Cutouts of one image."""

    numbers: np.ndarray
    """(N, height, width), as they lie in the file."""
    is_outside: np.ndarray | None
    """Which of them lie outside of the image and say nothing; None where all lie inside."""


def window_starts(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return row and column of the first pixel of cutouts around points (N, 2), x and y: (N, 2).

    As in astropy's Cutout2D, an odd size has the pixel that holds the point in its middle, and an
    even one the corner of a pixel that is nearest. NaN has no place in the image.
    """
    points = pixels[:, ::-1]
    half = np.array(size) / 2
    begins = np.ceil(points - half)
    return begins_somewhere(begins).astype(np.int64)


def begins_somewhere(begins: np.ndarray) -> np.ndarray:
    """Return begins (N, 2) of which those that are NaN or immense are far outside."""
    is_near = np.abs(begins) < -FAR_OUTSIDE
    is_somewhere = is_near.all(axis=1, keepdims=True)
    return np.where(is_somewhere, begins, FAR_OUTSIDE)


def gather(strip: Strip, windows: Windows) -> Gathered:
    """Return cutouts of an image of which a strip holds all rows that they need."""
    is_inner = _lie_inside(windows)
    if is_inner.all():
        return Gathered(_gather_inner(strip, windows), None)

    inner = np.flatnonzero(is_inner)
    edge = np.flatnonzero(~is_inner)
    shape = (len(is_inner), *windows.size)
    numbers = np.empty(shape, strip.numbers.dtype)
    is_outside = np.zeros(shape, dtype=bool)
    if len(inner):
        numbers[inner] = _gather_inner(strip, windows.take(inner))
    numbers[edge], is_outside[edge] = _gather_at_edge(strip, windows.take(edge))
    return Gathered(numbers, is_outside)


def _lie_inside(windows: Windows) -> np.ndarray:
    """Say which cutouts lie in the image as a whole, (N,)."""
    last_starts = np.array(windows.shape) - windows.size
    is_after_first = windows.starts >= 0
    is_before_last = windows.starts <= last_starts
    is_within = is_after_first & is_before_last
    return np.asarray(is_within.all(axis=1))


def _gather_inner(strip: Strip, windows: Windows) -> np.ndarray:
    views = sliding_window_view(strip.numbers, windows.size)
    row, column = windows.starts.T
    return np.asarray(views[row - strip.begin, column])


def _gather_at_edge(strip: Strip, windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Return cutouts that reach beyond the image, and which of their pixels do."""
    height, width = windows.size
    image_height, image_width = windows.shape
    row, column = windows.starts.T
    rows = row[:, None] + np.arange(height)
    columns = column[:, None] + np.arange(width)
    is_row = (rows >= 0) & (rows < image_height)
    is_column = (columns >= 0) & (columns < image_width)

    # Outside, the nearest pixel stands in for the one that is missing.
    last_in_strip = len(strip.numbers) - 1
    in_strip = np.clip(rows - strip.begin, 0, last_in_strip)
    in_width = np.clip(columns, 0, image_width - 1)
    numbers = strip.numbers[in_strip[:, :, None], in_width[:, None, :]]

    is_inside = is_row[:, :, None] & is_column[:, None, :]
    return numbers, ~is_inside
