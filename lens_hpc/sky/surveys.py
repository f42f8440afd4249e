"""Surveys that a mock survey may be like: what their cameras record, each number with its source.

It imports neither torch nor NumPy, so that settings can be checked at once.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

ZERO_POINT = 27.0
"""AB magnitude of one flux unit."""

DEPTH_SCATTER = 0.05
"""Scatter of the sky's noise over a survey, in its logarithm: an estimate."""


@dataclass(frozen=True)
class ImagingSurvey:
    """What the images of a survey are like."""

    bands: tuple[str, ...]
    """Bands of its cutouts, unless the user names others."""
    size: int
    """Height and width of its cutouts, pixels, unless the user gives another."""
    pixel_scale: float
    """Arcsec per pixel, unless the user gives another."""
    seeing: Mapping[str, float]
    """FWHM of each band that it has, arcsec."""
    seeing_scatter: float
    """Scatter of the FWHM, in its logarithm."""
    depth: Mapping[str, float]
    """Magnitude of each band that gives `depth_sigmas` in an aperture of `depth_radius`."""
    depth_sigmas: float
    depth_radius: float
    """Arcsec."""
    gain: float
    """Electrons per flux unit."""
    smallest_einstein_radius: float
    """Arcsec: a lens of a smaller one would not be recognised, nor would fainter arcs."""
    least_signal_to_noise: float
    """Of all arcs of a lens together."""
    least_area: float
    """Arcsec^2 in which arcs must stand out of the noise and of their galaxy, at the smallest
    Einstein radius; at another one, as much more as that is larger."""

    def sky_sigma(self, band: str, pixel_scale: float) -> float:
        """Return the standard deviation of the sky in a pixel, flux units."""
        aperture_pixels = math.pi * (self.depth_radius / pixel_scale) ** 2
        aperture_sigma = 10 ** (-0.4 * (self.depth[band] - ZERO_POINT)) / self.depth_sigmas
        return aperture_sigma / math.sqrt(aperture_pixels)


# VIS, the visible camera of the Euclid Wide Survey. The FWHM is 0.16 arcsec (VIS processing, Q1:
# arXiv:2503.15303), a little more in the mosaic. 10 sigma at 24.5 is what the survey must reach
# (MER processing, Q1: arXiv:2503.15305), here in an aperture of 1.3 arcsec diameter; the first
# images are deeper. Lenses of Q1 are found well below 1 arcsec (arXiv:2503.15324). What is visible,
# the scatter, and the gain, for about four exposures of ten minutes, are estimates.
EUCLID = ImagingSurvey(
    bands=("vis",),
    size=80,
    pixel_scale=0.1,
    seeing={"vis": 0.18},
    seeing_scatter=0.03,
    depth={"vis": 24.5},
    depth_sigmas=10,
    depth_radius=0.65,
    gain=600.0,
    smallest_einstein_radius=0.6,
    least_signal_to_noise=25.0,
    least_area=0.4,
)

# The wide layer of HSC-SSP on the Subaru telescope: seeing and 5 sigma depth in an aperture of 2
# arcsec diameter (Aihara et al. 2018, PASJ 70, S4). What is visible, the scatter, and the gain, for
# some 20 minutes with a mirror of 8 m, are estimates.
HSC = ImagingSurvey(
    bands=("g", "r", "i"),
    size=64,
    pixel_scale=0.168,
    seeing={"g": 0.77, "r": 0.76, "i": 0.58, "z": 0.68, "y": 0.68},
    seeing_scatter=0.06,
    depth={"g": 26.5, "r": 26.1, "i": 25.9, "z": 25.1, "y": 24.4},
    depth_sigmas=5,
    depth_radius=1.0,
    gain=2000.0,
    smallest_einstein_radius=0.75,
    least_signal_to_noise=60.0,
    least_area=1.1,
)

SURVEYS = {"euclid": EUCLID, "hsc": HSC}
