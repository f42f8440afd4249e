"""A picture of a galaxy is lensed as the galaxy itself would be."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lens_hpc.sky.arcs import paint_arcs
from lens_hpc.sky.deflection import Lens
from lens_hpc.sky.light import Light
from lens_hpc.sky.pictured_source import Picture, PicturedSource, cut_out_galaxy
from tests.sky.components import draw_picture, light
from tests.sky.test_arcs import (
    HSC_SCALE,
    Disc,
    disc_magnification,
    gaussian_stamp,
    random_scene,
    sphere,
)

SCALE = 0.03


def picture_of(*sources: Light | Disc, pixel_scale: float = SCALE, size: int = 121) -> Picture:
    picture = cut_out_galaxy(draw_picture(sources, pixel_scale, size), pixel_scale)
    assert picture is not None
    return picture


def random_picture(rng: np.random.Generator) -> Picture:
    """A disc with clumps, and noise, in pixels of any survey."""
    pixel_scale = rng.choice([0.02, 0.03, 0.05, 0.1])
    disc = light(radius=rng.uniform(0.1, 0.35), q=rng.uniform(0.3, 1))
    clumps = [
        light(x=rng.normal(0, 0.2), y=rng.normal(0, 0.2), q=1.0, n=0.5, radius=radius)
        for radius in rng.uniform(0.02, 0.08, rng.integers(0, 9))
    ]
    pixels = 5 * draw_picture([disc], pixel_scale, int(4 / pixel_scale))
    if clumps:
        pixels += draw_picture(clumps, pixel_scale, len(pixels))
    pixels += rng.normal(0, rng.choice([0.003, 0.02, 0.1]) * pixels.max(), pixels.shape)
    picture = cut_out_galaxy(pixels, pixel_scale)
    assert picture is not None
    return picture


def behind(
    lens: Lens, picture: Picture, distance: float, rng: np.random.Generator
) -> PicturedSource:
    angle, turned = rng.uniform(0, 2 * math.pi, 2)
    x, y = lens.x + distance * math.cos(angle), lens.y + distance * math.sin(angle)
    return PicturedSource(picture, x, y, turned)


def sphere_magnification(lens: Lens, source: PicturedSource) -> float:
    """As `disc_magnification`, summed over rings on the source plane for any source."""
    distance = math.hypot(source.x - lens.x, source.y - lens.y)
    nearest, farthest = max(0.0, distance - source.reach), distance + source.reach
    steps = 600
    beta = nearest + (np.arange(steps) + 0.5) / steps * (farthest - nearest)
    angle = (np.arange(steps) + 0.5) / steps * 2 * math.pi
    x = torch.from_numpy(lens.x + beta[:, None] * np.cos(angle))
    y = torch.from_numpy(lens.y + beta[:, None] * np.sin(angle))
    light_of_ring = source.brightness(x, y).numpy().mean(axis=1) * 2 * math.pi
    points = np.where(beta < lens.theta_e, 2 * lens.theta_e, beta + lens.theta_e)
    return float((light_of_ring * points).mean() * (farthest - nearest))


# ---- through a lens ----


@pytest.mark.parametrize("seed", range(8))
def test_the_flux_of_images_is_the_magnification_times_that_of_the_picture(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lens = sphere(rng.uniform(0.5, 1.8), *rng.uniform(-0.2, 0.2, 2))
    source = behind(lens, random_picture(rng), rng.uniform(0, 1.2) * lens.theta_e, rng)
    psf = gaussian_stamp(1.5)
    arcs = paint_arcs(lens, [source], np.array([[3.0]]), (96, 96), HSC_SCALE, psf)
    expected = sphere_magnification(lens, source)
    assert arcs.magnification == pytest.approx(expected, rel=1e-3)
    # All of it lies within the cutout.
    assert arcs.flux.sum() == pytest.approx(3 * expected, rel=1e-3)


@pytest.mark.parametrize("distance", [0.0, 0.5, 1.0])
def test_a_picture_of_a_disc_is_magnified_as_the_disc(distance: float) -> None:
    """A pixel's edge is not sharp, which changes the magnification by (pixel / edge)^2 / 4."""
    lens, edge, pixel_scale = sphere(1.0, 0.1, -0.1), 0.4, 0.01
    picture = picture_of(Disc(0.0, 0.0, edge), pixel_scale=pixel_scale, size=101)
    assert picture.radius == pytest.approx(edge / math.sqrt(2), abs=pixel_scale)
    source = PicturedSource(picture, lens.x, lens.y + distance, 0.3)
    arcs = paint_arcs(lens, [source], np.ones((1, 1)), (96, 96), HSC_SCALE, gaussian_stamp(1.5))
    assert arcs.magnification == pytest.approx(disc_magnification(1.0, edge, distance), rel=1e-3)


@pytest.mark.parametrize("theta_e", [0.6, 1.1, 2.5])
def test_a_picture_behind_the_centre_becomes_a_ring_of_the_einstein_radius(theta_e: float) -> None:
    edge, sigma = 0.1, 1.5
    picture = picture_of(Disc(0.0, 0.0, edge), pixel_scale=0.01, size=41)
    source = PicturedSource(picture, 0.05, -0.03, 0.3)
    lens = sphere(theta_e, source.x, source.y)
    arcs = paint_arcs(lens, [source], np.ones((1, 1)), (64, 64), HSC_SCALE, gaussian_stamp(sigma))

    # As with a disc that is no picture, in test_arcs.
    row, column = np.indices((64, 64)) - 31.5
    squared_radius = (column - lens.x / HSC_SCALE) ** 2 + (row - lens.y / HSC_SCALE) ** 2
    mean_square = (arcs.flux[0] * squared_radius).sum() / arcs.flux.sum()
    radius = math.sqrt(mean_square - 2 * sigma**2 - 2 / 12 - (edge / HSC_SCALE) ** 2)
    assert radius == pytest.approx(theta_e / HSC_SCALE, abs=0.1)


