"""What can be measured of an arc beside its host: signal to noise, contrast, magnitudes."""

import math

import numpy as np

from lens_hpc.sky.noise import sky_noise

ROUNDING_SIGMA = 1 / math.sqrt(12)
"""Noise of a rounded number, in units of its last digit."""
HOST_RADII = 2.0
"""Einstein radii around the host within which arc and host are compared."""


def noise_of(cutout: np.ndarray) -> np.ndarray:
    """Return the sky's sigma in each band of a cutout, (bands,); whole numbers are rounded, too."""
    sigma = sky_noise(cutout)
    if np.issubdtype(cutout.dtype, np.integer):
        return np.hypot(sigma, ROUNDING_SIGMA)
    return sigma


def signal_to_noise(
    arc: np.ndarray, cutout: np.ndarray, sky: np.ndarray, gains: np.ndarray
) -> np.ndarray:
    """Return the signal-to-noise ratio of an arc in each band, (bands,).

    All pixels are added in quadrature, each over the noise of sky, host and arc. It is NaN in a
    band without any noise.
    """
    flux = np.maximum(cutout.astype(np.float64) + arc, 0)
    variance = sky[:, None, None] ** 2 + flux / gains[:, None, None]
    has_noise = variance > 0
    ratios = np.divide(arc**2, variance, out=np.zeros_like(arc), where=has_noise)
    total = np.sqrt(ratios.sum(axis=(1, 2)))
    return np.where(has_noise.any(axis=(1, 2)), total, np.nan)


def flux_ratio(
    arc: np.ndarray,
    cutout: np.ndarray,
    middle: tuple[float, float],
    einstein_radius: float,
    pixel_scale: float,
) -> np.ndarray:
    """Return the flux of an arc over that of its host in each band, (bands,).

    Both are summed within two Einstein radii of the host's `middle` (x, y), arcsec from that of the
    cutout. It is NaN where the host has no light there.
    """
    height, width = cutout.shape[1:]
    y = (np.arange(height) - (height - 1) / 2) * pixel_scale - middle[1]
    x = (np.arange(width) - (width - 1) / 2) * pixel_scale - middle[0]
    is_near = np.hypot(x[None, :], y[:, None]) <= HOST_RADII * einstein_radius

    of_host = cutout[:, is_near].astype(np.float64).sum(axis=1)
    of_arc = arc[:, is_near].sum(axis=1)
    return np.divide(of_arc, of_host, out=np.full(len(arc), np.nan), where=of_host > 0)


def magnitudes(fluxes: np.ndarray, zero_points: np.ndarray) -> np.ndarray:
    """Return AB magnitudes of fluxes (bands,), NaN where there is no light."""
    is_light = fluxes > 0
    logarithms = np.log10(fluxes, out=np.full(len(fluxes), np.nan), where=is_light)
    return zero_points - 2.5 * logarithms
