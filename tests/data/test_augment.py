import numpy as np
import pytest
import torch

from lens_hpc.config import Augment
from lens_hpc.data.augment import Augmentation

OFF = {"hflip": 0.0, "vflip": 0.0, "blur": 0.0}


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 16, 16)).astype(np.float32)


def test_a_sample_depends_on_seed_epoch_and_row_alone(image: np.ndarray) -> None:
    settings = Augment(hflip=0.5, vflip=0.5, blur=0.5)
    one, other = Augmentation(settings, 3), Augmentation(settings, 3)
    for row in range(5):
        other(image, 9, row)  # what was drawn before does not matter
    draws = [one(image, 2, row) for row in range(20)]
    for row in reversed(range(20)):
        assert torch.equal(other(image, 2, row), draws[row])
    assert any(not torch.equal(one(image, 3, row), draws[row]) for row in range(20))
    assert any(not torch.equal(Augmentation(settings, 4)(image, 2, row), draws[row]) for row in range(20))


def test_flips_are_flips(image: np.ndarray) -> None:
    flipped = Augmentation(Augment(**OFF | {"hflip": 1.0}), 0)(image, 0, 0).numpy()
    np.testing.assert_allclose(flipped, image[:, :, ::-1], atol=1e-5)
    flipped = Augmentation(Augment(**OFF | {"vflip": 1.0}), 0)(image, 0, 0).numpy()
    np.testing.assert_allclose(flipped, image[:, ::-1], atol=1e-5)


def test_blur_keeps_the_sky_below_zero(image: np.ndarray) -> None:
    blurred = Augmentation(Augment(**OFF | {"blur": 1.0}), 0)
    results = np.stack([blurred(image, 0, row).numpy() for row in range(50)])
    assert (results.min(axis=(1, 2, 3)) < -0.2).all()
    assert (results.std(axis=(1, 2, 3)) < 0.95 * image.std()).mean() > 0.6  # the rest are kernels of one pixel
    assert abs(results.mean() - image.mean()) < 0.02


def test_a_constant_cutout_stays_constant() -> None:
    constant = np.full((1, 8, 8), 0.7, dtype=np.float32)
    result = Augmentation(Augment(**OFF | {"blur": 1.0}), 0)(constant, 0, 0).numpy()
    np.testing.assert_allclose(result, constant, atol=1e-6)
