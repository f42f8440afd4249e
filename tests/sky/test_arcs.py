"""Arcs are compared with what theory says, and with ray shooting that is written anew here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.ndimage import gaussian_filter
from scipy.special import erf, gammaincinv

from lens_hpc.sky.arcs import arc_mask, paint_arcs
from lens_hpc.sky.deflection import Lens
from lens_hpc.sky.light import Light
from lens_hpc.sky.psf import moffat_stamp
from tests.sky.components import light

HSC_SCALE = 0.168
# A Gaussian's FWHM in sigmas.
FWHM = 2 * math.sqrt(2 * math.log(2))


@dataclass
class Disc:
    """A uniform disc of that edge."""

    x: float
    y: float
    edge: float
    q: float = 1.0

    @property
    def radius(self) -> float:
        return self.edge / math.sqrt(2)

    @property
    def reach(self) -> float:
        return self.edge

    def brightness(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        is_inside = (x - self.x) ** 2 + (y - self.y) ** 2 < self.edge**2
        return is_inside.double() / (math.pi * self.edge**2)


def sphere(theta_e: float, x: float = 0.0, y: float = 0.0) -> Lens:
    return Lens(x=x, y=y, q=1.0, phi=0.0, theta_e=theta_e, gamma_1=0.0, gamma_2=0.0, core=1e-6)


def gaussian_stamp(sigma: float) -> np.ndarray:
    """A star's image averaged over pixels, (1, k, k); sigma in pixels."""
    half = math.ceil(6 * sigma)
    edges = (np.arange(-half, half + 2) - 0.5) / (math.sqrt(2) * sigma)
    line = np.diff(erf(edges)) / 2
    return (line[:, None] * line)[None]


def disc_magnification(theta_e: float, edge: float, distance: float) -> float:
    """Of a uniform disc at some distance behind an isothermal sphere.

    A point at beta is magnified by 2 theta_e / beta where it has two images, within theta_e, and by
    1 + theta_e / beta outside (Narayan & Bartelmann 1996, astro-ph/9606001, section 3.1.4). This is
    integrated in circles around the lens. A centred disc smaller than theta_e comes to
    4 theta_e / edge: its image is the ring from theta_e - edge to theta_e + edge.
    """

    def light_at(beta: float) -> float:
        if beta <= edge - distance:
            arc = 2 * math.pi
        else:
            cosine = (beta**2 + distance**2 - edge**2) / (2 * beta * distance)
            arc = 2 * math.acos(min(1.0, max(-1.0, cosine)))
        points = 2 * theta_e if beta < theta_e else beta + theta_e
        return points * arc

    nearest, farthest = max(0.0, distance - edge), distance + edge
    kinks = [beta for beta in (abs(edge - distance), theta_e) if nearest < beta < farthest]
    area, _ = quad(light_at, nearest, farthest, points=kinks, limit=200)
    return area / (math.pi * edge**2)


def test_the_formula_for_a_disc_is_that_of_a_ring_where_it_is_centred() -> None:
    assert disc_magnification(1.2, 0.3, 0.0) == pytest.approx(4 * 1.2 / 0.3)
    # A disc beyond theta_e is imaged onto all within theta_e + edge.
    assert disc_magnification(0.5, 1.0, 0.0) == pytest.approx((1 + 0.5) ** 2)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("share_of_theta_e", [0.0, 0.4, 1.0, 1.5])
def test_the_flux_of_images_is_the_magnification_times_that_of_the_source(
    seed: int, share_of_theta_e: float
) -> None:
    rng = np.random.default_rng(seed)
    theta_e, edge = rng.uniform(0.7, 2), rng.uniform(0.1, 0.6)
    lens = sphere(theta_e, *rng.uniform(-0.2, 0.2, 2))
    distance, angle = share_of_theta_e * theta_e, rng.uniform(0, 2 * math.pi)
    disc = Disc(lens.x + distance * math.cos(angle), lens.y + distance * math.sin(angle), edge)

    psf = gaussian_stamp(1.5)
    flux = np.array([[3.0]])
    arcs = paint_arcs(lens, [disc], flux, (96, 96), HSC_SCALE, psf)
    expected = disc_magnification(theta_e, edge, distance)
    assert arcs.magnification == pytest.approx(expected, rel=1e-3)
    # All of it lies within the cutout.
    assert arcs.flux.sum() == pytest.approx(3 * expected, rel=1e-3)


