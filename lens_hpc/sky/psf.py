"""Point spread functions as stamps: the image of a star of flux 1, pixel by pixel."""

import math
from collections.abc import Sequence

import numpy as np

from lens_hpc.errors import UserError
from lens_hpc.sky.camera import MOFFAT_BETA

# A stamp holds all but this share of a Moffat profile's light.
SHARE_OUTSIDE = 1e-3
# Points along the side of a pixel in which a profile is averaged.
POINTS_PER_PIXEL = 11
# By how much the sum of a stamp may differ from 1, and its centroid from the middle, in pixels.
SUM_TOLERANCE = 0.01
CENTROID_TOLERANCE = 0.1


def moffat_stamp(fwhm: float, pixel_scale: float) -> np.ndarray:
    """Return the image of a star with a Moffat profile, (k, k) with odd k, of sum 1.

    `fwhm` is that of the profile before pixels average it, arcsec; `pixel_scale` in arcsec.
    """
    # Half of the peak is left at half of the FWHM.
    alpha = fwhm / (2 * math.sqrt(2 ** (1 / MOFFAT_BETA) - 1)) / pixel_scale

    # Outside of a radius r lies (1 + r^2 / alpha^2)^(1 - beta) of the light.
    reach = alpha * math.sqrt(SHARE_OUTSIDE ** (1 / (1 - MOFFAT_BETA)) - 1)
    half = max(1, math.ceil(reach))

    pixels = np.arange(-half, half + 1)
    within = (np.arange(POINTS_PER_PIXEL) + 0.5) / POINTS_PER_PIXEL - 0.5
    axis = (pixels[:, None] + within).ravel()
    squared_radius = axis[:, None] ** 2 + axis**2
    profile = (1 + squared_radius / alpha**2) ** -MOFFAT_BETA

    size = len(pixels)
    stamp = profile.reshape(size, POINTS_PER_PIXEL, size, POINTS_PER_PIXEL).mean(axis=(1, 3))
    return stamp / stamp.sum()


def check_stamp(stamp: np.ndarray, where: str) -> None:
    """Raise UserError if an image is no PSF; `where` says which file or setting it comes from."""
    if stamp.ndim != 2 or stamp.shape[0] != stamp.shape[1]:
        raise UserError(f"{where}: a PSF must be a square image, not of shape {stamp.shape}")
    size = len(stamp)
    if size % 2 == 0:
        raise UserError(
            f"{where}: a PSF must be of odd size, with the star in the middle pixel, "
            f"not {size} x {size}; cut or resample it"
        )
    if not np.isfinite(stamp).all():
        raise UserError(f"{where}: the PSF has pixels that are not finite; mend or replace them")

    total = float(stamp.sum())
    if abs(total - 1) > SUM_TOLERANCE:
        raise UserError(f"{where}: the PSF sums to {total:.4g}, not 1; divide it by its sum")

    axis = np.arange(size) - size // 2
    x = float((stamp.sum(axis=0) * axis).sum()) / total
    y = float((stamp.sum(axis=1) * axis).sum()) / total
    if math.hypot(x, y) > CENTROID_TOLERANCE:
        raise UserError(
            f"{where}: the PSF's centroid lies off the middle pixel by x = {x:.2f} and "
            f"y = {y:.2f} px; centre it, or arcs would be shifted"
        )


def pad_stamps(stamps: Sequence[np.ndarray]) -> np.ndarray:
    """Return stamps of odd sizes as one array, (bands, k, k), smaller ones with zeros around."""
    size = max(len(stamp) for stamp in stamps)
    return np.stack([np.pad(stamp, (size - len(stamp)) // 2) for stamp in stamps])
