"""Light components: what an object is painted of.

Each has a surface brightness on the plane of the sky, or, behind a lens, on the source plane.

Units: angles in arcsec, position angles in radians, fluxes such that one unit is magnitude
ZERO_POINT.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from caustics.light.func import brightness_sersic, k_sersic
from caustics.utils import translate_rotate
from scipy.special import gammainc

from lens_hpc.sky.surveys import ZERO_POINT

# A spectrum is a magnitude in i, a colour g - i, and how far r and what is redder than i lie off
# the line between them:
# magnitude(band) = mag_i + color_gi * COLOR_SHARE[band] + bend * BEND_SHARE[band].
# VIS is about r, i and z together, so its shares are their means. All shares are estimates.
COLOR_SHARE = {"g": 1.0, "r": 0.35, "i": 0.0, "z": -0.12, "y": -0.2, "vis": 0.08}
BEND_SHARE = {"g": 0.0, "r": 1.0, "i": 0.0, "z": 1.0, "y": 1.5, "vis": 0.67}
# How tightly spiral arms are wound, and what keeps them from winding up for ever in the centre.
ARM_WINDING = 3.0
ARM_CORE = 0.1
# A colour gradient goes on to this share of the effective radius, and no farther in.
GRADIENT_CORE = 0.1
# The window around a cusp in which its samples are counted: sigma in steps of the grid, and how
# many sigmas it reaches.
CUSP_WINDOW_STEPS = 2.5
CUSP_WINDOW_SIGMAS = 5
CUSP_RINGS = 256
# So many half-light radii around its centre a light is painted at least, for its flux to be whole.
FARTHEST_RADII = 6.0


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
    bend: float = 0.0
    """How far the magnitude in r lies off the line through g and i."""
    gradient: float = 0.0
    """Change of g - i per decade of radius; `color_gi` is then the colour at `radius`."""
    arms: float = 0.0
    """Amplitude of two logarithmic spiral arms, 0 to 1."""
    ring_width: float = 0.0
    """Above 0: not a Sersic profile but a Gaussian ring of that width (sigma) at `radius`."""
    opening: float = 0.0
    """Above 0: only a segment of the ring, around its major axis, with a Gaussian end of that angle
    (sigma, radians) on either side."""

    @property
    def reach(self) -> float:
        """From the centre: farther out is next to no light."""
        return FARTHEST_RADII * self.radius

    def flux(self, bands: Sequence[str]) -> torch.Tensor:
        """Return the total flux in each band, before lensing, (bands,)."""
        fluxes = []
        for band in bands:
            color = self.color_gi * COLOR_SHARE[band] + self.bend * BEND_SHARE[band]
            magnitude = self.mag_i + color
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

    def on_grid(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the share of the flux that belongs to each point of a regular grid.

        A cusp is too sharp for its samples: what they miss of it is added to the central point.
        """
        step = float(x[0, 1] - x[0, 0])
        shares = self.brightness(x, y) * step**2
        if not self.ring_width:
            self._mend_cusp(shares, x, y, step)
        return shares

    def tint(self, bands: Sequence[str], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return by how much the colour gradient changes each band, (bands, height, width)."""
        u, v = self._along_axes(x, y)
        radii = torch.hypot(u, v / self.q) / self.radius
        decades = torch.log10(radii.clamp(min=GRADIENT_CORE))

        tints = []
        for band in bands:
            magnitudes_per_decade = self.gradient * COLOR_SHARE[band]
            tints.append(10 ** (-0.4 * magnitudes_per_decade * decades))
        return torch.stack(tints)

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
        return brightness_sersic(self.x, self.y, self.q, phi, n, self.radius, 1 / total, x, y, k)

    def _mend_cusp(
        self, shares: torch.Tensor, x: torch.Tensor, y: torch.Tensor, step: float
    ) -> None:
        """Make the light within a smooth window around the centre what it should be, in place.

        Away from the centre the samples are good, so all that the window lacks lies in the cusp.
        """
        sigma = CUSP_WINDOW_STEPS * step / self.q
        reach = math.ceil(CUSP_WINDOW_SIGMAS * sigma / step)
        row = round((self.y - float(y[0, 0])) / step)
        column = round((self.x - float(x[0, 0])) / step)

        # A window that leaves the grid would lack more than the cusp.
        is_inside = min(row, column) >= reach and max(row, column) + reach < len(x)
        if not is_inside:
            return

        rows = slice(row - reach, row + reach + 1)
        columns = slice(column - reach, column + reach + 1)
        u, v = self._along_axes(x[rows, columns], y[rows, columns])
        squared_radius = u**2 + (v / self.q) ** 2
        window = torch.exp(-squared_radius / (2 * sigma**2))

        sampled = float((shares[rows, columns] * window).sum())
        expected = self._light_in_window(sigma)
        shares[row, column] += expected - sampled

    def _light_in_window(self, sigma: float) -> float:
        """Return the sum of a Sersic profile of flux 1 times a Gaussian window of peak 1.

        Flux within a radius: Graham & Driver 2005, equation 2. `sigma` is along the major axis.
        """
        # Rings that are narrower towards the centre, where the profile is steep.
        largest = CUSP_WINDOW_SIGMAS * sigma
        edges = largest * np.linspace(0, 1, CUSP_RINGS) ** 2
        middles = (edges[1:] + edges[:-1]) / 2

        k = float(k_sersic(self.n))
        depth = k * (edges / self.radius) ** (1 / self.n)
        light_within = gammainc(2 * self.n, depth)
        window = np.exp(-(middles**2) / (2 * sigma**2))
        return float(np.sum(np.diff(light_within) * window))

    def _ring(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        u, v = self._along_axes(x, y)
        v = v / self.q
        distance = torch.hypot(u, v) - self.radius
        profile = torch.exp(-0.5 * (distance / self.ring_width) ** 2)
        total = math.sqrt(2 * math.pi) * self.ring_width * self.radius * self.q
        if not self.opening:
            return profile / (total * 2 * math.pi)

        angle = torch.atan2(v, u)
        segment = profile * torch.exp(-0.5 * (angle / self.opening) ** 2)
        return segment / (total * math.sqrt(2 * math.pi) * self.opening)

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
