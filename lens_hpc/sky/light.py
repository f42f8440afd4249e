"""Light components: what an object is painted of.

Each has a surface brightness on the plane of the sky, or, behind a lens, on the source plane.

Units: angles in arcsec, position angles in radians, fluxes such that one unit is magnitude
ZERO_POINT.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from caustics.light.func import brightness_sersic, k_sersic
from caustics.utils import translate_rotate

ZERO_POINT = 27.0
# A spectrum is a magnitude in i and a colour g - i:
# magnitude(band) = mag_i + color_gi * COLOR_SHARE[band].
COLOR_SHARE = {"g": 1.0, "r": 0.35, "i": 0.0, "z": -0.12, "y": -0.2}
# Softens the cusp in the centre of a Sersic profile, arcsec.
CORE_ARCSEC = 0.01
# How tightly spiral arms are wound, and what keeps them from winding up for ever in the centre.
ARM_WINDING = 3.0
ARM_CORE = 0.1


@dataclass(frozen=True)
class Light:
    """An ellipse with a Sersic profile, or a variation of it."""

    x: float
    y: float
    q: float
    """Axis ratio."""
    phi: float
    """Position angle."""
    n: float
    """Sersic index."""
    radius: float
    """Half-light radius."""
    mag_i: float
    """Magnitude in i, before lensing."""
    color_gi: float
    """Magnitude in g less magnitude in i."""
    arms: float = 0.0
    """Amplitude of two logarithmic spiral arms, 0 to 1."""
    ring_width: float = 0.0
    """Above 0: not a Sersic profile but a Gaussian ring of that width (sigma) at `radius`."""

    def flux(self, bands: Sequence[str]) -> torch.Tensor:
        """Return the total flux in each band, before lensing, (bands,)."""
        fluxes = []
        for band in bands:
            magnitude = self.mag_i + self.color_gi * COLOR_SHARE[band]
            fluxes.append(10 ** (-0.4 * (magnitude - ZERO_POINT)))
        return torch.tensor(fluxes)

    def brightness(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the surface brightness at (x, y) for a total flux of 1, 1/arcsec^2."""
        if self.ring_width:
            return self._ring(x, y)

        profile = self._sersic(x, y)
        if self.arms:
            profile = profile * self._spiral(x, y)
        return profile

    def _sersic(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        # Total flux of the profile: Graham & Driver 2005 (PASA 22, 118), equation 4.
        n = self.n
        k = k_sersic(n)
        total = (
            2
            * math.pi
            * n
            * self.radius**2
            * math.exp(k)
            * k ** (-2 * n)
            * math.gamma(2 * n)
            * self.q
        )
        phi = torch.tensor(self.phi)
        return brightness_sersic(
            self.x, self.y, self.q, phi, n, self.radius, 1 / total, x, y, k, s=CORE_ARCSEC
        )

    def _ring(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        u, v = self._along_axes(x, y)
        distance = torch.hypot(u, v / self.q) - self.radius
        total = (2 * math.pi) ** 1.5 * self.radius * self.ring_width * self.q
        profile = torch.exp(-0.5 * (distance / self.ring_width) ** 2)
        return profile / total

    def _spiral(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return by how much the arms make the profile brighter or fainter."""
        u, v = self._along_axes(x, y)
        v = v / self.q
        radii = torch.hypot(u, v) / self.radius
        angle = torch.atan2(v, u) - ARM_WINDING * torch.log(radii + ARM_CORE)
        return 1 + self.arms * torch.cos(2 * angle)

    def _along_axes(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the coordinates along the major and the minor axis."""
        phi = torch.tensor(self.phi)
        u, v = translate_rotate(x, y, self.x, self.y, phi)
        return u, v
