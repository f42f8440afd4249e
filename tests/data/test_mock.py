import math

import numpy as np
import pytest
import torch

from lens_hpc.data import mock


@pytest.fixture
def camera() -> mock.Camera:
    return mock.draw_camera(np.random.default_rng(0), ("g", "r", "i"), 64, 0.168)


def light(**changes: float) -> mock.Light:
    values = {"x": 0.0, "y": 0.0, "q": 0.7, "phi": 0.4, "n": 1.0, "radius": 0.5, "mag_i": 20.0, "color_gi": 1.0}
    return mock.Light(**values | changes)


@pytest.mark.parametrize("changes", [{}, {"n": 2.0}, {"arms": 0.8, "q": 1.0}, {"ring_width": 0.15, "radius": 1.5}])
def test_a_component_has_the_flux_of_its_magnitude(camera: mock.Camera, changes: dict[str, float]) -> None:
    flux = camera.expose([light(**changes)]).sum(dim=(1, 2))
    expected = [10 ** (-0.4 * (magnitude - mock.ZERO_POINT)) for magnitude in (21.0, 20.35, 20.0)]
    np.testing.assert_allclose(flux.numpy(), expected, rtol=0.05)


def test_the_einstein_radius_is_the_textbooks() -> None:
    # sigma_v = 250 km/s at z = 0.5, source at z = 2: D_ls/D_s from an independent integration is 0.636
    assert mock.einstein_radius(250, 0.5, 2.0) == pytest.approx(
        4 * math.pi * (250 / 299792.458) ** 2 * 0.636 * 206265, rel=0.005
    )


def test_a_source_behind_the_centre_of_a_round_lens_becomes_a_ring(camera: mock.Camera) -> None:
    lens = mock.Lens(0, 0, 0.999, 0, 2.0, 0, 0)
    arcs = camera.expose([light(q=1.0, radius=0.1)], lens)[2]
    y, x = torch.meshgrid(*(torch.arange(64) - 31.5,) * 2, indexing="ij")
    radius = torch.hypot(x, y) * 0.168
    mean_radius = float((arcs * radius).sum() / arcs.sum())
    assert mean_radius == pytest.approx(2.0, abs=0.15)
    assert arcs.sum() > 3 * camera.expose([light(q=1.0, radius=0.1)])[2].sum()


def test_the_noise_is_the_sky_and_the_photons(camera: mock.Camera) -> None:
    rng = np.random.default_rng(1)
    for level in (0.0, 50.0):
        flux = torch.full((3, 64, 64), level)
        residual = camera.record(rng, flux) - level
        np.testing.assert_allclose(residual.std(axis=(1, 2)), camera.noise(flux)[:, 0, 0], rtol=0.05)
        assert abs(residual.mean()) < 0.01


def test_lenses_are_magnified_and_every_other_class_is_drawn(camera: mock.Camera) -> None:
    rng = np.random.default_rng(2)
    scene = mock.draw_lens(rng, camera)
    assert scene.lens is not None
    arcs = camera.expose(scene.sources, scene.lens).sum()
    assert arcs >= mock.MINIMUM_MAGNIFICATION * sum(float(part.flux(camera.bands).sum()) for part in scene.sources)
    names = {mock.draw_non_lens(rng)[0] for _ in range(100)}
    assert names == set(mock.NON_LENSES)
    assert sum(share for share, _ in mock.NON_LENSES.values()) == pytest.approx(1)
