import numpy as np
import pytest
import torch
from scipy.special import gammainc, gammaincinv

from lens_hpc.sky.camera import Camera, draw_camera
from lens_hpc.sky.light import Light
from lens_hpc.sky.surveys import SURVEYS, ZERO_POINT
from tests.sky.components import light


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n": 2.0},
        {"arms": 0.8, "q": 1.0},
        {"ring_width": 0.15, "radius": 1.5},
        {"ring_width": 0.15, "radius": 1.5, "opening": 0.5},
    ],
)
def test_a_component_has_the_flux_of_its_magnitude(
    camera: Camera, changes: dict[str, float]
) -> None:
    flux = camera.expose([light(**changes)]).sum(dim=(1, 2))
    expected = [10 ** (-0.4 * (magnitude - ZERO_POINT)) for magnitude in (21.0, 20.35, 20.0)]
    np.testing.assert_allclose(flux.numpy(), expected, rtol=0.05)


@pytest.mark.parametrize("name", SURVEYS)
@pytest.mark.parametrize("radius", [0.04, 0.35, 1.2])
@pytest.mark.parametrize("n", [0.5, 1.0, 2.0, 4.0, 6.0])
@pytest.mark.parametrize("q", [0.3, 1.0])
def test_a_sersic_profile_loses_no_flux(name: str, radius: float, n: float, q: float) -> None:
    """Summed over ten effective radii, it is what the incomplete gamma function says."""
    survey = SURVEYS[name]
    rng = np.random.default_rng(0)
    step = draw_camera(rng, survey, survey.bands, 32, survey.pixel_scale).fine_step
    x, y = grid(step, half_width=max(10 * radius, 20 * step / q))
    galaxy = light(x=0.3 * step, y=-0.2 * step, q=q, n=n, radius=radius)
    shares = galaxy.on_grid(x, y)

    inside = elliptical_radius(galaxy, x, y) < 10 * radius
    total = float(shares[inside].sum())
    half_light = gammaincinv(2 * n, 0.5)
    expected = gammainc(2 * n, half_light * 10 ** (1 / n))
    assert total == pytest.approx(expected, rel=0.005)


def test_a_cusp_near_the_edge_of_the_grid_is_left_as_it_is() -> None:
    x, y = grid(0.05, half_width=2)
    for at in (1.9, 2.5):
        galaxy = light(x=at, n=4.0)
        expected = galaxy.brightness(x, y) * 0.05**2
        np.testing.assert_allclose(galaxy.on_grid(x, y), expected, rtol=1e-3)


def test_a_gradient_is_the_change_of_the_color_per_decade_of_radius() -> None:
    x, y = torch.tensor([[0.5, 5.0]]), torch.tensor([[0.0, 0.0]])
    galaxy = light(q=1.0, radius=0.5, gradient=-0.3)
    tint_g, tint_i = galaxy.tint(("g", "i"), x, y)
    color_gi = -2.5 * torch.log10(tint_g / tint_i)
    np.testing.assert_allclose(color_gi, [[0.0, -0.3]], atol=1e-5)


def test_bend_moves_r_off_the_line_of_g_and_i() -> None:
    straight, bent = (light(bend=bend).flux(("g", "r", "i")) for bend in (0.0, 0.1))
    change = -2.5 * torch.log10(bent / straight)
    np.testing.assert_allclose(change, [0, 0.1, 0], atol=1e-5)


def grid(step: float, half_width: float) -> tuple[torch.Tensor, torch.Tensor]:
    points = 2 * int(half_width / step) + 2
    axis = (torch.arange(points) - (points - 1) / 2) * step
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


def elliptical_radius(galaxy: Light, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    u = (x - galaxy.x) * np.cos(galaxy.phi) + (y - galaxy.y) * np.sin(galaxy.phi)
    v = (y - galaxy.y) * np.cos(galaxy.phi) - (x - galaxy.x) * np.sin(galaxy.phi)
    return torch.hypot(u, v / galaxy.q)