@pytest.mark.parametrize("theta_e", [0.6, 1.1, 2.5])
def test_a_source_behind_the_centre_becomes_a_ring_of_the_einstein_radius(theta_e: float) -> None:
    lens, edge, sigma = sphere(theta_e, 0.05, -0.03), 0.1, 1.5
    disc = Disc(lens.x, lens.y, edge)
    arcs = paint_arcs(lens, [disc], np.ones((1, 1)), (64, 64), HSC_SCALE, gaussian_stamp(sigma))
    picture = arcs.flux[0]

    # Mean squares of radii add up: of the ring (theta_e^2 + edge^2), of the seeing, of a pixel.
    y, x = np.indices(picture.shape)
    column = x - 31.5 - lens.x / HSC_SCALE
    row = y - 31.5 - lens.y / HSC_SCALE
    mean_square = (picture * (column**2 + row**2)).sum() / picture.sum()
    seeing = 2 * sigma**2 + 2 / 12
    radius = math.sqrt(mean_square - seeing - (edge / HSC_SCALE) ** 2)
    assert radius == pytest.approx(theta_e / HSC_SCALE, abs=0.1)


def test_sources_without_flux_paint_exact_zeros() -> None:
    psf = np.stack([moffat_stamp(0.7, HSC_SCALE)] * 2)
    arcs = paint_arcs(sphere(1.0), [light()], np.zeros((1, 2)), (24, 31), HSC_SCALE, psf)
    assert arcs.flux.shape == (2, 24, 31)
    assert not arcs.flux.any()
    assert math.isnan(arcs.magnification)


def test_magnification_counts_images_outside_of_the_cutout() -> None:
    disc = Disc(0.0, 0.0, 0.3)
    psf = gaussian_stamp(1.0)
    arcs = paint_arcs(sphere(2.0), [disc], np.ones((1, 1)), (9, 9), HSC_SCALE, psf)
    assert arcs.magnification == pytest.approx(4 * 2.0 / 0.3, rel=1e-3)
    assert arcs.flux.sum() < 0.1 * arcs.magnification


