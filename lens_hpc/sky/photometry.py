"""What a survey's catalogue says of an object: magnitude, colours, photometric redshift.

All are measured, with errors, on images in g, r and i that are blurred to one PSF, as those of
the multi-band catalogues of Euclid (MER processing, Q1: arXiv:2503.15305) and HSC-SSP. Nothing of
the image that a model sees goes into them, and the light of arcs and galaxies mixes by itself.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lens_hpc.sky.camera import Camera, draw_camera
from lens_hpc.sky.galaxies import Scene
from lens_hpc.sky.surveys import HSC, ZERO_POINT

BANDS = ("g", "r", "i")
# All bands are blurred to this FWHM, a little more than the worst seeing. *Unit: arcsec*
MATCHED_SEEING = 0.84
# Wide enough for the outer aperture and what shines into it. *Unit: pixels*
SIZE = 40
INNER_RADIUS_ARCSEC = 0.75
OUTER_RADIUS_ARCSEC = 2.5
# Scatter of a band's magnitudes beyond the noise. That of HSC-SSP is 0.01 for bright stars and more
# for galaxies (Huang et al. 2018, PASJ 70, S6): an estimate.
CALIBRATION_SCATTER = 0.03

# HSC-SSP reaches a scatter of 0.04 (1 + z) with 8 % outliers down to i = 24 (Tanaka et al. 2018,
# PASJ 70, S9); these galaxies are brighter, so fewer outliers are an estimate, as are the missing.
PHOTO_Z_SCATTER = 0.04
PHOTO_Z_OUTLIERS = 0.05
PHOTO_Z_MISSING = 0.03


class Measured(NamedTuple):
    """What the catalogue says; NaN where it could not be measured."""

    mag_i: float
    """Magnitude in i within the outer radius."""
    color_gi_inner: float
    """g - i within the inner radius."""
    color_gi_outer: float
    """g - i between the inner and the outer radius."""
    color_ri: float
    """r - i within the outer radius."""
    photo_z: float


def measure(rng: np.random.Generator, scene: Scene) -> Measured:
    """Take the images, and measure what is in the middle of them."""
    # To blur an image leaves the noise in an aperture larger than the PSF about as it is.
    drawn = draw_camera(rng, HSC, BANDS, SIZE, HSC.pixel_scale)
    camera = replace(drawn, seeing=(MATCHED_SEEING,) * len(BANDS))
    image = camera.record(rng, scene.expose(camera))
    offsets = rng.normal(0, CALIBRATION_SCATTER, size=len(BANDS))
    image *= 10 ** (-0.4 * offsets[:, None, None])

    radius = _radius_of_pixels(camera)
    is_inner = radius < INNER_RADIUS_ARCSEC
    is_total = radius < OUTER_RADIUS_ARCSEC

    inner = _magnitudes(image, is_inner)
    outer = _magnitudes(image, is_total & ~is_inner)
    total = _magnitudes(image, is_total)
    return Measured(
        mag_i=total["i"],
        color_gi_inner=inner["g"] - inner["i"],
        color_gi_outer=outer["g"] - outer["i"],
        color_ri=total["r"] - total["i"],
        photo_z=draw_photo_z(rng, scene.z),
    )


def _radius_of_pixels(camera: Camera) -> np.ndarray:
    """Return the distance of each pixel from the middle, arcsec."""
    axis = (np.arange(camera.size) - (camera.size - 1) / 2) * camera.pixel_scale
    return np.hypot(axis[:, None], axis[None, :])


def _magnitudes(image: np.ndarray, is_in_aperture: np.ndarray) -> dict[str, float]:
    """Return the magnitude of each band in an aperture, NaN where the flux is not positive."""
    fluxes = image[:, is_in_aperture].sum(axis=1)
    magnitudes = {}
    for band, flux in zip(BANDS, fluxes, strict=True):
        magnitudes[band] = ZERO_POINT - 2.5 * math.log10(flux) if flux > 0 else math.nan
    return magnitudes


def draw_photo_z(rng: np.random.Generator, z: float) -> float:
    """Return a photometric redshift: scattered, sometimes far off, sometimes missing."""
    scatter = rng.normal(0, PHOTO_Z_SCATTER * (1 + z))
    is_outlier = rng.uniform() < PHOTO_Z_OUTLIERS
    measured = rng.uniform(0.05, 1.2) if is_outlier else max(z + scatter, 0.01)
    is_missing = rng.uniform() < PHOTO_Z_MISSING
    return math.nan if is_missing else measured
