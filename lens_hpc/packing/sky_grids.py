"""The grid of a mosaic on the sky: where a position lies among its pixels.

Pixels are counted from 0, and the middle of the first one is at 0, as astropy does. The world
coordinates are astropy's, distortions (SIP, TPV) and all.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from astropy.coordinates import ICRS, ConvertError, SkyCoord
from astropy.wcs import WCS, NoConvergence
from astropy.wcs.utils import wcs_to_celestial_frame

from lens_hpc.dataset.positions import unit_vectors
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.packing.mosaic_files import MosaicPlane, reported_damage

MOST_SCALE_ERROR = 0.02
"""By how much the pixels of a mosaic may be wider or narrower than the recipe says."""
MOST_DISAGREEMENT = 1.0
"""Pixels of the finest band by which bands may disagree about where a position lies."""
WCS_TOLERANCE_PIXELS = 1e-6
"""Of the inverse of SIP distortions, which astropy finds step by step."""
MOST_STEPS = 50
ARCSEC_PER_RADIAN = 206264.80624709636
SAMPLES_PER_AXIS = 5
FARTHER = 1.1
"""Distortions may make the far side of a mosaic a little farther than its corners are."""


class Outline(NamedTuple):
    """A circle on the unit sphere around all that an image shows."""

    centre: np.ndarray
    """(3,)"""
    radius: float
    """Length of the straight line from the centre to the circle."""


class SkyGrid:
    """Where positions lie in one image; BadCutoutError for one that does not show the sky."""

    def __init__(self, plane: MosaicPlane) -> None:
        self.name = plane.name
        self.shape = plane.shape
        with reported_damage(plane.mosaic.path):
            self.wcs = WCS(plane.header, fobj=plane.mosaic.hdus, naxis=2)
            is_of_a_sky = self.wcs.has_celestial
        if not is_of_a_sky:
            raise BadCutoutError(
                f"{self.name}: has no world coordinates (WCS) of the sky: CTYPE is "
                f"{list(self.wcs.wcs.ctype)}; name the HDU that has them (hdu), or add them"
            )
        self.frame = self._sky_frame()

        # Coordinates that cannot be computed are found here, and not when cutouts are made.
        with reported_damage(plane.mosaic.path):
            self.outline = self._find_outline()

    def _sky_frame(self) -> object:
        """Return the system of the coordinates; BadCutoutError for that of another sky."""
        try:
            frame = wcs_to_celestial_frame(self.wcs)
            SkyCoord(0, 0, unit="deg", frame="icrs").transform_to(frame)
        except (ValueError, ConvertError) as error:
            raise BadCutoutError(
                f"{self.name}: its world coordinates {list(self.wcs.wcs.ctype)} are not those of "
                "stars and galaxies; mosaics need right ascension and declination"
            ) from error
        return frame

    def pixels_of(self, positions: np.ndarray) -> np.ndarray:
        """Return where positions (N, 2), right ascension and declination, lie: (N, 2), x and y.

        *Unit: degrees, ICRS; pixels*. They are NaN where the position is NaN, or on a side of the
        sky that the image does not show.
        """
        pixels = np.full(positions.shape, np.nan)
        is_near = self._is_near(positions)
        if not is_near.any():
            return pixels

        world = positions[is_near]
        if not isinstance(self.frame, ICRS):
            of_icrs = SkyCoord(*world.T, unit="deg", frame="icrs")
            there = of_icrs.transform_to(self.frame).spherical
            world = np.stack([there.lon.deg, there.lat.deg], axis=1)
        pixels[is_near] = self._pixels_of_world(world)
        return pixels

    def _find_outline(self) -> Outline:
        """Return a circle around all that the image shows."""
        vectors = unit_vectors(self.positions_of(_sample_points(self.shape)))
        centre = vectors[len(vectors) // 2]
        distances = np.linalg.norm(vectors - centre, axis=1)
        if not np.isfinite(distances).all():
            raise BadCutoutError(
                f"{self.name}: its world coordinates do not say where its corners are on the sky; "
                "mend its header"
            )
        return Outline(centre, FARTHER * float(distances.max()))

    @cached_property
    def pixel_scale(self) -> float:
        """Width of a pixel in the middle. *Unit: arcsec*"""
        middle = _middle(self.shape)
        points = middle + np.array([[0, 0], [1, 0], [0, 1]])
        origin, right, up = unit_vectors(self.positions_of(points))
        area = np.linalg.norm(np.cross(right - origin, up - origin))
        return float(area) ** 0.5 * ARCSEC_PER_RADIAN

    def describe_place(self) -> str:
        """Say where the image lies, for a message."""
        middle = _middle(self.shape)
        right_ascension, declination = self.positions_of(middle[None])[0]
        return f"the middle of {self.name} is at {right_ascension:.4f} {declination:+.4f} degrees"

    def margins_of(self, positions: np.ndarray) -> np.ndarray:
        """Return how far positions (N, 2) lie from the nearest edge, (N,). *Unit: pixels*

        Those outside of the image have a negative margin, or none (NaN).
        """
        height, width = self.shape
        x, y = self.pixels_of(positions).T
        sides = [x + 0.5, width - 0.5 - x, y + 0.5, height - 0.5 - y]
        return np.asarray(np.min(sides, axis=0))

    def _is_near(self, positions: np.ndarray) -> np.ndarray:
        """Say which positions are not far off: there the inverse of distortions may not exist."""
        vectors = unit_vectors(positions)
        distances = np.linalg.norm(vectors - self.outline.centre, axis=1)
        return np.asarray(distances < self.outline.radius)

    def _pixels_of_world(self, world: np.ndarray) -> np.ndarray:
        axes = [self.wcs.wcs.lng, self.wcs.wcs.lat]
        in_order = np.empty_like(world)
        in_order[:, axes] = world

        # Each position is found on its own, whatever else is asked for in the same call.
        options = {"tolerance": WCS_TOLERANCE_PIXELS, "adaptive": True, "maxiter": MOST_STEPS}
        try:
            found = self.wcs.all_world2pix(in_order, 0, **options)
        except NoConvergence as error:
            found = np.array(error.best_solution)
            for rows in (error.divergent, error.slow_conv):
                if rows is not None:
                    found[rows] = np.nan
        return np.asarray(found)

    def positions_of(self, pixels: np.ndarray) -> np.ndarray:
        """Return right ascension and declination of points (N, 2), x and y, of the image."""
        axes = [self.wcs.wcs.lng, self.wcs.wcs.lat]
        world = self.wcs.all_pix2world(pixels, 0)[:, axes]
        if isinstance(self.frame, ICRS):
            return np.asarray(world)
        there = SkyCoord(*world.T, unit="deg", frame=self.frame).icrs
        return np.stack([there.ra.deg, there.dec.deg], axis=1)


def _sample_points(shape: tuple[int, int]) -> np.ndarray:
    """Return points all over an image, corners included and its middle in the middle: (N, 2)."""
    height, width = shape
    x = np.linspace(-0.5, width - 0.5, SAMPLES_PER_AXIS)
    y = np.linspace(-0.5, height - 0.5, SAMPLES_PER_AXIS)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def _middle(shape: tuple[int, int]) -> np.ndarray:
    """Return the middle of an image, x and y: (2,)."""
    height, width = shape
    return np.array([(width - 1) / 2, (height - 1) / 2])


# ---- the bands of a tile ----


def check_pixel_scale(grid: SkyGrid, expected: float) -> None:
    """Raise BadCutoutError for pixels that are not as wide as the recipe says, in arcsec."""
    error = abs(grid.pixel_scale / expected - 1)
    if error > MOST_SCALE_ERROR:
        raise BadCutoutError(
            f"{grid.name}: its pixels are {grid.pixel_scale:.4g} arcsec wide by its world "
            f"coordinates, and pixel_scale says {expected:g}; mend pixel_scale"
        )


def check_bands_agree(finest: SkyGrid, other: SkyGrid, ratio: float) -> None:
    """Raise BadCutoutError where two bands of a tile do not lie on the sky alike.

    The pixels of `other` are `ratio` times as wide as those of `finest`. What they show may begin
    elsewhere, but images that are as large as each other begin at the same corner. A band that is
    turned or distorted against the other disagrees as well.
    """
    points = _sample_points(finest.shape)
    there = other.pixels_of(finest.positions_of(points))
    is_common = np.isfinite(there).all(axis=1)
    if not is_common.any():
        raise BadCutoutError(
            f"{other.name}: its world coordinates put it on another part of the sky than those of "
            f"{finest.name}; mend them, or move the file to its tile"
        )

    shifts = (there - to_wider_pixels(points, ratio))[is_common]
    if not _are_alike(finest.shape, other.shape, ratio):
        shifts = shifts - shifts.mean(axis=0)

    apart = ratio * float(np.abs(shifts).max())
    if apart > MOST_DISAGREEMENT:
        raise BadCutoutError(
            f"{other.name}: its world coordinates put a position {apart:.3g} pixels from where "
            f"those of {finest.name} put it; mend them, or resample both to one grid"
        )


def to_wider_pixels(points: np.ndarray, ratio: float) -> np.ndarray:
    """Return where points lie on a grid with pixels `ratio` times as wide, and the same corner."""
    return (points + 0.5) / ratio - 0.5


def _are_alike(finest: Sequence[int], other: Sequence[int], ratio: float) -> bool:
    """Say whether two images are as large as each other, but for a part of a wider pixel."""
    pairs = zip(finest, other, strict=True)
    return all(abs(length / ratio - length_there) < 1 for length, length_there in pairs)