def test_a_source_without_a_lens_keeps_its_flux_and_place() -> None:
    """Also where it is smaller than a pixel: the smallest clump, anywhere in one."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = rng.uniform(-0.5, 0.5, 2)
        source = light(x=x, y=y, n=0.5, radius=0.04, q=1.0)
        psf = gaussian_stamp(1.5)
        lens = sphere(1e-9)
        arcs = paint_arcs(lens, [source], np.ones((1, 1)), (40, 41), HSC_SCALE, psf)
        assert arcs.magnification == pytest.approx(1, abs=1e-3)

        rows, columns = np.indices((40, 41))
        assert (arcs.flux[0] * (columns - 20)).sum() == pytest.approx(x / HSC_SCALE, abs=0.02)
        assert (arcs.flux[0] * (rows - 19.5)).sum() == pytest.approx(y / HSC_SCALE, abs=0.02)


def test_each_band_has_its_fluxes_and_its_psf() -> None:
    sources = [light(x=0.3, radius=0.2), light(x=-0.1, y=0.2, radius=0.06, q=1.0, n=0.5)]
    fluxes = np.array([[1.0, 4.0], [0.5, 0.1]])
    sharp, blurred = moffat_stamp(0.5, HSC_SCALE), moffat_stamp(0.8, HSC_SCALE)
    psf = np.stack([np.pad(sharp, (len(blurred) - len(sharp)) // 2), blurred])
    lens = sphere(1.2)
    both = paint_arcs(lens, sources, fluxes, (48, 48), HSC_SCALE, psf).flux
    for band in range(2):
        alone = paint_arcs(lens, sources, fluxes[:, [band]], (48, 48), HSC_SCALE, psf[[band]])
        # Rays are shared among bands, so that they are not quite the same ones.
        np.testing.assert_allclose(both[band], alone.flux[0], atol=2e-3 * alone.flux.max())


def test_the_mask_is_where_an_arc_stands_out_in_any_band() -> None:
    flux = np.zeros((2, 3, 3))
    flux[0, 0, 0], flux[1, 1, 1], flux[1, 2, 2] = 1.5, 2.5, 1.5
    expected = np.zeros((3, 3), dtype=bool)
    expected[0, 0] = expected[1, 1] = True
    np.testing.assert_array_equal(arc_mask(flux, np.array([1.0, 2.0])), expected)


# ---- against ray shooting ----


@pytest.mark.parametrize("seed", range(3))
def test_pixels_agree_with_fine_ray_shooting(seed: int) -> None:
    compare_with_ray_shooting(seed, size=40, pixel_scale=HSC_SCALE, seeing=0.6, step=0.012)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(114, 126))
@pytest.mark.parametrize(
    ("size", "pixel_scale", "seeing"), [(64, HSC_SCALE, 0.6), (60, 0.1, 0.18), (40, 0.263, 0.9)]
)
def test_pixels_of_any_survey_agree_with_fine_ray_shooting(
    seed: int, size: int, pixel_scale: float, seeing: float
) -> None:
    """Rays are closer together here: a cusp needs it where the PSF is sharp."""
    compare_with_ray_shooting(seed, size, pixel_scale, seeing, step=0.006)


def compare_with_ray_shooting(
    seed: int, size: int, pixel_scale: float, seeing: float, step: float
) -> None:
    lens, sources, fluxes = random_scene(np.random.default_rng(seed))
    sigma = seeing / pixel_scale / FWHM
    psf = gaussian_stamp(sigma)
    arcs = paint_arcs(lens, sources, fluxes[:, None], (size, size), pixel_scale, psf)
    expected = shoot_rays(lens, sources, fluxes, size, pixel_scale, sigma, step)
    difference = np.abs(arcs.flux[0] - expected).max()
    assert difference < 0.01 * expected.max()


def random_scene(rng: np.random.Generator) -> tuple[Lens, list[Light], np.ndarray]:
    theta_e = rng.uniform(0.5, 1.6)
    lens = Lens(
        x=rng.uniform(-0.2, 0.2),
        y=rng.uniform(-0.2, 0.2),
        q=rng.uniform(0.5, 0.98),
        phi=rng.uniform(0, math.pi),
        theta_e=theta_e,
        gamma_1=rng.normal(0, 0.05),
        gamma_2=rng.normal(0, 0.05),
        core=1e-6,
    )
    distance, angle = rng.uniform(0, 0.8) * theta_e, rng.uniform(0, 2 * math.pi)
    x, y = lens.x + distance * math.cos(angle), lens.y + distance * math.sin(angle)
    disc = light(
        x=x,
        y=y,
        q=rng.uniform(0.4, 1),
        phi=rng.uniform(0, math.pi),
        n=rng.uniform(0.7, 2.5),
        radius=rng.uniform(0.1, 0.4),
    )
    clumps = [
        light(x=x + rng.normal(0, 0.15), y=y + rng.normal(0, 0.15), q=1.0, n=0.5, radius=radius)
        for radius in rng.uniform(0.04, 0.08, rng.integers(0, 4))
    ]
    return lens, [disc, *clumps], np.array([1.0, *[0.1] * len(clumps)])


def shoot_rays(
    lens: Lens,
    sources: Sequence[Light],
    fluxes: np.ndarray,
    size: int,
    pixel_scale: float,
    sigma: float,
    step: float,
) -> np.ndarray:
    """Rays through a fine regular grid, a Gaussian PSF on it, and the mean in each pixel."""
    fine = round(pixel_scale / step)
    margin = math.ceil(5 * sigma)
    points = (size + 2 * margin) * fine
    axis = (np.arange(points) - (points - 1) / 2) * pixel_scale / fine
    x, y = np.meshgrid(axis, axis)
    bend_x, bend_y = isothermal_ellipsoid(lens, x - lens.x, y - lens.y)
    shear_x = lens.gamma_1 * (x - lens.x) + lens.gamma_2 * (y - lens.y)
    shear_y = lens.gamma_2 * (x - lens.x) - lens.gamma_1 * (y - lens.y)

    picture = np.zeros_like(x)
    for source, flux in zip(sources, fluxes, strict=True):
        picture += flux * sersic(source, x - bend_x - shear_x, y - bend_y - shear_y)
    blurred = gaussian_filter(picture * (pixel_scale / fine) ** 2, sigma * fine, truncate=5)
    pixels = blurred.reshape(size + 2 * margin, fine, size + 2 * margin, fine).sum(axis=(1, 3))
    return pixels[margin:-margin, margin:-margin]


def isothermal_ellipsoid(lens: Lens, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kormann et al. 1994 (A&A 284, 285), equation 27, with the major axis first."""
    u = x * math.cos(lens.phi) + y * math.sin(lens.phi)
    v = y * math.cos(lens.phi) - x * math.sin(lens.phi)
    radius = np.hypot(u, v)
    f = lens.q
    f_prime = math.sqrt(1 - f**2)
    scale = lens.theta_e * math.sqrt(f) / f_prime
    bend_u = scale * np.arcsin(f_prime * u / radius)
    bend_v = scale * np.arcsinh(f_prime / f * v / radius)
    bend_x = bend_u * math.cos(lens.phi) - bend_v * math.sin(lens.phi)
    bend_y = bend_u * math.sin(lens.phi) + bend_v * math.cos(lens.phi)
    return bend_x, bend_y


def sersic(source: Light, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Graham & Driver 2005, PASA 22, 118, equations 1 and 4, for a total flux of 1."""
    u = (x - source.x) * math.cos(source.phi) + (y - source.y) * math.sin(source.phi)
    v = (y - source.y) * math.cos(source.phi) - (x - source.x) * math.sin(source.phi)
    n = source.n
    b = gammaincinv(2 * n, 0.5)
    total = (
        2 * math.pi * n * source.radius**2 * math.exp(b) * b ** (-2 * n) * math.gamma(2 * n)
    ) * source.q
    depth = b * ((np.hypot(u, v / source.q) / source.radius) ** (1 / n) - 1)
    return np.exp(-depth) / total
