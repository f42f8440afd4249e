"""What is painted upon a real galaxy: a mass that follows its light, and a source behind it."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lens_hpc.errors import UserError
from lens_hpc.sky.cosmology import MAXIMUM_Z
from lens_hpc.sky.deflection import Lens, einstein_radius, velocity_dispersion
from lens_hpc.sky.ellipses import measure_ellipse
from lens_hpc.sky.laws import DeflectorLaw, SourceLaw, SourceValue, ValueLaw
from lens_hpc.sky.luminosity import draw_velocity_dispersion
from lens_hpc.sky.pictured_source import Picture
from lens_hpc.sky.rays import Source
from lens_hpc.sky.sources import (
    SourceGalaxies,
    SourceGalaxy,
    draw_discs,
    draw_magnitudes,
    draw_value,
    place_picture,
)

MOST_ATTEMPTS = 1000
# Masses are never flatter than this, nor quite round, as in `sky.lenses`.
FLATTEST = 0.5
ROUNDEST = 0.98
# With coordinates of double precision no wider core is needed, arcsec.
CORE_ARCSEC = 1e-6


@dataclass(frozen=True)
class HostGalaxy:
    """The galaxy in the middle of a cutout: what its picture and its catalogue say of it."""

    x: float
    """Arcsec from the middle of the cutout, along its rows."""
    y: float
    """Arcsec from the middle of the cutout, along its columns."""
    q: float
    """Axis ratio of the light."""
    phi: float
    """Position angle of the light, radians from x towards y."""
    z: float = math.nan
    """Redshift; NaN where unknown, as below."""
    sigma_v: float = math.nan
    """Velocity dispersion, km/s."""
    magnitude: float = math.nan
    """In i (AB)."""


class Injection(NamedTuple):
    """A lens and its source, before they are painted."""

    lens: Lens
    sources: tuple[Source, ...]
    """The disc first, then its clumps; or a galaxy. Their magnitudes stand in `magnitudes`."""
    magnitudes: np.ndarray
    """AB magnitude of each source in each band, before lensing, (sources, bands)."""
    z_lens: float
    """NaN where unknown."""
    z_source: float
    sigma_v: float
    """That of an isothermal sphere of the Einstein radius, km/s; NaN where z_lens is."""
    galaxy: str | None
    """Id of the real galaxy that is the source; None for a disc."""

    def source_magnitudes(self) -> np.ndarray:
        """Return the magnitude of all sources together in each band, (bands,)."""
        return -2.5 * np.log10((10 ** (-0.4 * self.magnitudes)).sum(axis=0))


class CannotLensError(UserError):
    """A host is too light, or too far away, for an Einstein radius between the law's bounds."""


def measure_light(
    cutout: np.ndarray, pixel_scale: float, psf: np.ndarray | None = None
) -> HostGalaxy:
    """Return centre and shape of the galaxy in the middle of a cutout, (bands, height, width).

    `pixel_scale` is in arcsec. With the PSF of each band, (bands, k, k), the axis ratio is about
    that before the seeing. Where there is no galaxy, it is a round one in the middle.
    """
    ellipse = measure_ellipse(cutout, psf)
    return HostGalaxy(ellipse.x * pixel_scale, ellipse.y * pixel_scale, ellipse.q, ellipse.phi)


class _Pair(NamedTuple):
    """A mass and a source behind it, before their shapes are drawn."""

    theta_e: float
    z_lens: float
    z_source: float
    galaxy: SourceGalaxy | None
    """None for a disc."""
    picture: Picture | None
    """That of the galaxy."""


