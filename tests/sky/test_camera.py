import numpy as np
import pytest
import torch

from lens_hpc.sky.camera import Camera, draw_camera
from lens_hpc.sky.surveys import SURVEYS, ZERO_POINT


def test_the_noise_is_the_sky_and_the_photons(camera: Camera) -> None:
    rng = np.random.default_rng(1)
    for level in (0.0, 50.0):
        flux = torch.full((3, 64, 64), level)
        residual = camera.record(rng, flux) - level
        expected = camera.noise(flux)[:, 0, 0]
        np.testing.assert_allclose(residual.std(axis=(1, 2)), expected, rtol=0.05)
        assert abs(residual.mean()) < 0.01


@pytest.mark.parametrize("name", SURVEYS)
def test_an_aperture_is_as_deep_as_the_survey(name: str) -> None:
    survey = SURVEYS[name]
    rng = np.random.default_rng(1)
    bands = tuple(survey.seeing)
    sums = []
    for _ in range(300):
        camera = draw_camera(rng, survey, bands, 32, survey.pixel_scale)
        noise = camera.record(rng, torch.zeros(len(bands), 32, 32))
        axis = (np.arange(32) - 15.5) * survey.pixel_scale
        is_in_aperture = np.hypot(axis[:, None], axis) < survey.depth_radius
        sums.append(noise[:, is_in_aperture].sum(axis=1))

    limit = survey.depth_sigmas * np.std(sums, axis=0)
    depth = ZERO_POINT - 2.5 * np.log10(limit)
    # The standard error of 300 sums is 0.045 mag.
    np.testing.assert_allclose(depth, list(survey.depth.values()), atol=0.2)
