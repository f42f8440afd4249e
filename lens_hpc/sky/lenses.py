"""Lenses whose arcs are bright enough to see."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from lens_hpc.errors import UserError
from lens_hpc.sky.camera import Camera
from lens_hpc.sky.deflection import Lens, einstein_radius
from lens_hpc.sky.galaxies import Galaxy, Scene, draw_bend, draw_blue_color, draw_galaxy
from lens_hpc.sky.light import Light
from lens_hpc.sky.surveys import ZERO_POINT, ImagingSurvey

# Arcs count as visible when the images together are this much brighter than their source, and stand
# out of the noise (sky and the lens galaxy's photons) by so many sigmas, and out of the galaxy by
# this share of its own brightness, in as large an area as the survey needs.
MINIMUM_MAGNIFICATION = 3.0
MINIMUM_SIGMAS = 3
MINIMUM_CONTRAST = 0.2
MAXIMUM_ATTEMPTS = 10_000

# Einstein radii that a cutout can show, as a share of its width.
MAXIMUM_SHARE_OF_WIDTH = 0.22
# By what power of the Einstein radius large lenses are drawn more often than on the sky.
EXTRA_SLOPE = 2.5


@dataclass(frozen=True)
class VisibleLens:
    """A lens with arcs that can be seen."""

    galaxy: Galaxy
    z_source: float
    mass: Lens
    sources: tuple[Light, ...]
    magnification: float
    """Flux of all images over that of the source."""
    signal_to_noise: float
    """Of all images together, in the band where it is highest."""

    def scene(self) -> Scene:
        """Return what is in the cutout."""
        return Scene(self.galaxy.z, (self.galaxy.light,), self.mass, self.sources)

    def source_mag_i(self) -> float:
        """Return the magnitude of the source in i, without lensing."""
        flux = sum(float(light.flux(("i",))) for light in self.sources)
        return ZERO_POINT - 2.5 * math.log10(flux)

    def arcs_mag_i(self) -> float:
        """Return the magnitude of all images together in i."""
        return self.source_mag_i() - 2.5 * math.log10(self.magnification)


def draw_lens(rng: np.random.Generator, camera: Camera, survey: ImagingSurvey) -> VisibleLens:
    """Draw a lens again and again, until its arcs are bright enough to see.

    Raise UserError if none is, because the cutouts are too small or too coarse.
    """
    largest_radius = MAXIMUM_SHARE_OF_WIDTH * camera.size * camera.pixel_scale
    for _ in range(MAXIMUM_ATTEMPTS):
        galaxy = draw_galaxy(rng)
        z_source = rng.normal(2.0, 0.5)
        if not galaxy.z + 0.3 < z_source < 4:
            continue

        theta_e = einstein_radius(galaxy.sigma_v, galaxy.z, z_source)
        if not survey.smallest_einstein_radius < theta_e < largest_radius:
            continue

        # Most lenses of the sky are small; here the large ones are enough to learn from.
        if rng.uniform() > (theta_e / largest_radius) ** EXTRA_SLOPE:
            continue

        mass = _draw_mass(rng, galaxy, theta_e)
        sources = _draw_source(rng, mass)
        seen = _look_at_arcs(camera, survey, galaxy.light, mass, sources)
        if seen.are_visible:
            return VisibleLens(
                galaxy, z_source, mass, tuple(sources), seen.magnification, seen.signal_to_noise
            )

    raise UserError(
        f"no visible lens in {MAXIMUM_ATTEMPTS} draws with cutouts of {camera.size} px of "
        f"{camera.pixel_scale} arcsec; use a larger size, a finer pixel_scale or more bands"
    )


def _draw_mass(rng: np.random.Generator, galaxy: Galaxy, theta_e: float) -> Lens:
    """Draw a mass that follows the light of its galaxy, roughly, and the shear around it."""
    shear = rng.rayleigh(0.04)
    angle = rng.uniform(0, math.pi)
    q = galaxy.light.q + rng.normal(0, 0.05)
    phi = galaxy.light.phi + rng.normal(0, 0.1)
    return Lens(
        x=galaxy.light.x,
        y=galaxy.light.y,
        q=float(np.clip(q, 0.5, 0.98)),
        phi=phi,
        theta_e=theta_e,
        gamma_1=shear * math.cos(2 * angle),
        gamma_2=shear * math.sin(2 * angle),
    )


def _draw_source(rng: np.random.Generator, lens: Lens) -> list[Light]:
    """Draw a blue disc with star-forming clumps, inside or near the caustic."""
    distance = 0.7 * lens.theta_e * math.sqrt(rng.uniform())
    angle = rng.uniform(0, 2 * math.pi)
    disc = Light(
        x=lens.x + distance * math.cos(angle),
        y=lens.y + distance * math.sin(angle),
        q=rng.uniform(0.4, 1),
        phi=rng.uniform(0, math.pi),
        n=1.0,
        radius=rng.uniform(0.12, 0.35),
        mag_i=rng.normal(24.4, 0.7),
        color_gi=draw_blue_color(rng),
        bend=draw_bend(rng),
    )

    number_of_clumps = rng.integers(1, 5)
    clumps = [_draw_clump(rng, disc) for _ in range(number_of_clumps)]
    return [disc, *clumps]


def _draw_clump(rng: np.random.Generator, disc: Light) -> Light:
    scatter = 0.6 * disc.radius
    return replace(
        disc,
        x=disc.x + rng.normal(0, scatter),
        y=disc.y + rng.normal(0, scatter),
        q=1.0,
        n=0.5,
        radius=rng.uniform(0.04, 0.08),
        mag_i=disc.mag_i + rng.uniform(1.5, 3),
        color_gi=disc.color_gi - rng.uniform(0, 0.3),
    )


class _Seen(NamedTuple):
    """What a camera shows of arcs."""

    are_visible: bool
    magnification: float
    signal_to_noise: float


def _look_at_arcs(
    camera: Camera, survey: ImagingSurvey, galaxy: Light, mass: Lens, sources: list[Light]
) -> _Seen:
    """Return whether the arcs are magnified enough, and stand out in one band at least."""
    # Images are flux a pixel, (bands, size, size).
    arcs = camera.expose(sources, mass)
    unlensed_flux = sum(float(light.flux(camera.bands).sum()) for light in sources)
    magnification = float(arcs.sum()) / unlensed_flux
    if magnification < MINIMUM_MAGNIFICATION:
        return _Seen(False, magnification, 0.0)

    galaxy_image = camera.expose([galaxy])
    sigma = camera.noise(galaxy_image + arcs)
    squared_ratios = (arcs / sigma) ** 2
    signal_to_noise = torch.sqrt(squared_ratios.sum(dim=(1, 2)))

    is_above_noise = arcs > MINIMUM_SIGMAS * sigma
    stands_out = is_above_noise & (arcs > MINIMUM_CONTRAST * galaxy_image)
    area_that_stands_out = stands_out.sum(dim=(1, 2)) * camera.pixel_scale**2

    # Both conditions must hold in the same band.
    is_bright = signal_to_noise > survey.least_signal_to_noise
    # It grows with the Einstein radius, as an arc is known by the angle that it spans.
    least_area = survey.least_area * mass.theta_e / survey.smallest_einstein_radius
    is_clear = area_that_stands_out > least_area
    are_visible = bool((is_bright & is_clear).any())
    return _Seen(are_visible, magnification, float(signal_to_noise.max()))
