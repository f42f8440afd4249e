import numpy as np
import torch

from lens_hpc.sky.camera import Camera


def test_the_noise_is_the_sky_and_the_photons(camera: Camera) -> None:
    rng = np.random.default_rng(1)
    for level in (0.0, 50.0):
        flux = torch.full((3, 64, 64), level)
        residual = camera.record(rng, flux) - level
        expected = camera.noise(flux)[:, 0, 0]
        np.testing.assert_allclose(residual.std(axis=(1, 2)), expected, rtol=0.05)
        assert abs(residual.mean()) < 0.01
