"""The shape of a galaxy's light, by adaptive moments.

The weight is a Gaussian ellipse that is fitted to the galaxy itself (Bernstein & Jarvis 2002,
AJ 123, 583, section 3), so that what lies farther out counts little.
"""

import math
from typing import NamedTuple

import numpy as np

from lens_hpc.sky.noise import sky_noise

MOST_STEPS = 100
# Moments count as found when a step changes them by less than this share.
CONVERGED = 1e-4
# The width (sigma) with which the search begins, pixels, and how far from the middle a centre may
# lie, as a share of the cutout's width.
FIRST_SIGMA = 3.0
FARTHEST = 0.15
# A pixel belongs to a neighbour where it outshines the one opposite by this factor, and by so many
# sigmas of the sky.
OUTSHINES = 1.5
OUTSHINES_SIGMAS = 5
# The smallest variance that moments may leave of a galaxy when those of the PSF are taken off, as a
# share of what they were.
LEAST_VARIANCE = 0.04


class Ellipse(NamedTuple):
    """Centre and shape of a galaxy's light, in pixels."""

    x: float
    """From the middle of the cutout, along its rows."""
    y: float
    """From the middle of the cutout, along its columns."""
    q: float
    """Axis ratio."""
    phi: float
    """Position angle, radians from x towards y."""


class _Moments(NamedTuple):
    x: float
    y: float
    covariance: np.ndarray
    """(2, 2), pixels^2."""


def measure_ellipse(cutout: np.ndarray, psf: np.ndarray | None = None) -> Ellipse:
    """Return centre and shape of the galaxy in the middle of a cutout, (bands, height, width).

    With the PSF of each band, (bands, k, k), its moments are taken off those of the galaxy. What is
    left is exact for Gaussians; a galaxy with a cusp that is as small as the PSF stays rounder than
    it is, by about 0.1. Where there is no galaxy, it is a circle in the middle.
    """
    weights = _weights(cutout)
    picture = np.tensordot(weights, np.nan_to_num(cutout.astype(float)), 1)
    light = _without_sky(picture)

    # The centre is found among neighbours, within a circle, the shape without them.
    moments = _adaptive_moments(light, is_circle=True)
    x, y = (moments.x, moments.y) if moments else (0.0, 0.0)
    moments = _adaptive_moments(_without_neighbours(light, x, y))
    if moments is None:
        return Ellipse(0.0, 0.0, 1.0, 0.0)

    covariance = moments.covariance
    if psf is not None:
        star = _adaptive_moments(np.tensordot(weights, psf, 1))
        if star is not None:
            covariance = _take_off(covariance, star.covariance)
    return Ellipse(moments.x, moments.y, *axes_of(covariance))


def _weights(cutout: np.ndarray) -> np.ndarray:
    """Return by what each band is multiplied before all are added, (bands,): 1 / sky variance."""
    sigmas = sky_noise(cutout)
    if not sigmas.all():
        return np.full(len(cutout), 1 / len(cutout))
    return sigmas**-2 / (sigmas**-2).sum()


def _without_sky(picture: np.ndarray) -> np.ndarray:
    """Return a picture less the median of its edge."""
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    return picture - np.median(edge)


def _without_neighbours(light: np.ndarray, x: float, y: float) -> np.ndarray:
    """Return a picture where neighbours are replaced by what lies opposite a centre."""
    # Turned about the middle of the cutout, then moved, so that the centre lies on itself.
    opposite = np.roll(light[::-1, ::-1], (round(2 * y), round(2 * x)), axis=(0, 1))

    sigma = float(sky_noise(light[None])[0])
    allowed = OUTSHINES * np.maximum(opposite, 0) + OUTSHINES_SIGMAS * sigma
    return np.where(light > allowed, opposite, light)


def _adaptive_moments(light: np.ndarray, is_circle: bool = False) -> _Moments | None:
    """Return the moments of the ellipse that is its own weight, None where there is none.

    `is_circle`: the weight stays the circle with which the search begins, and only moves.
    """
    height, width = light.shape
    y_axis = np.arange(height) - (height - 1) / 2
    x_axis = np.arange(width) - (width - 1) / 2
    grid = np.stack(np.meshgrid(x_axis, y_axis))

    centre = np.zeros(2)
    covariance = np.eye(2) * FIRST_SIGMA**2
    for _ in range(MOST_STEPS):
        offsets = grid - centre[:, None, None]
        depth = np.einsum("iyx,ij,jyx->yx", offsets, np.linalg.inv(covariance), offsets)
        weighted = np.exp(-depth / 2) * light
        total = float(weighted.sum())
        if total <= 0:
            return None

        # A Gaussian weighted by itself has half of its covariance, and half of an offset.
        step = 2 * (offsets * weighted).sum(axis=(1, 2)) / total
        found = 2 * np.einsum("iyx,jyx,yx->ij", offsets, offsets, weighted) / total
        centre = centre + step
        if np.abs(centre).max() > FARTHEST * max(light.shape) or np.linalg.det(found) <= 0:
            return None

        change = np.abs(step).max() / FIRST_SIGMA
        if not is_circle:
            change = max(change, np.abs(found - covariance).max() / np.trace(covariance))
            covariance = found
        if change < CONVERGED:
            return _Moments(float(centre[0]), float(centre[1]), covariance)
    return None


def _take_off(covariance: np.ndarray, psf: np.ndarray) -> np.ndarray:
    """Return a galaxy's covariance without that of the PSF, never of less than no width."""
    variances, axes = np.linalg.eigh(covariance - psf)
    least = LEAST_VARIANCE * float(np.trace(covariance)) / 2
    return axes @ np.diag(np.maximum(variances, least)) @ axes.T


def axes_of(covariance: np.ndarray) -> tuple[float, float]:
    """Return the axis ratio of a covariance (2, 2), and the position angle of its major axis."""
    variances, axes = np.linalg.eigh(covariance)
    major = axes[:, 1]
    q = math.sqrt(variances[0] / variances[1])
    return q, math.atan2(major[1], major[0]) % math.pi