def draw_injection(
    rng: np.random.Generator,
    host: HostGalaxy,
    deflector: DeflectorLaw,
    sources: SourceLaw,
    bands: tuple[str, ...],
    galaxies: SourceGalaxies | None = None,
) -> Injection:
    """Draw a mass for a host and a source behind it: a disc, or one of the `galaxies`.

    A galaxy whose picture shows none is passed over. Raise CannotLensError where no Einstein radius
    lies between the bounds of the law, and UserError where the law needs of the host what is not
    known.
    """
    pair = _draw_pair(rng, host, deflector, sources.z, galaxies)
    lens = _draw_mass(rng, host, deflector, pair.theta_e)
    if pair.picture is None:
        drawn = draw_discs(rng, lens, sources)
    else:
        drawn = place_picture(rng, lens, sources, pair.picture)

    # The magnitude is that of all together, and all are of one colour.
    share_magnitudes = -2.5 * np.log10(drawn.shares)
    magnitudes = share_magnitudes[:, None] + draw_magnitudes(rng, sources, pair.galaxy, bands)

    z_lens, z_source = pair.z_lens, pair.z_source
    sigma_v = math.nan
    if math.isfinite(z_lens):
        sigma_v = velocity_dispersion(pair.theta_e, z_lens, z_source)
    name = pair.galaxy.name if pair.galaxy else None
    return Injection(lens, drawn.lights, magnitudes, z_lens, z_source, sigma_v, name)


def _draw_pair(
    rng: np.random.Generator,
    host: HostGalaxy,
    law: DeflectorLaw,
    source_z: SourceValue,
    galaxies: SourceGalaxies | None,
) -> _Pair:
    """Draw an Einstein radius, the redshift of the lens, and a source that lies behind it."""
    for _ in range(MOST_ATTEMPTS):
        z_lens = law.z_lens.draw(rng) if isinstance(law.z_lens, ValueLaw) else host.z
        galaxy = galaxies.draw(rng) if galaxies else None
        z_source = draw_value(rng, source_z, galaxy)
        is_possible = z_source > 0 if math.isnan(z_lens) else 0 < z_lens < z_source <= MAXIMUM_Z
        if not is_possible:
            continue
        theta_e = _draw_einstein_radius(rng, host, law, z_lens, z_source)
        if theta_e is None:
            continue

        # A picture is looked at only where the galaxy would be taken.
        picture = galaxy.picture() if galaxy else None
        if galaxy is None or picture is not None:
            return _Pair(theta_e, z_lens, z_source, galaxy, picture)

    raise CannotLensError(
        f"none of {MOST_ATTEMPTS} draws gave a galaxy of z = {host.z:.3g}, velocity dispersion "
        f"{host.sigma_v:.4g} km/s and i = {host.magnitude:.4g} an Einstein radius of "
        f"{law.within[0]:g} to {law.within[1]:g} arcsec and a source behind it; "
        "choose heavier hosts, or change deflector.within or sources.z"
    )


def _draw_einstein_radius(
    rng: np.random.Generator, host: HostGalaxy, law: DeflectorLaw, z_lens: float, z_source: float
) -> float | None:
    """Return an Einstein radius; None where that of the host is beyond the law's bounds."""
    if law.einstein_radius:
        return law.einstein_radius.draw(rng)
    theta_e = einstein_radius(_draw_sigma_v(rng, host, law, z_lens), z_lens, z_source)
    return theta_e if law.within[0] <= theta_e <= law.within[1] else None


def _draw_sigma_v(
    rng: np.random.Generator, host: HostGalaxy, law: DeflectorLaw, z_lens: float
) -> float:
    if not math.isfinite(z_lens):
        raise UserError(
            f"the host's redshift, {law.z_lens}, is not known; choose hosts that have one, or give "
            "deflector.z_lens as a distribution"
        )
    if law.sigma_v and math.isfinite(host.sigma_v):
        return host.sigma_v
    if law.magnitude and math.isfinite(host.magnitude):
        return draw_velocity_dispersion(rng, host.magnitude, z_lens)
    raise UserError(
        "of a host neither velocity dispersion nor magnitude is known; choose hosts that have one, "
        "or give deflector.einstein_radius"
    )


def _draw_mass(
    rng: np.random.Generator, host: HostGalaxy, law: DeflectorLaw, theta_e: float
) -> Lens:
    """Draw a mass that follows the light of its galaxy, roughly, and the shear around it."""
    shear = rng.rayleigh(law.shear)
    angle = rng.uniform(0, math.pi)
    q = host.q + rng.normal(0, law.q_scatter)
    phi = host.phi + rng.normal(0, law.angle_scatter)
    return Lens(
        x=host.x,
        y=host.y,
        q=float(np.clip(q, FLATTEST, ROUNDEST)),
        phi=phi,
        theta_e=theta_e,
        gamma_1=shear * math.cos(2 * angle),
        gamma_2=shear * math.sin(2 * angle),
        core=CORE_ARCSEC,
    )
