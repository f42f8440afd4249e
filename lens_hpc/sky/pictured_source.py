"""A source that is a picture of a real galaxy, not a formula.

Between the middles of pixels its surface brightness is bilinear, and beyond the last ones it falls
to zero within a pixel. So its flux is the sum of its pixels.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import find_objects, gaussian_filter, label
from torch.nn.functional import grid_sample

from lens_hpc.sky.ellipses import axes_of
from lens_hpc.sky.noise import sky_noise

# A pixel is light where the picture, smoothed by a Gaussian of that sigma (pixels), exceeds the
# noise of a pixel before. White noise does so at 3.5 of its own sigmas, which happens; the galaxy's
# peak must be at twice as many.
SMOOTHING_PIXELS = 1.0
PEAK_SIGMAS = 2.0
# The peak lies within this share of the picture's width from its middle.
FARTHEST = 0.15
# Variance along an axis that bilinear interpolation adds, pixels^2: that of a triangle.
BILINEAR_VARIANCE = 1 / 6


@dataclass(frozen=True, eq=False)
class Picture:
    """The light of a galaxy alone, of flux 1. Its centre is the centroid of its light."""

    light: torch.Tensor
    """Surface brightness at the middle of each pixel, (height, width) float64, 1/arcsec^2."""
    pixel_scale: float
    """Arcsec."""
    x: float
    """Of the centre, from the middle of the picture, along its rows, arcsec."""
    y: float
    """Of the centre, from the middle of the picture, along its columns, arcsec."""
    q: float
    """Axis ratio, of second moments."""
    radius: float
    """Half of the light lies within an ellipse of that semi-major axis, arcsec."""
    reach: float
    """From the centre: all light lies within, arcsec."""

    def brightness(self, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return the surface brightness at points (u, v) from the centre, 1/arcsec^2."""
        height, width = self.light.shape
        # From -1 at one edge of the picture to 1 at the other.
        column = 2 * (u + self.x) / (width * self.pixel_scale)
        row = 2 * (v + self.y) / (height * self.pixel_scale)

        points = torch.stack([column, row], dim=-1).reshape(1, 1, -1, 2)
        sampled = grid_sample(self.light[None, None], points.double(), align_corners=False)
        return sampled.reshape(u.shape)


@dataclass(frozen=True)
class PicturedSource:
    """A picture on the source plane, as `sky.rays.Source`."""

    picture: Picture
    x: float
    """Of the centre, arcsec."""
    y: float
    angle: float
    """By which the picture is turned, radians from x towards y."""

    @property
    def q(self) -> float:
        """Axis ratio."""
        return self.picture.q

    @property
    def radius(self) -> float:
        """Half-light radius, arcsec."""
        return self.picture.radius

    @property
    def reach(self) -> float:
        """From the centre: all light lies within, arcsec."""
        return self.picture.reach

    def brightness(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the surface brightness at (x, y) for a total flux of 1, 1/arcsec^2."""
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        right, up = x - self.x, y - self.y
        return self.picture.brightness(right * cosine + up * sine, up * cosine - right * sine)


def cut_out_galaxy(pixels: np.ndarray, pixel_scale: float) -> Picture | None:
    """Return the galaxy in the middle of a picture (height, width) in linear units, alone.

    It is what stands out of the noise and hangs together with the brightest pixel near the middle.
    `pixel_scale` is in arcsec. None where nothing stands out there.
    """
    light = _without_sky(pixels)
    is_galaxy = _find_galaxy(light)
    if not is_galaxy.any():
        return None

    [box] = find_objects(is_galaxy.astype(int))
    alone = np.where(is_galaxy, np.maximum(light, 0), 0)[box]
    shares = alone / alone.sum()
    shape = _measure(shares)
    return Picture(
        light=torch.from_numpy(shares / pixel_scale**2),
        pixel_scale=pixel_scale,
        x=shape.x * pixel_scale,
        y=shape.y * pixel_scale,
        q=shape.q,
        radius=shape.radius * pixel_scale,
        reach=shape.reach * pixel_scale,
    )


def _without_sky(pixels: np.ndarray) -> np.ndarray:
    """Return a picture less the median of its edge; pixels that are not finite are sky."""
    finite = np.where(np.isfinite(pixels), pixels, np.nan).astype(np.float64)
    edge = np.concatenate([finite[0], finite[-1], finite[:, 0], finite[:, -1]])
    known = edge[np.isfinite(edge)]
    sky = float(np.median(known)) if len(known) else 0.0
    return np.nan_to_num(finite - sky)


def _find_galaxy(light: np.ndarray) -> np.ndarray:
    """Return which pixels belong to the galaxy in the middle, (height, width) bool."""
    smooth = gaussian_filter(light, SMOOTHING_PIXELS, mode="nearest")
    sigma = float(sky_noise(light[None])[0])

    height, width = light.shape
    row, column = (int(FARTHEST * side) for side in (height, width))
    rows = slice((height - 1) // 2 - row, height // 2 + row + 1)
    columns = slice((width - 1) // 2 - column, width // 2 + column + 1)
    middle = smooth[rows, columns]
    if middle.max() <= PEAK_SIGMAS * sigma:
        return np.zeros(light.shape, dtype=bool)

    pieces, _ = label(smooth > sigma)
    peak = np.unravel_index(int(middle.argmax()), middle.shape)
    return pieces == pieces[rows, columns][peak]


class _Shape(NamedTuple):
    """As in `Picture`, in pixels."""

    x: float
    y: float
    q: float
    radius: float
    reach: float


def _measure(shares: np.ndarray) -> _Shape:
    """Measure a picture (height, width) that sums to 1."""
    height, width = shares.shape
    rows, columns = np.nonzero(shares)
    weights = shares[rows, columns]
    points = np.stack([columns - (width - 1) / 2, rows - (height - 1) / 2])
    centre = points @ weights
    offsets = points - centre[:, None]

    covariance = (offsets * weights) @ offsets.T + BILINEAR_VARIANCE * np.eye(2)
    q, phi = axes_of(covariance)
    u = offsets[0] * math.cos(phi) + offsets[1] * math.sin(phi)
    v = offsets[1] * math.cos(phi) - offsets[0] * math.sin(phi)
    radii = np.hypot(u, v / q)
    inside_first = np.argsort(radii)
    half = np.searchsorted(weights[inside_first].cumsum(), 0.5)
    # Of a few bright pixels it is that of a disc as large as one.
    radius = max(float(radii[inside_first][half]), 1 / math.sqrt(math.pi))

    reach = float(np.hypot(*offsets).max()) + math.sqrt(2)
    return _Shape(float(centre[0]), float(centre[1]), q, radius, reach)
