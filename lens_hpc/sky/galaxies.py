"""Galaxies: the massive ellipticals that a survey would select, and faint neighbours.

Lenses and what people mistake for them share one parent population, so that brightness alone does
not tell a lens.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from lens_hpc.sky.camera import Camera
from lens_hpc.sky.cosmology import comoving_distance_mpc
from lens_hpc.sky.deflection import Lens
from lens_hpc.sky.light import Light

# Share of the companions of a massive elliptical that are red, as it is. On the sky most are, the
# more the closer they are ("GAMA: the red fraction and radial distribution of satellite galaxies",
# 2011). But nobody takes a red companion for an arc: those of a mock survey are confusers, and so
# mostly blue. The share is a choice.
RED_SATELLITES = 0.15
# Scatter of r - i at one colour g - i: an estimate.
BEND_SCATTER = 0.06
# Absolute magnitude in i at 200 km/s: an estimate. How it changes with the velocity dispersion, and
# its scatter at one, come of the joint distribution of both (Bernardi et al. 2003, AJ 125, 1849:
# log sigma = constant - 0.102 M with a scatter of 0.07, and M scatters by 0.84): by regression,
# d M / d log sigma = -0.102 * 0.84^2 / (0.102^2 * 0.84^2 + 0.07^2). Faber & Jackson's relation the
# other way round would be steeper, and hide the arcs of all large lenses in the light of giants.
MAGNITUDE_AT_200 = -22.4
MAGNITUDES_PER_DEX = -5.9
LUMINOSITY_SCATTER = 0.53
# Galaxies brighter than i = 25 in an arcmin^2, and their slope in dex a magnitude (LSST Science
# Book, arXiv:0912.0201, section 3.7).
FAINTEST_NEIGHBOUR = 25.0
NEIGHBOURS_PER_ARCMIN2 = 46.0
COUNT_SLOPE = 0.31
NEIGHBOUR_RADIUS = math.sqrt(1.6)
"""How far from the middle of a cutout neighbours are drawn, in halves of its width."""
# Change of g - i per decade of radius and its scatter. Ellipticals have red cores (La Barbera et
# al. 2010, AJ 140, 1528); the numbers are estimates.
GRADIENT = -0.06
GRADIENT_SCATTER = 0.07


@dataclass(frozen=True)
class Galaxy:
    """A massive elliptical."""

    z: float
    """Redshift."""
    sigma_v: float
    """Velocity dispersion, km/s."""
    light: Light


@dataclass(frozen=True)
class Scene:
    """What is in one cutout."""

    z: float
    """Redshift of the galaxy in the middle."""
    lights: tuple[Light, ...]
    lens: Lens | None = None
    sources: tuple[Light, ...] = ()
    """What lies behind the lens."""

    def expose(self, camera: Camera) -> torch.Tensor:
        """Return the noiseless flux in each pixel, (bands, size, size)."""
        flux = camera.expose(self.lights)
        if self.lens:
            flux = flux + camera.expose(self.sources, self.lens)
        return flux


def draw_galaxy(rng: np.random.Generator) -> Galaxy:
    """Draw a massive elliptical, weighted by its cross-section for lensing.

    Velocity dispersions follow the modified Schechter function of Choi et al. 2007 (ApJ 658, 884:
    sigma* = 161 km/s, alpha = 2.32, beta = 2.67) times sigma^4; luminosities those of
    ellipticals of one velocity dispersion; and colours and radii, roughly, passive galaxies.
    """
    while True:
        z = rng.normal(0.5, 0.15)
        sigma_v = 161.0 * rng.gamma((2.32 + 4) / 2.67) ** (1 / 2.67)
        if not (0.2 < z < 0.9 and 120 < sigma_v < 400):
            continue

        luminosity_distance_mpc = comoving_distance_mpc(z) * (1 + z)
        distance_modulus = 5 * math.log10(luminosity_distance_mpc) + 25
        decades = math.log10(sigma_v / 200)
        absolute_magnitude = MAGNITUDE_AT_200 + MAGNITUDES_PER_DEX * decades
        k_correction = 0.9 * z
        scatter = rng.normal(0, LUMINOSITY_SCATTER)
        mag_i = absolute_magnitude + distance_modulus + k_correction + scatter
        if 17.5 < mag_i < 21.0:
            break

    return Galaxy(z, sigma_v, _draw_elliptical_light(rng, z, mag_i))


def _draw_elliptical_light(rng: np.random.Generator, z: float, mag_i: float) -> Light:
    # The draws keep their order, or the same seed would give another survey.
    x = rng.normal(0, 0.05)
    y = rng.normal(0, 0.05)
    q = rng.normal(0.78, 0.12)
    phi = rng.uniform(0, math.pi)
    n = rng.normal(4, 0.7)

    # Brighter galaxies are larger.
    typical_radius = 0.9 * 10 ** (-0.15 * (mag_i - 19.5))
    radius = typical_radius * rng.lognormal(0, 0.2)

    # Old stars look redder the more they are redshifted, up to a redshift of about 0.6.
    color_gi = 1.2 + 2.4 * min(z, 0.6) + rng.normal(0, 0.12)

    return Light(
        x=x,
        y=y,
        q=float(np.clip(q, 0.45, 0.98)),
        phi=phi,
        n=float(np.clip(n, 2.5, 6)),
        radius=float(np.clip(radius, 0.35, 2.0)),
        mag_i=mag_i,
        color_gi=float(color_gi),
        bend=draw_bend(rng),
        gradient=rng.normal(GRADIENT, GRADIENT_SCATTER),
    )


def draw_neighbours(rng: np.random.Generator, half_width: float) -> list[Light]:
    """Draw faint galaxies that happen to lie in the cutout, anywhere.

    `half_width` is half the width of the cutout, arcsec.
    """
    farthest = NEIGHBOUR_RADIUS * half_width
    area_arcmin2 = math.pi * (farthest / 60) ** 2
    typical_excess = 1 / (COUNT_SLOPE * math.log(10))

    lights = []
    for _ in range(rng.poisson(NEIGHBOURS_PER_ARCMIN2 * area_arcmin2)):
        distance = farthest * math.sqrt(rng.uniform())
        angle = rng.uniform(0, 2 * math.pi)
        light = Light(
            x=distance * math.cos(angle),
            y=distance * math.sin(angle),
            q=rng.uniform(0.35, 1),
            phi=rng.uniform(0, math.pi),
            n=rng.uniform(0.8, 2.5),
            radius=rng.uniform(0.2, 0.6),
            mag_i=max(FAINTEST_NEIGHBOUR - rng.exponential(typical_excess), 21.0),
            color_gi=rng.normal(0.9, 0.5),
            bend=draw_bend(rng),
        )
        lights.append(light)
    return lights


def draw_blue_color(rng: np.random.Generator) -> float:
    """Draw the colour g - i of a galaxy that forms stars, at the redshift of a source.

    There the 4000 Angstrom break lies beyond i, so that it is blue; the numbers are estimates.
    """
    return float(np.clip(rng.normal(0.55, 0.3), 0, 1.3))


def draw_satellite_color(rng: np.random.Generator, host: Light) -> float:
    """Draw the colour g - i of a galaxy near a massive elliptical, at any redshift below it."""
    if rng.uniform() < RED_SATELLITES:
        return host.color_gi - abs(rng.normal(0, 0.3))
    return draw_late_color(rng)


def draw_late_color(rng: np.random.Generator) -> float:
    """Draw the colour g - i of a galaxy with a disc in the foreground of the sources."""
    return float(np.clip(rng.normal(1.05, 0.3), 0.3, 1.8))


def draw_bend(rng: np.random.Generator) -> float:
    """Draw how far r lies off the line through g and i."""
    return rng.normal(0, BEND_SCATTER)
