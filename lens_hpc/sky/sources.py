"""Sources drawn by a law: a disc with clumps, or a real galaxy as its picture shows it."""

import math
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np

from lens_hpc.sky.deflection import Lens
from lens_hpc.sky.laws import SourceLaw, SourceValue
from lens_hpc.sky.light import Light
from lens_hpc.sky.pictured_source import Picture, PicturedSource
from lens_hpc.sky.rays import Source

# A clump's half-light radius (arcsec), by how many magnitudes it is fainter than the disc, and how
# far clumps scatter (sigma, in radii of the disc): those of `sky.lenses`.
CLUMP_RADIUS = (0.04, 0.08)
CLUMP_FAINTER = (1.5, 3.0)
CLUMP_SCATTER = 0.6


class SourceGalaxy(Protocol):
    """A real galaxy that may be a source."""

    @property
    def name(self) -> str:
        """Its id."""

    def value(self, column: str) -> float:
        """Return what its catalogue says; NaN where it says nothing."""

    def picture(self) -> Picture | None:
        """Return its light; None where there is none to be seen."""


class SourceGalaxies(Protocol):
    """Real galaxies to draw from."""

    def draw(self, rng: np.random.Generator) -> SourceGalaxy:
        """Draw one, each as likely as any other."""


class Sources(NamedTuple):
    """Lights that lie together behind a lens."""

    lights: tuple[Source, ...]
    """The disc first, then its clumps; or the picture of a galaxy."""
    shares: np.ndarray
    """Of each in the flux of all, in every band, (sources,)."""


def draw_value(rng: np.random.Generator, value: SourceValue, galaxy: SourceGalaxy | None) -> float:
    """Draw a quantity of a source by its law, or look it up for the galaxy that was drawn."""
    if value.column is None:
        return value.draw(rng)
    assert galaxy is not None
    return galaxy.value(value.column)


def draw_magnitudes(
    rng: np.random.Generator, law: SourceLaw, galaxy: SourceGalaxy | None, bands: tuple[str, ...]
) -> np.ndarray:
    """Return the magnitude of a source in each band, (bands,)."""
    magnitude = draw_value(rng, law.magnitude, galaxy)
    # Drawn in the order of the law, whichever bands there are.
    colors = {band: draw_value(rng, color, galaxy) for band, color in law.colors.items()}
    colors[law.band] = 0.0
    return np.array([magnitude + colors[band] for band in bands])


def draw_discs(rng: np.random.Generator, lens: Lens, law: SourceLaw) -> Sources:
    """Draw a disc with clumps."""
    x, y = _draw_position(rng, lens, law)
    disc = Light(
        x=x,
        y=y,
        q=law.q.draw(rng),
        phi=rng.uniform(0, math.pi),
        n=law.n.draw(rng),
        radius=law.radius.draw(rng),
        mag_i=math.nan,
        color_gi=math.nan,
    )
    lights, fainter = _draw_clumps(rng, disc, law.clumps)
    fluxes = 10 ** (-0.4 * fainter)
    return Sources(lights, fluxes / fluxes.sum())


def place_picture(
    rng: np.random.Generator, lens: Lens, law: SourceLaw, picture: Picture
) -> Sources:
    """Lay the picture of a galaxy behind a lens, turned by any angle."""
    x, y = _draw_position(rng, lens, law)
    source = PicturedSource(picture, x, y, angle=rng.uniform(0, 2 * math.pi))
    return Sources((source,), np.ones(1))


def _draw_position(rng: np.random.Generator, lens: Lens, law: SourceLaw) -> tuple[float, float]:
    """Draw a place anywhere in a circle around the lens's centre."""
    distance = law.within * lens.theta_e * math.sqrt(rng.uniform())
    angle = rng.uniform(0, 2 * math.pi)
    return lens.x + distance * math.cos(angle), lens.y + distance * math.sin(angle)


def _draw_clumps(
    rng: np.random.Generator, disc: Light, number: tuple[int, int]
) -> tuple[tuple[Light, ...], np.ndarray]:
    """Return a disc with its clumps, and by how many magnitudes each is fainter than the disc."""
    lights = [disc]
    fainter = [0.0]
    scatter = CLUMP_SCATTER * disc.radius
    for _ in range(rng.integers(number[0], number[1] + 1)):
        clump = replace(
            disc,
            x=disc.x + rng.normal(0, scatter),
            y=disc.y + rng.normal(0, scatter),
            q=1.0,
            n=0.5,
            radius=rng.uniform(*CLUMP_RADIUS),
        )
        lights.append(clump)
        fainter.append(rng.uniform(*CLUMP_FAINTER))
    return tuple(lights), np.array(fainter)
