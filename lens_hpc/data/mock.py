"""The sky of the mock survey: lenses, and what people mistake for them.

An object is a handful of light components. Each has a surface brightness on the plane of the sky, or, behind a lens,
on the source plane, where caustics' deflection angles put every line of sight. All share one parent population of
massive ellipticals, as a survey would select its targets, so that brightness alone does not tell a lens.

Units: angles in arcsec, position angles in radians, fluxes such that one unit is magnitude ZERO_POINT.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np
import torch
from astropy.cosmology import FlatLambdaCDM
from caustics.lenses.func import reduced_deflection_angle_external_shear, reduced_deflection_angle_sie
from caustics.light.func import brightness_sersic, k_sersic
from caustics.utils import translate_rotate

from lens_hpc import UserError

ZERO_POINT = 27.0
# Electrons a flux unit of a coadd of some 20 minutes on an 8 m telescope: sets the Poisson noise.
GAIN = 2000.0
OVERSAMPLING = 3
MARGIN_PIXELS = 4
SPEED_OF_LIGHT_KM_S = 299_792.458
ARCSEC = math.degrees(1) * 3600
MOFFAT_BETA = 3.0

# Seeing (FWHM, arcsec) and 5 sigma depth in a 2 arcsec aperture, close to those of the wide layer of HSC-SSP
# (Aihara et al. 2018, PASJ 70, S4).
SEEING = {"g": 0.77, "r": 0.76, "i": 0.58, "z": 0.68, "y": 0.68}
DEPTH = {"g": 26.5, "r": 26.1, "i": 25.9, "z": 25.1, "y": 24.4}
# A spectrum is a magnitude in i and a colour g - i: magnitude(band) = mag_i + colour * COLOUR_SHARE[band].
COLOUR_SHARE = {"g": 1.0, "r": 0.35, "i": 0.0, "z": -0.12, "y": -0.2}

# An arc counts as visible when the images together are this much brighter than their source, and stand out of the
# noise (sky and the lens galaxy's photons) and out of the galaxy by this much in the best band.
MINIMUM_MAGNIFICATION = 3.0
MINIMUM_SIGNAL_TO_NOISE = 60.0
MINIMUM_PIXELS_ABOVE_GALAXY = 40
MOST_ATTEMPTS = 10_000


@dataclass(frozen=True)
class Light:
    """A Sersic ellipse (q = axis ratio, phi = position angle, n = index, radius = half-light), or a variation of it."""

    x: float
    y: float
    q: float
    phi: float
    n: float
    radius: float
    mag_i: float
    color_gi: float
    arms: float = 0.0
    """Amplitude of two logarithmic spiral arms, 0 to 1."""
    ring_width: float = 0.0
    """Above 0: not a Sersic profile but a Gaussian ring of that width (sigma) at `radius`."""

    def flux(self, bands: Sequence[str]) -> torch.Tensor:
        """Total flux in each band, before lensing."""
        magnitudes = [self.mag_i + self.color_gi * COLOUR_SHARE[band] for band in bands]
        return torch.tensor([10 ** (-0.4 * (magnitude - ZERO_POINT)) for magnitude in magnitudes])

    def brightness(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Surface brightness at (x, y), 1/arcsec^2, for a total flux of 1."""
        if self.ring_width:
            u, v = translate_rotate(x, y, self.x, self.y, torch.tensor(self.phi))
            distance = torch.hypot(u, v / self.q) - self.radius
            total = (2 * math.pi) ** 1.5 * self.radius * self.ring_width * self.q
            return torch.exp(-0.5 * (distance / self.ring_width) ** 2) / total
        k = k_sersic(self.n)
        # total flux of the profile: Graham & Driver 2005 (PASA 22, 118), equation 4
        total = (
            2 * math.pi * self.n * self.radius**2 * math.exp(k) * k ** (-2 * self.n) * math.gamma(2 * self.n) * self.q
        )
        phi = torch.tensor(self.phi)
        profile = brightness_sersic(self.x, self.y, self.q, phi, self.n, self.radius, 1 / total, x, y, k, s=0.01)
        return profile * self._spiral(x, y) if self.arms else profile

    def _spiral(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        u, v = translate_rotate(x, y, self.x, self.y, torch.tensor(self.phi))
        v = v / self.q
        winding = torch.atan2(v, u) - 3.0 * torch.log(torch.hypot(u, v) / self.radius + 0.1)
        return 1 + self.arms * torch.cos(2 * winding)


@dataclass(frozen=True)
class Lens:
    """A singular isothermal ellipsoid with external shear."""

    x: float
    y: float
    q: float
    phi: float
    theta_e: float
    gamma_1: float
    gamma_2: float

    def source_position(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the line of sight (x, y) meets the source plane."""
        ax, ay = reduced_deflection_angle_sie(
            self.x, self.y, torch.tensor(self.q), torch.tensor(self.phi), self.theta_e, x, y, s=1e-3
        )
        sx, sy = reduced_deflection_angle_external_shear(self.x, self.y, self.gamma_1, self.gamma_2, x, y)
        return x - ax - sx, y - ay - sy


@dataclass(frozen=True)
class Galaxy:
    """A massive elliptical: redshift, velocity dispersion (km/s) and light."""

    z: float
    sigma_v: float
    light: Light


@dataclass(frozen=True)
class Scene:
    """What is in one cutout. `sources` lie behind `lens`."""

    z: float
    lights: tuple[Light, ...]
    lens: Lens | None = None
    sources: tuple[Light, ...] = ()


@dataclass(frozen=True)
class Camera:
    """Pixels, seeing and noise of one cutout."""

    bands: tuple[str, ...]
    size: int
    pixel_scale: float
    seeing: tuple[float, ...]
    """FWHM a band, arcsec."""
    sky: tuple[float, ...]
    """Standard deviation of the sky a pixel and band, flux units."""

    def expose(self, lights: Sequence[Light], lens: Lens | None = None) -> torch.Tensor:
        """Noiseless flux a pixel, (bands, size, size); behind `lens`, if there is one."""
        x, y = _grid(self.size, self.pixel_scale)
        if lens:
            x, y = lens.source_position(x, y)
        step = self.pixel_scale / OVERSAMPLING
        flux = torch.stack([light.flux(self.bands) for light in lights])
        brightness = torch.stack([light.brightness(x, y) for light in lights])
        sharp = torch.einsum("lb,lyx->byx", flux * step**2, brightness)
        psf = torch.stack([_psf_transform(sharp.shape[-1], fwhm / step) for fwhm in self.seeing])
        blurred = torch.fft.irfft2(torch.fft.rfft2(sharp) * psf, s=sharp.shape[-2:])
        pixels = torch.nn.functional.avg_pool2d(blurred, OVERSAMPLING) * OVERSAMPLING**2
        return pixels[:, MARGIN_PIXELS:-MARGIN_PIXELS, MARGIN_PIXELS:-MARGIN_PIXELS]

    def noise(self, flux: torch.Tensor) -> torch.Tensor:
        """Standard deviation a pixel under `flux`, from the sky and the photons."""
        sky = torch.tensor(self.sky)[:, None, None]
        return torch.sqrt(sky**2 + flux.clamp(min=0) / GAIN)

    def record(self, rng: np.random.Generator, flux: torch.Tensor) -> np.ndarray:
        """One noisy exposure: float32, (bands, size, size)."""
        photons = rng.poisson(flux.clamp(min=0).double().numpy() * GAIN) / GAIN
        sky = rng.normal(size=flux.shape) * np.array(self.sky)[:, None, None]
        return (photons + sky).astype(np.float32)


def draw_camera(rng: np.random.Generator, bands: tuple[str, ...], size: int, pixel_scale: float) -> Camera:
    """Conditions of one cutout: seeing and depth vary over the survey by some per cent."""
    seeing = tuple(float(SEEING[band] * rng.lognormal(0, 0.06)) for band in bands)
    aperture_pixels = math.pi * (1.0 / pixel_scale) ** 2
    sky = [10 ** (-0.4 * (DEPTH[band] - ZERO_POINT)) / 5 / math.sqrt(aperture_pixels) for band in bands]
    return Camera(bands, size, pixel_scale, seeing, tuple(float(s * rng.lognormal(0, 0.05)) for s in sky))


@cache
def _grid(size: int, pixel_scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    points = (size + 2 * MARGIN_PIXELS) * OVERSAMPLING
    axis = (torch.arange(points, dtype=torch.float32) - (points - 1) / 2) * (pixel_scale / OVERSAMPLING)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


@lru_cache(maxsize=16)
def _psf_transform(points: int, fwhm: float) -> torch.Tensor:
    """Fourier transform of a Moffat profile of that FWHM (grid points), centred on the origin."""
    alpha = fwhm / (2 * math.sqrt(2 ** (1 / MOFFAT_BETA) - 1))
    axis = torch.fft.fftfreq(points, d=1 / points)
    profile = (1 + (axis[:, None] ** 2 + axis[None, :] ** 2) / alpha**2) ** -MOFFAT_BETA
    return torch.fft.rfft2(profile / profile.sum())


# ---- galaxies ---------------------------------------------------------------------------------------------------


@cache
def _comoving_distance() -> tuple[np.ndarray, np.ndarray]:
    z = np.linspace(0, 5, 501)
    return z, FlatLambdaCDM(H0=70, Om0=0.3).comoving_distance(z).value


def comoving_distance_mpc(z: float) -> float:
    """Comoving distance, Mpc, in a flat universe with H0 = 70 km/s/Mpc and Omega_m = 0.3."""
    return float(np.interp(z, *_comoving_distance()))


def einstein_radius(sigma_v: float, z_lens: float, z_source: float) -> float:
    """Einstein radius of an isothermal sphere, arcsec: 4 pi (sigma_v / c)^2 D_ls / D_s (Narayan & Bartelmann 1996)."""
    ratio = 1 - comoving_distance_mpc(z_lens) / comoving_distance_mpc(z_source)
    return 4 * math.pi * (sigma_v / SPEED_OF_LIGHT_KM_S) ** 2 * ratio * ARCSEC


def draw_galaxy(rng: np.random.Generator) -> Galaxy:
    """A massive elliptical, weighted by its cross-section for lensing.

    Velocity dispersions follow the modified Schechter function of Choi et al. 2007 (ApJ 658, 884: sigma* = 161 km/s,
    alpha = 2.32, beta = 2.67) times sigma^4; luminosities the Faber-Jackson relation with a scatter of 0.25 mag; and
    colours and radii, roughly, those of passive galaxies.
    """
    while True:
        z = rng.normal(0.5, 0.15)
        sigma_v = 161.0 * rng.gamma((2.32 + 4) / 2.67) ** (1 / 2.67)
        if not (0.2 < z < 0.9 and 120 < sigma_v < 400):
            continue
        distance_modulus = 5 * math.log10(comoving_distance_mpc(z) * (1 + z)) + 25
        mag_i = -22.4 - 10 * math.log10(sigma_v / 200) + distance_modulus + 0.9 * z + rng.normal(0, 0.25)
        if 17.5 < mag_i < 21.0:
            break
    light = Light(
        x=rng.normal(0, 0.05),
        y=rng.normal(0, 0.05),
        q=float(np.clip(rng.normal(0.78, 0.12), 0.45, 0.98)),
        phi=rng.uniform(0, math.pi),
        n=float(np.clip(rng.normal(4, 0.7), 2.5, 6)),
        radius=float(np.clip(0.9 * 10 ** (-0.15 * (mag_i - 19.5)) * rng.lognormal(0, 0.2), 0.35, 2.0)),
        mag_i=mag_i,
        color_gi=float(1.2 + 2.4 * min(z, 0.6) + rng.normal(0, 0.12)),
    )
    return Galaxy(z, sigma_v, light)


def draw_neighbours(rng: np.random.Generator, half_width: float) -> list[Light]:
    """Faint galaxies that happen to lie in the cutout, outside its middle."""
    lights = []
    for _ in range(rng.poisson(2.5)):
        distance, angle = half_width * math.sqrt(rng.uniform(0.2, 1.6)), rng.uniform(0, 2 * math.pi)
        lights.append(
            Light(
                x=distance * math.cos(angle),
                y=distance * math.sin(angle),
                q=rng.uniform(0.35, 1),
                phi=rng.uniform(0, math.pi),
                n=rng.uniform(0.8, 2.5),
                radius=rng.uniform(0.2, 0.6),
                mag_i=max(25 - rng.exponential(1.0), 21.0),
                color_gi=rng.normal(0.9, 0.5),
            )
        )
    return lights


def _blue(rng: np.random.Generator) -> float:
    return float(np.clip(rng.normal(0.5, 0.25), 0, 1.2))


# ---- lenses -----------------------------------------------------------------------------------------------------


def draw_lens(rng: np.random.Generator, camera: Camera) -> Scene:
    """A lens whose arcs are bright enough to see; drawn anew until they are."""
    for _ in range(MOST_ATTEMPTS):
        galaxy = draw_galaxy(rng)
        z_source = rng.normal(2.0, 0.5)
        if not galaxy.z + 0.3 < z_source < 4:
            continue
        theta_e = einstein_radius(galaxy.sigma_v, galaxy.z, z_source)
        if not 0.75 < theta_e < 0.22 * camera.size * camera.pixel_scale:
            continue
        shear, angle = rng.rayleigh(0.04), rng.uniform(0, math.pi)
        lens = Lens(
            galaxy.light.x,
            galaxy.light.y,
            float(np.clip(galaxy.light.q + rng.normal(0, 0.05), 0.5, 0.98)),
            galaxy.light.phi + rng.normal(0, 0.1),
            theta_e,
            shear * math.cos(2 * angle),
            shear * math.sin(2 * angle),
        )
        sources = _draw_source(rng, lens)
        if _visible(camera, galaxy.light, lens, sources):
            return Scene(galaxy.z, (galaxy.light,), lens, tuple(sources))
    raise UserError(
        f"no visible lens in {MOST_ATTEMPTS} draws with cutouts of {camera.size} px of {camera.pixel_scale} arcsec; "
        "use a larger size, a finer pixel_scale or more bands"
    )


def _draw_source(rng: np.random.Generator, lens: Lens) -> list[Light]:
    """A blue disc with star-forming clumps, inside or near the caustic."""
    distance, angle = 0.7 * lens.theta_e * math.sqrt(rng.uniform()), rng.uniform(0, 2 * math.pi)
    disc = Light(
        x=lens.x + distance * math.cos(angle),
        y=lens.y + distance * math.sin(angle),
        q=rng.uniform(0.4, 1),
        phi=rng.uniform(0, math.pi),
        n=1.0,
        radius=rng.uniform(0.12, 0.35),
        mag_i=rng.normal(24.0, 0.7),
        color_gi=_blue(rng),
    )
    clumps = [
        replace(
            disc,
            x=disc.x + rng.normal(0, 0.6 * disc.radius),
            y=disc.y + rng.normal(0, 0.6 * disc.radius),
            q=1.0,
            radius=rng.uniform(0.03, 0.07),
            mag_i=disc.mag_i + rng.uniform(1.5, 3),
            color_gi=disc.color_gi - rng.uniform(0, 0.3),
        )
        for _ in range(rng.integers(1, 5))
    ]
    return [disc, *clumps]


def _visible(camera: Camera, galaxy: Light, lens: Lens, sources: list[Light]) -> bool:
    arcs = camera.expose(sources, lens)
    unlensed = sum(float(light.flux(camera.bands).sum()) for light in sources)
    if arcs.sum() < MINIMUM_MAGNIFICATION * unlensed:
        return False
    glare = camera.expose([galaxy])
    noise = camera.noise(glare + arcs)
    signal_to_noise = torch.sqrt(((arcs / noise) ** 2).sum(dim=(1, 2)))
    stands_out = ((arcs > 3 * noise) & (arcs > glare)).sum(dim=(1, 2))
    return bool(((signal_to_noise > MINIMUM_SIGNAL_TO_NOISE) & (stands_out > MINIMUM_PIXELS_ABOVE_GALAXY)).any())


# ---- what people mistake for lenses -----------------------------------------------------------------------------


def _elliptical(rng: np.random.Generator, galaxy: Galaxy) -> Scene:
    return Scene(galaxy.z, (galaxy.light,))


def _companions(rng: np.random.Generator, galaxy: Galaxy) -> Scene:
    """An elliptical with blue companions that are stretched around it, as arcs are, but straight and unrelated."""
    companions = []
    for _ in range(rng.integers(1, 4)):
        distance, angle = rng.uniform(1.0, 2.6), rng.uniform(0, 2 * math.pi)
        companions.append(
            Light(
                x=galaxy.light.x + distance * math.cos(angle),
                y=galaxy.light.y + distance * math.sin(angle),
                q=rng.uniform(0.25, 0.6),
                phi=angle + math.pi / 2 + rng.normal(0, 0.35),
                n=1.0,
                radius=rng.uniform(0.25, 0.6),
                mag_i=rng.normal(22.4, 0.6),
                color_gi=_blue(rng),
            )
        )
    return Scene(galaxy.z, (galaxy.light, *companions))


def _spiral(rng: np.random.Generator, galaxy: Galaxy) -> Scene:
    q = rng.uniform(0.45, 1)
    return _disc_galaxy(rng, galaxy, q, radius=rng.uniform(0.9, 1.9), arms=rng.uniform(0.5, 0.95))


def _edge_on(rng: np.random.Generator, galaxy: Galaxy) -> Scene:
    return _disc_galaxy(rng, galaxy, rng.uniform(0.12, 0.25), radius=rng.uniform(1.0, 2.0), arms=0)


def _disc_galaxy(rng: np.random.Generator, galaxy: Galaxy, q: float, radius: float, arms: float) -> Scene:
    bulge_share = rng.uniform(0.25, 0.6)
    bulge = replace(
        galaxy.light,
        radius=rng.uniform(0.25, 0.5),
        mag_i=galaxy.light.mag_i - 2.5 * math.log10(bulge_share),
        n=3.0,
        color_gi=galaxy.light.color_gi - rng.uniform(0, 0.4),
    )
    disc = replace(
        galaxy.light,
        q=q,
        radius=radius,
        n=1.0,
        arms=arms,
        mag_i=galaxy.light.mag_i - 2.5 * math.log10(1 - bulge_share),
        color_gi=rng.normal(1.2, 0.3),
    )
    return Scene(galaxy.z * rng.uniform(0.6, 1.0), (bulge, disc))


def _ring(rng: np.random.Generator, galaxy: Galaxy) -> Scene:
    """A red galaxy with a concentric blue ring: wider and smoother than an Einstein ring, and seen at an angle."""
    ring = replace(
        galaxy.light,
        q=rng.uniform(0.5, 1),
        radius=rng.uniform(1.1, 2.2),
        ring_width=rng.uniform(0.2, 0.4),
        mag_i=rng.normal(21.2, 0.5),
        color_gi=rng.normal(0.8, 0.3),
    )
    return Scene(galaxy.z, (galaxy.light, ring))


def _merger(rng: np.random.Generator, galaxy: Galaxy) -> Scene:
    """Two galaxies of similar brightness, and the debris between them."""
    distance, angle = rng.uniform(0.8, 2.2), rng.uniform(0, 2 * math.pi)
    share = rng.uniform(0.5, 0.75)
    main = replace(galaxy.light, mag_i=galaxy.light.mag_i - 2.5 * math.log10(share))
    other = replace(
        galaxy.light,
        x=main.x + distance * math.cos(angle),
        y=main.y + distance * math.sin(angle),
        q=rng.uniform(0.4, 0.9),
        phi=rng.uniform(0, math.pi),
        n=rng.uniform(1, 4),
        radius=rng.uniform(0.4, 0.9),
        mag_i=galaxy.light.mag_i - 2.5 * math.log10(1 - share),
        color_gi=galaxy.light.color_gi - rng.uniform(0, 1),
    )
    tail = replace(
        other,
        x=main.x + 1.2 * distance * math.cos(angle + 0.5),
        y=main.y + 1.2 * distance * math.sin(angle + 0.5),
        q=rng.uniform(0.15, 0.4),
        phi=angle + rng.normal(0, 0.6),
        n=1.0,
        radius=rng.uniform(0.6, 1.2),
        mag_i=galaxy.light.mag_i + rng.uniform(1.5, 2.5),
        color_gi=rng.normal(1.0, 0.3),
    )
    return Scene(galaxy.z, (main, other, tail))


NON_LENSES: dict[str, tuple[float, Callable[[np.random.Generator, Galaxy], Scene]]] = {
    "elliptical_companions": (0.30, _companions),
    "elliptical": (0.20, _elliptical),
    "spiral": (0.20, _spiral),
    "ring": (0.10, _ring),
    "merger": (0.10, _merger),
    "edge_on": (0.10, _edge_on),
}
"""Share and author of each class of non-lens."""


def draw_non_lens(rng: np.random.Generator) -> tuple[str, Scene]:
    """(class, scene) of an object that is no lens."""
    name = str(rng.choice(list(NON_LENSES), p=[share for share, _ in NON_LENSES.values()]))
    return name, NON_LENSES[name][1](rng, draw_galaxy(rng))