@pytest.mark.parametrize("seed", range(6))
def test_arcs_of_a_picture_are_those_of_the_galaxy_in_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lens, (galaxy, *_), _ = random_scene(rng)
    galaxy = replace(galaxy, n=rng.uniform(0.5, 1.5), radius=rng.uniform(0.15, 0.4))
    turned = rng.uniform(0, 2 * math.pi)
    picture = picture_of(replace(galaxy, x=0.0, y=0.0), size=181)
    source = PicturedSource(picture, galaxy.x, galaxy.y, turned)

    psf = gaussian_stamp(0.6 / HSC_SCALE / 2.355)
    arcs, expected = (
        paint_arcs(lens, [one], np.ones((1, 1)), (64, 64), HSC_SCALE, psf).flux[0]
        for one in (source, replace(galaxy, phi=galaxy.phi + turned))
    )
    assert np.abs(arcs - expected).max() < 0.015 * expected.max()


# ---- the picture itself ----


def test_a_picture_has_flux_1_all_of_it_within_its_reach() -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        picture = random_picture(rng)
        axis = torch.linspace(-1.5, 1.5, 601).double() * picture.reach
        v, u = torch.meshgrid(axis, axis, indexing="ij")
        brightness = picture.brightness(u, v)
        step = float(axis[1] - axis[0])
        assert float(brightness.sum()) * step**2 == pytest.approx(1, abs=1e-3)
        assert not brightness[torch.hypot(u, v) > picture.reach].any()

        # Its centre is its centroid.
        for offset in (u, v):
            assert float((offset * brightness).sum()) * step**2 == pytest.approx(0, abs=1e-3)


def test_between_pixels_it_is_bilinear_and_turns_with_its_angle() -> None:
    pixels = np.zeros((9, 9))
    pixels[4, 4], pixels[4, 5] = 3.0, 1.0
    picture = cut_out_galaxy(pixels, 0.5)
    assert picture is not None
    # The centroid lies a quarter of a pixel from the brighter one.
    source = PicturedSource(picture, 1.0, 2.0, math.pi / 2)
    along = torch.tensor([-0.125, 0.125, 0.375]).double()
    found = source.brightness(torch.full((3,), 1.0).double(), 2 + along)
    expected = torch.tensor([3.0, 2.0, 1.0]).double() / (4 * 0.25)
    torch.testing.assert_close(found, expected)
    assert source.radius == pytest.approx(0.5 / math.sqrt(math.pi))


@pytest.mark.parametrize("q", [0.4, 0.7, 1.0])
def test_size_and_shape_are_those_of_the_galaxy(q: float) -> None:
    galaxy = light(x=0.1, y=-0.05, q=q, phi=0.6, n=1.0, radius=0.3)
    pixels = 1000 * draw_picture([galaxy], SCALE, 121)
    neighbour = light(x=1.3, y=1.0, n=1.0, radius=0.1)
    pixels += 300 * draw_picture([neighbour], SCALE, 121)
    rng = np.random.default_rng(0)
    picture = cut_out_galaxy(pixels + rng.normal(7, 0.02, pixels.shape), SCALE)
    assert picture is not None
    # What lies below the noise is missing.
    assert picture.radius == pytest.approx(0.3, rel=0.07)
    assert picture.q == pytest.approx(q, abs=0.04)
    # Neither the neighbour nor the sky belongs to it.
    assert 0.6 < picture.reach < 1.5


def test_noise_alone_is_no_galaxy() -> None:
    """The smoothed noise would have to reach 7 sigma: 1e-12 a pixel."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert cut_out_galaxy(rng.normal(3, 1, (64, 61)), SCALE) is None
    assert cut_out_galaxy(np.zeros((8, 8)), SCALE) is None
    assert cut_out_galaxy(np.full((8, 8), np.nan), SCALE) is None
    assert cut_out_galaxy(np.ones((1, 1)), SCALE) is None


def test_a_neighbour_far_from_the_middle_is_not_taken_for_the_galaxy() -> None:
    pixels = draw_picture([light(x=1.2, y=0.0, radius=0.1)], SCALE, 121)
    rng = np.random.default_rng(0)
    assert cut_out_galaxy(pixels + rng.normal(0, 0.01 * pixels.max(), pixels.shape), SCALE) is None


def test_pixels_that_are_not_finite_are_sky() -> None:
    pixels = draw_picture([light(radius=0.2)], SCALE, 121) + 5
    damaged = pixels.copy()
    damaged[:5] = np.nan
    damaged[3, 80] = np.inf
    one, other = (cut_out_galaxy(each, SCALE) for each in (pixels, damaged))
    assert one is not None
    assert other is not None
    # Sky is the median of what is left of the edge.
    torch.testing.assert_close(one.light, other.light, rtol=0, atol=1e-5)
