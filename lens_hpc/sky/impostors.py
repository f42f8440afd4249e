"""What people mistake for lenses, and plain galaxies: the classes of non-lenses."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lens_hpc.sky.galaxies import Galaxy, Scene, draw_blue_color, draw_galaxy
from lens_hpc.sky.light import Light


def draw_non_lens(rng: np.random.Generator) -> tuple[str, Scene]:
    """Draw an object that is no lens, and return its class and its scene."""
    shares = [impostor.share for impostor in NON_LENSES.values()]
    name = str(rng.choice(list(NON_LENSES), p=shares))
    galaxy = draw_galaxy(rng)
    return name, NON_LENSES[name].draw(rng, galaxy)


def _draw_elliptical(rng: np.random.Generator, galaxy: Galaxy) -> Scene:
    return Scene(galaxy.z, (galaxy.light,))


def _draw_companions(rng: np.random.Generator, galaxy: Galaxy) -> Scene:
    """Draw an elliptical with blue companions.

    They are stretched around it, as arcs are, but straight and unrelated.
    """
    companions = []
    for _ in range(rng.integers(1, 4)):
        distance = rng.uniform(1.0, 2.6)
        angle = rng.uniform(0, 2 * math.pi)
        companion = Light(
            x=galaxy.light.x + distance * math.cos(angle),
            y=galaxy.light.y + distance * math.sin(angle),
            q=rng.uniform(0.25, 0.6),
            phi=angle + math.pi / 2 + rng.normal(0, 0.35),
            n=1.0,
            radius=rng.uniform(0.25, 0.6),
            mag_i=rng.normal(22.4, 0.6),
            color_gi=draw_blue_color(rng),
        )
        companions.append(companion)
    return Scene(galaxy.z, (galaxy.light, *companions))


def _draw_spiral(rng: np.random.Generator, galaxy: Galaxy) -> Scene:
    q = rng.uniform(0.45, 1)
    radius = rng.uniform(0.9, 1.9)
    arms = rng.uniform(0.5, 0.95)
    return _draw_disc_galaxy(rng, galaxy, q, radius, arms)


def _draw_edge_on(rng: np.random.Generator, galaxy: Galaxy) -> Scene:
    q = rng.uniform(0.12, 0.25)
    radius = rng.uniform(1.0, 2.0)
    return _draw_disc_galaxy(rng, galaxy, q, radius, arms=0)


def _draw_disc_galaxy(
    rng: np.random.Generator, galaxy: Galaxy, q: float, radius: float, arms: float
) -> Scene:
    """Draw a red bulge and a bluer disc, which together are as bright as the galaxy."""
    bulge_share = rng.uniform(0.25, 0.6)
    bulge = replace(
        galaxy.light,
        radius=rng.uniform(0.25, 0.5),
        mag_i=_magnitude_of_share(galaxy, bulge_share),
        n=3.0,
        color_gi=galaxy.light.color_gi - rng.uniform(0, 0.4),
    )
    disc = replace(
        galaxy.light,
        q=q,
        radius=radius,
        n=1.0,
        arms=arms,
        mag_i=_magnitude_of_share(galaxy, 1 - bulge_share),
        color_gi=rng.normal(1.2, 0.3),
    )

    # A disc galaxy that is as bright as an elliptical is nearer.
    z = galaxy.z * rng.uniform(0.6, 1.0)
    return Scene(z, (bulge, disc))


def _draw_ring(rng: np.random.Generator, galaxy: Galaxy) -> Scene:
    """Draw a red galaxy with a concentric blue ring.

    The ring is wider and smoother than an Einstein ring, and seen at an angle.
    """
    ring = replace(
        galaxy.light,
        q=rng.uniform(0.5, 1),
        radius=rng.uniform(1.1, 2.2),
        ring_width=rng.uniform(0.2, 0.4),
        mag_i=rng.normal(21.2, 0.5),
        color_gi=rng.normal(0.8, 0.3),
    )
    return Scene(galaxy.z, (galaxy.light, ring))


def _draw_merger(rng: np.random.Generator, galaxy: Galaxy) -> Scene:
    """Draw two galaxies of similar brightness, and the debris between them."""
    distance = rng.uniform(0.8, 2.2)
    angle = rng.uniform(0, 2 * math.pi)
    share = rng.uniform(0.5, 0.75)
    main = replace(galaxy.light, mag_i=_magnitude_of_share(galaxy, share))

    other = replace(
        galaxy.light,
        x=main.x + distance * math.cos(angle),
        y=main.y + distance * math.sin(angle),
        q=rng.uniform(0.4, 0.9),
        phi=rng.uniform(0, math.pi),
        n=rng.uniform(1, 4),
        radius=rng.uniform(0.4, 0.9),
        mag_i=_magnitude_of_share(galaxy, 1 - share),
        color_gi=galaxy.light.color_gi - rng.uniform(0, 1),
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
        mag_i=galaxy.light.mag_i + rng.uniform(1.5, 2.5),
        color_gi=rng.normal(1.0, 0.3),
    )
    return Scene(galaxy.z, (main, other, tail))


def _magnitude_of_share(galaxy: Galaxy, share: float) -> float:
    """Return the magnitude in i of a share of a galaxy's light."""
    return galaxy.light.mag_i - 2.5 * math.log10(share)


class Impostor(NamedTuple):
    """A class of non-lenses."""

    share: float
    """How many of all non-lenses are of this class."""
    draw: Callable[[np.random.Generator, Galaxy], Scene]


NON_LENSES = {
    "elliptical_companions": Impostor(0.30, _draw_companions),
    "elliptical": Impostor(0.20, _draw_elliptical),
    "spiral": Impostor(0.20, _draw_spiral),
    "ring": Impostor(0.10, _draw_ring),
    "merger": Impostor(0.10, _draw_merger),
    "edge_on": Impostor(0.10, _draw_edge_on),
}
"""All classes of non-lenses, by the name that they have in the catalogue."""
