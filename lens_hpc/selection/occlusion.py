"""Does a score come of the arc? The arc is hidden, and pixels like it elsewhere instead.

The mask of an arc is hidden by sky. The control hides the same mask, turned or flipped about the
middle of the cutout to where the arc is not, so that it is as large and as near to the galaxy.
"""

from itertools import product
from typing import NamedTuple

import numpy as np

NOISE_OF_DEVIATION = 1.4826
"""The standard deviation of normal noise, in units of its median absolute deviation."""
MOST_OVERLAP = 0.5
"""A control that hides more than this share of the arc, as that of a whole ring, is none."""


class Control(NamedTuple):
    """Where a control hides pixels."""

    mask: np.ndarray
    """(height, width) bool."""
    overlap: float
    """Share of the arc that it would hide."""

    @property
    def is_one(self) -> bool:
        """Whether it leaves most of the arc to be seen."""
        return self.overlap <= MOST_OVERLAP


def find_control(mask: np.ndarray) -> Control:
    """Return the mask (height, width) turned or flipped to where it hides least of the arc.

    What both have in common is left out of it. Cutouts that are not square are not turned by 90
    degrees.
    """
    turns = range(4) if mask.shape[0] == mask.shape[1] else (0, 2)
    size = max(int(mask.sum()), 1)
    best = Control(mask, 1.0)
    for turn, is_flipped in product(turns, (False, True)):
        moved = np.rot90(mask, turn)
        moved = moved[:, ::-1] if is_flipped else moved
        overlap = float((moved & mask).sum() / size)
        if overlap < best.overlap:
            best = Control(moved & ~mask, overlap)
    return best


def hide(rng: np.random.Generator, cutout: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return a cutout (bands, height, width) with sky where the mask (height, width) is true.

    The sky of a band is normal noise, by the median and the median absolute deviation of the
    cutout's pixels.
    """
    pixels = cutout.astype(np.float64)
    sky = np.median(pixels, axis=(1, 2))
    deviation = np.median(abs(pixels - sky[:, np.newaxis, np.newaxis]), axis=(1, 2))
    sigma = NOISE_OF_DEVIATION * deviation

    drawn = sky + sigma * rng.normal(size=(int(mask.sum()), len(cutout)))
    if cutout.dtype.kind == "u":
        limits = np.iinfo(cutout.dtype)
        drawn = np.clip(np.rint(drawn), limits.min, limits.max)
    hidden = cutout.copy()
    hidden[:, mask] = drawn.T
    return hidden


def contrast(attention: np.ndarray, mask: np.ndarray) -> float:
    """Return attention (height, width) in a mask over that in the whole cutout: 1 is no more.

    It is NaN for an empty mask, and for a model that pays no attention at all.
    """
    mean = float(attention.mean())
    return float(attention[mask].mean() / mean) if mask.any() and mean > 0 else float("nan")
