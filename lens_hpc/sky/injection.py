"""What is painted upon a real galaxy: a mass that follows its light, and a source behind it."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lens_hpc.errors import UserError
from lens_hpc.sky.deflection import Lens, einstein_radius, velocity_dispersion
from lens_hpc.sky.ellipses import measure_ellipse
from lens_hpc.sky.laws import DeflectorLaw, SourceLaw, ValueLaw
from lens_hpc.sky.light import Light
from lens_hpc.sky.luminosity import draw_velocity_dispersion

MOST_ATTEMPTS = 1000
# Masses are never flatter than this, nor quite round, as in `sky.lenses`.
FLATTEST = 0.5
ROUNDEST = 0.98
# With coordinates of double precision no wider core is needed, arcsec.
CORE_ARCSEC = 1e-6
# A clump's half-light radius (arcsec), by how many magnitudes it is fainter than the disc, and how
# far clumps scatter (sigma, in radii of the disc): those of `sky.lenses`.
CLUMP_RADIUS = (0.04, 0.08)
CLUMP_FAINTER = (1.5, 3.0)
CLUMP_SCATTER = 0.6


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
    sources: tuple[Light, ...]
    """The disc first, then its clumps. Their magnitudes stand in `magnitudes`."""
    magnitudes: np.ndarray
    """AB magnitude of each source in each band, before lensing, (sources, bands)."""
    z_lens: float
    """NaN where unknown."""
    z_source: float
    sigma_v: float
    """That of an isothermal sphere of the Einstein radius, km/s; NaN where z_lens is."""

    def source_magnitudes(self) -> np.ndarray:
        """Return the magnitude of disc and clumps together in each band, (bands,)."""
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


def draw_injection(
    rng: np.random.Generator,
    host: HostGalaxy,
    deflector: DeflectorLaw,
    sources: SourceLaw,
    bands: tuple[str, ...],
) -> Injection:
    """Draw a mass for a host and a source behind it.

    Raise CannotLensError where no Einstein radius lies between the bounds of the law, and UserError
    where the law needs of the host what is not known.
    """
    theta_e, z_lens, z_source = _draw_einstein_radius(rng, host, deflector, sources.z)
    lens = _draw_mass(rng, host, deflector, theta_e)
    disc = _draw_disc(rng, lens, sources)
    lights, fainter = _draw_clumps(rng, disc, sources.clumps)

    # The magnitude is that of disc and clumps together, and all are of one colour.
    shares = 10 ** (-0.4 * fainter)
    share_magnitudes = -2.5 * np.log10(shares / shares.sum())
    magnitudes = share_magnitudes[:, None] + _draw_magnitudes(rng, sources, bands)

    sigma_v = velocity_dispersion(theta_e, z_lens, z_source) if math.isfinite(z_lens) else math.nan
    return Injection(lens, lights, magnitudes, z_lens, z_source, sigma_v)


def _draw_einstein_radius(
    rng: np.random.Generator, host: HostGalaxy, law: DeflectorLaw, source_z: ValueLaw
) -> tuple[float, float, float]:
    """Return an Einstein radius, the redshift of the lens and that of the source."""
    for _ in range(MOST_ATTEMPTS):
        z_lens = law.z_lens.draw(rng) if isinstance(law.z_lens, ValueLaw) else host.z
        z_source = source_z.draw(rng)
        if not z_lens < z_source and math.isfinite(z_lens):
            continue
        if law.einstein_radius:
            return law.einstein_radius.draw(rng), z_lens, z_source

        sigma_v = _draw_sigma_v(rng, host, law, z_lens)
        theta_e = einstein_radius(sigma_v, z_lens, z_source)
        if law.within[0] <= theta_e <= law.within[1]:
            return theta_e, z_lens, z_source

    raise CannotLensError(
        f"none of {MOST_ATTEMPTS} draws gave a galaxy of z = {host.z:.3g}, velocity dispersion "
        f"{host.sigma_v:.4g} km/s and i = {host.magnitude:.4g} an Einstein radius of "
        f"{law.within[0]:g} to {law.within[1]:g} arcsec and a source behind it; "
        "choose heavier hosts, or change deflector.within or sources.z"
    )


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


def _draw_disc(rng: np.random.Generator, lens: Lens, law: SourceLaw) -> Light:
    """Draw the disc of a source, anywhere in a circle around the lens's centre."""
    distance = law.within * lens.theta_e * math.sqrt(rng.uniform())
    angle = rng.uniform(0, 2 * math.pi)
    return Light(
        x=lens.x + distance * math.cos(angle),
        y=lens.y + distance * math.sin(angle),
        q=law.q.draw(rng),
        phi=rng.uniform(0, math.pi),
        n=law.n.draw(rng),
        radius=law.radius.draw(rng),
        mag_i=math.nan,
        color_gi=math.nan,
    )


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


def _draw_magnitudes(
    rng: np.random.Generator, law: SourceLaw, bands: tuple[str, ...]
) -> np.ndarray:
    """Return the magnitude of a source in each band, (bands,)."""
    magnitude = law.magnitude.draw(rng)
    # Drawn in the order of the law, whichever bands there are.
    colors = {band: color.draw(rng) for band, color in law.colors.items()}
    colors[law.band] = 0.0
    return np.array([magnitude + colors[band] for band in bands])
