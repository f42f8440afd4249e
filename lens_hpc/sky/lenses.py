"""Lenses whose arcs are bright enough to see."""

import math
from dataclasses import replace

import numpy as np
import torch

from lens_hpc.errors import UserError
from lens_hpc.sky.camera import Camera
from lens_hpc.sky.deflection import Lens, einstein_radius
from lens_hpc.sky.galaxies import Galaxy, Scene, draw_blue_color, draw_galaxy
from lens_hpc.sky.light import Light

# An arc counts as visible when the images together are this much brighter than their source, and
# stand out of the noise (sky and the lens galaxy's photons) and out of the galaxy by this much in
# the best band.
MINIMUM_MAGNIFICATION = 3.0
MINIMUM_SIGNAL_TO_NOISE = 60.0
MINIMUM_PIXELS_ABOVE_GALAXY = 40
MINIMUM_SIGMAS = 3
MAXIMUM_ATTEMPTS = 10_000

# Einstein radii that a cutout can show: arcsec, and share of the width of the cutout.
MINIMUM_EINSTEIN_RADIUS = 0.75
MAXIMUM_SHARE_OF_WIDTH = 0.22


def draw_lens(rng: np.random.Generator, camera: Camera) -> Scene:
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
        if not MINIMUM_EINSTEIN_RADIUS < theta_e < largest_radius:
            continue

        lens = _draw_mass(rng, galaxy, theta_e)
        sources = _draw_source(rng, lens)
        if _is_visible(camera, galaxy.light, lens, sources):
            return Scene(galaxy.z, (galaxy.light,), lens, tuple(sources))

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
        mag_i=rng.normal(24.0, 0.7),
        color_gi=draw_blue_color(rng),
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
        radius=rng.uniform(0.03, 0.07),
        mag_i=disc.mag_i + rng.uniform(1.5, 3),
        color_gi=disc.color_gi - rng.uniform(0, 0.3),
    )


def _is_visible(camera: Camera, galaxy: Light, lens: Lens, sources: list[Light]) -> bool:
    """Return whether the arcs are magnified enough, and stand out in one band at least."""
    # Images are flux a pixel, (bands, size, size).
    arcs = camera.expose(sources, lens)
    unlensed_flux = sum(float(light.flux(camera.bands).sum()) for light in sources)
    if arcs.sum() < MINIMUM_MAGNIFICATION * unlensed_flux:
        return False

    galaxy_image = camera.expose([galaxy])
    sigma = camera.noise(galaxy_image + arcs)
    squared_ratios = (arcs / sigma) ** 2
    signal_to_noise = torch.sqrt(squared_ratios.sum(dim=(1, 2)))

    stands_out = (arcs > MINIMUM_SIGMAS * sigma) & (arcs > galaxy_image)
    pixels_that_stand_out = stands_out.sum(dim=(1, 2))

    # Both conditions must hold in the same band.
    is_bright = signal_to_noise > MINIMUM_SIGNAL_TO_NOISE
    is_clear = pixels_that_stand_out > MINIMUM_PIXELS_ABOVE_GALAXY
    return bool((is_bright & is_clear).any())
