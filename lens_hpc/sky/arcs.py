"""Arcs as a survey's pixels show them, without noise."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2

from lens_hpc.sky.deflection import Lens
from lens_hpc.sky.rays import SPLIT, Grid, Source, shoot_rays

MASK_SIGMAS = 1.0
SAME_COLOR = 9
"""Sources' shares in two bands that agree in so many digits are taken for the same."""


class Arcs(NamedTuple):
    """Painted arcs."""

    flux: np.ndarray
    """In each pixel, (bands, height, width) float64, without noise."""
    magnification: float
    """Flux of all images, within the cutout and without, over that of the sources. NaN for sources
    without any."""


def paint_arcs(
    lens: Lens,
    sources: Sequence[Source],
    fluxes: np.ndarray,
    shape: tuple[int, int],
    pixel_scale: float,
    psf: np.ndarray,
) -> Arcs:
    """Paint the images of sources behind a lens.

    `fluxes` are those of each source in each band before lensing, (sources, bands); `shape` is the
    cutout's height and width; `pixel_scale` is in arcsec. `psf` is the image of a star of flux 1 in
    each band, (bands, k, k), k odd. Positions are in arcsec from the middle of the cutout.
    """
    if not fluxes.any():
        return Arcs(np.zeros((fluxes.shape[1], *shape)), math.nan)
    totals = fluxes.sum(axis=0)
    shares = fluxes / np.where(totals > 0, totals, 1)

    # Around the cutout: as far as the PSF reaches, and as images may lie.
    reach = _reach(lens, sources) / pixel_scale
    margin = max(psf.shape[-1] // 2, math.ceil(reach - min(shape) / 2))
    size = SPLIT * next_fast_len(math.ceil((max(shape) + 2 * margin) / SPLIT), real=True)
    top, left = ((size - side) // 2 for side in shape)
    corner_x = -(left + shape[1] / 2) * pixel_scale
    corner_y = -(top + shape[0] / 2) * pixel_scale
    grid = Grid(size, pixel_scale, corner_x, corner_y)
    rays = shoot_rays(lens, sources, shares.mean(axis=1), grid)
    magnifications = rays.light.sum(axis=1)

    # Bands in which the sources have the same shares show the same picture, but for its brightness.
    colors, color_of_band = np.unique(shares.round(SAME_COLOR), axis=1, return_inverse=True)
    pictures = [np.bincount(rays.place, color @ rays.light, grid.points**2) for color in colors.T]
    sharp = np.stack(pictures).reshape(-1, grid.points, grid.points)
    blurred = _blur(sharp, color_of_band, psf) * totals[:, None, None]

    cutout = blurred[:, top : top + shape[0], left : left + shape[1]]
    return Arcs(cutout, float(fluxes.sum(axis=1) @ magnifications / fluxes.sum()))


def arc_mask(flux: np.ndarray, sky_sigma: np.ndarray) -> np.ndarray:
    """Return where arcs (bands, height, width) stand out of the sky in any band, (height, width).

    `sky_sigma` is the noise of a pixel in each band, (bands,).
    """
    stands_out = flux > MASK_SIGMAS * sky_sigma[:, None, None]
    return np.any(stands_out, axis=0)


def _reach(lens: Lens, sources: Sequence[Source]) -> float:
    """Return how far from the middle images may lie, arcsec."""
    shear = math.hypot(lens.gamma_1, lens.gamma_2)
    # The deflection of an ellipsoid is at most about theta_e / sqrt(q).
    deflection = lens.theta_e / math.sqrt(lens.q)
    extents = [
        math.hypot(source.x - lens.x, source.y - lens.y) + source.reach for source in sources
    ]
    return math.hypot(lens.x, lens.y) + (deflection + max(extents)) / (1 - shear)


def _blur(sharp: np.ndarray, picture_of_band: np.ndarray, psf: np.ndarray) -> np.ndarray:
    """Convolve with the PSF of each band and return the pixels, (bands, size, size).

    `sharp` has the light in thirds of pixels, (pictures, SPLIT * size, SPLIT * size).

    A star's image averages over pixels already. So the light at each point is spread as that of a
    star there, and the pixels are what comes to lie on their middles. The PSF between pixels is
    that whose Fourier transform ends at the pixels' highest frequency, so that of the finer grid
    only the frequencies up to that count.
    """
    size = sharp.shape[-1] // SPLIT
    low = _low_frequencies(rfft2(sharp), size)

    # The middle of the first pixel lies SPLIT // 2 points from the edge.
    shift = SPLIT // 2 / (SPLIT * size)
    row_phase = np.exp(2j * np.pi * shift * np.fft.fftfreq(size, 1 / size))
    column_phase = np.exp(2j * np.pi * shift * np.fft.rfftfreq(size, 1 / size))
    low = low * row_phase[:, None] * column_phase

    half = psf.shape[-1] // 2
    star = np.zeros((len(psf), size, size))
    star[:, : psf.shape[-1], : psf.shape[-1]] = psf
    star = np.roll(star, (-half, -half), axis=(1, 2))
    return irfft2(low[picture_of_band] * rfft2(star), s=(size, size))


def _low_frequencies(transform: np.ndarray, size: int) -> np.ndarray:
    """Return the part of a real Fourier transform that a grid of that size can hold."""
    positive = (size + 1) // 2
    negative = size - positive
    columns = transform[:, :, : size // 2 + 1]
    return np.concatenate([columns[:, :positive], columns[:, -negative:]], axis=1)
