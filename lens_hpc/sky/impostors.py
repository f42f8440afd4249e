"""What people mistake for lenses, and plain galaxies: the classes of non-lenses."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lens_hpc.sky.galaxies import (
    Galaxy,
    Scene,
    draw_bend,
    draw_late_color,
    draw_satellite_color,
)
from lens_hpc.sky.lenses import VisibleLens
from lens_hpc.sky.light import Light

# Companions, shells, rings and partners lie at these Einstein radii of the lens that is not there.
# All but partners are about as bright as its arcs, a little fainter, as nothing magnifies them:
# mean and scatter in magnitudes are choices, so that brightness alone does not tell them from arcs.
RADII = (0.85, 1.35)
MAGNITUDES_FAINTER = 0.15
MAGNITUDE_SCATTER = 0.4


def draw_non_lens(rng: np.random.Generator, lens: VisibleLens) -> tuple[str, Scene]:
    """Draw an object that is no lens, and return its class and its scene.

    It is drawn around the galaxy of a visible lens, at its Einstein radius and with nearly as much
    light as its arcs, but instead of them: so neither brightness nor distance tells it.
    """
    shares = [impostor.share for impostor in NON_LENSES.values()]
    name = str(rng.choice(list(NON_LENSES), p=shares))
    return name, NON_LENSES[name].draw(rng, lens)


def _draw_radius(rng: np.random.Generator, lens: VisibleLens) -> float:
    """Draw where the arcs could be, arcsec from the galaxy."""
    return lens.mass.theta_e * rng.uniform(*RADII)


def _draw_mag_i(rng: np.random.Generator, lens: VisibleLens) -> float:
    """Draw the magnitude of all that looks like arcs together."""
    return lens.arcs_mag_i() + rng.normal(MAGNITUDES_FAINTER, MAGNITUDE_SCATTER)


def _draw_elliptical(rng: np.random.Generator, lens: VisibleLens) -> Scene:
    return Scene(lens.galaxy.z, (lens.galaxy.light,))


def _draw_companions(rng: np.random.Generator, lens: VisibleLens) -> Scene:
    """Draw an elliptical with companions.

    They are stretched around it, as arcs are, but straight and unrelated.
    """
    host = lens.galaxy.light
    mag_i = _draw_mag_i(rng, lens)
    shares = rng.dirichlet([2.0] * rng.integers(1, 4))
    companions = [_draw_companion(rng, lens, mag_i, share) for share in shares]
    return Scene(lens.galaxy.z, (host, *companions))


def _draw_companion(
    rng: np.random.Generator, lens: VisibleLens, mag_i: float, share: float
) -> Light:
    host = lens.galaxy.light
    distance = _draw_radius(rng, lens)
    angle = rng.uniform(0, 2 * math.pi)
    return Light(
        x=host.x + distance * math.cos(angle),
        y=host.y + distance * math.sin(angle),
        q=rng.uniform(0.2, 0.5),
        phi=angle + math.pi / 2 + rng.normal(0, 0.25),
        n=1.0,
        radius=rng.uniform(0.25, 0.6),
        mag_i=_magnitude_of_share(mag_i, share),
        color_gi=draw_satellite_color(rng, host),
        bend=draw_bend(rng),
    )


def _draw_shells(rng: np.random.Generator, lens: VisibleLens) -> Scene:
    """Draw an elliptical with shells: thin, bent debris of smaller galaxies, which look like arcs.

    Their colours are those of satellites, not of sources.
    """
    host = lens.galaxy.light
    mag_i = _draw_mag_i(rng, lens)
    color_gi = draw_satellite_color(rng, host)
    bend = draw_bend(rng)

    shells = []
    for share in rng.dirichlet([2.0] * rng.integers(1, 4)):
        shell = replace(
            host,
            q=rng.uniform(0.75, 1),
            phi=rng.uniform(0, 2 * math.pi),
            radius=_draw_radius(rng, lens),
            ring_width=rng.uniform(0.05, 0.15),
            opening=rng.uniform(0.15, 0.6),
            mag_i=_magnitude_of_share(mag_i, share),
            color_gi=color_gi,
            bend=bend,
            gradient=0.0,
        )
        shells.append(shell)
    return Scene(lens.galaxy.z, (host, *shells))


def _draw_spiral(rng: np.random.Generator, lens: VisibleLens) -> Scene:
    q = rng.uniform(0.45, 1)
    radius = rng.uniform(0.9, 1.9)
    arms = rng.uniform(0.5, 0.95)
    return _draw_disc_galaxy(rng, lens.galaxy, q, radius, arms)


def _draw_edge_on(rng: np.random.Generator, lens: VisibleLens) -> Scene:
    q = rng.uniform(0.12, 0.25)
    radius = rng.uniform(1.0, 2.0)
    return _draw_disc_galaxy(rng, lens.galaxy, q, radius, arms=0)


def _draw_disc_galaxy(
    rng: np.random.Generator, galaxy: Galaxy, q: float, radius: float, arms: float
) -> Scene:
    """Draw a red bulge and a bluer disc, which together are as bright as the galaxy."""
    bulge_share = rng.uniform(0.25, 0.6)
    bulge = replace(
        galaxy.light,
        radius=rng.uniform(0.25, 0.5),
        mag_i=_magnitude_of_share(galaxy.light.mag_i, bulge_share),
        n=3.0,
        color_gi=galaxy.light.color_gi - rng.uniform(0, 0.4),
    )
    disc = replace(
        galaxy.light,
        q=q,
        radius=radius,
        n=1.0,
        arms=arms,
        mag_i=_magnitude_of_share(galaxy.light.mag_i, 1 - bulge_share),
        color_gi=rng.normal(1.2, 0.3),
        bend=draw_bend(rng),
        gradient=0.0,
    )

    # A disc galaxy that is as bright as an elliptical is nearer.
    z = galaxy.z * rng.uniform(0.6, 1.0)
    return Scene(z, (bulge, disc))


def _draw_ring(rng: np.random.Generator, lens: VisibleLens) -> Scene:
    """Draw a red galaxy with a concentric ring of younger stars.

    The ring is smoother than an Einstein ring, and seen at an angle.
    """
    host = lens.galaxy.light
    ring = replace(
        host,
        q=rng.uniform(0.4, 0.9),
        radius=_draw_radius(rng, lens),
        ring_width=rng.uniform(0.15, 0.35),
        mag_i=_draw_mag_i(rng, lens),
        color_gi=draw_late_color(rng),
        bend=draw_bend(rng),
        gradient=0.0,
    )
    return Scene(lens.galaxy.z, (host, ring))


def _draw_merger(rng: np.random.Generator, lens: VisibleLens) -> Scene:
    """Draw two galaxies of similar brightness, and the debris between them."""
    host = lens.galaxy.light
    distance = _draw_radius(rng, lens)
    angle = rng.uniform(0, 2 * math.pi)
    share = rng.uniform(0.5, 0.75)
    main = replace(host, mag_i=_magnitude_of_share(host.mag_i, share))

    other = replace(
        host,
        x=main.x + distance * math.cos(angle),
        y=main.y + distance * math.sin(angle),
        q=rng.uniform(0.4, 0.9),
        phi=rng.uniform(0, math.pi),
        n=rng.uniform(1, 4),
        radius=rng.uniform(0.4, 0.9),
        mag_i=_magnitude_of_share(host.mag_i, 1 - share),
        color_gi=host.color_gi - rng.uniform(0, 1),
        bend=draw_bend(rng),
    )

    # A stretched tail of stars, a little farther out and bent around.
    tail_distance = 1.2 * distance
    tail_angle = angle + 0.5
    tail = replace(
        other,
        x=main.x + tail_distance * math.cos(tail_angle),
        y=main.y + tail_distance * math.sin(tail_angle),
        q=rng.uniform(0.15, 0.4),
        phi=angle + rng.normal(0, 0.6),
        n=1.0,
        radius=rng.uniform(0.6, 1.2),
        mag_i=host.mag_i + rng.uniform(1.5, 2.5),
        color_gi=draw_late_color(rng),
        bend=draw_bend(rng),
        gradient=0.0,
    )
    return Scene(lens.galaxy.z, (main, other, tail))


def _magnitude_of_share(magnitude: float, share: float) -> float:
    """Return the magnitude of a share of the light."""
    return magnitude - 2.5 * math.log10(share)


class Impostor(NamedTuple):
    """A class of non-lenses."""

    share: float
    """How many of all non-lenses are of this class."""
    draw: Callable[[np.random.Generator, VisibleLens], Scene]


NON_LENSES = {
    "elliptical_companions": Impostor(0.25, _draw_companions),
    "elliptical_shells": Impostor(0.22, _draw_shells),
    "elliptical": Impostor(0.12, _draw_elliptical),
    "spiral": Impostor(0.18, _draw_spiral),
    "ring": Impostor(0.08, _draw_ring),
    "merger": Impostor(0.08, _draw_merger),
    "edge_on": Impostor(0.07, _draw_edge_on),
}
"""All classes of non-lenses, by the name that they have in the catalogue."""
