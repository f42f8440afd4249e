import albumentations
import cv2
import numpy as np
import pytest
import torch

from lens_hpc import UserError
from lens_hpc.config import Augment
from lens_hpc.data import augment
from lens_hpc.data.augment import Augmentation

OFF = {"hflip": 0.0, "vflip": 0.0, "blur": 0.0}
ENGINES = ["albumentations", "torch"]
EXTRAS = {"rotate90": 0.5, "shift": 3, "noise": 0.1}


def apply(settings: Augment, images: np.ndarray, draws: np.ndarray, epoch: int = 0, seed: int = 0) -> np.ndarray:
    batch = torch.from_numpy(images.copy())
    Augmentation(settings, seed)(batch, epoch, draws)
    return batch.numpy()


def repeated(image: np.ndarray, times: int) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat(image[None], times, axis=0), np.arange(times)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 16, 16)).astype(np.float32)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("extras", [{}, EXTRAS])
def test_a_sample_depends_on_seed_epoch_and_draw_alone(image: np.ndarray, engine: str, extras: dict) -> None:
    settings = Augment(engine=engine, hflip=0.5, vflip=0.5, blur=0.5, **extras)
    images, draws = repeated(image, 40)
    whole = apply(settings, images, draws, epoch=2, seed=3)
    for part in (np.array([7]), np.array([39, 3, 11]), np.arange(5, 30)):  # whatever the batch that it is in
        np.testing.assert_array_equal(apply(settings, images[part], part, epoch=2, seed=3), whole[part])
    assert not np.array_equal(apply(settings, images, draws, epoch=3, seed=3), whole)
    assert not np.array_equal(apply(settings, images, draws, epoch=2, seed=4), whole)
    assert len(np.unique(whole.reshape(40, -1), axis=0)) > 15


@pytest.mark.parametrize("engine", ENGINES)
def test_flips_are_flips(image: np.ndarray, engine: str) -> None:
    one = image[None], np.array([0])
    flipped = apply(Augment(engine=engine, **OFF | {"hflip": 1.0}), *one)[0]
    np.testing.assert_allclose(flipped, image[:, :, ::-1], atol=1e-5)
    flipped = apply(Augment(engine=engine, **OFF | {"vflip": 1.0}), *one)[0]
    np.testing.assert_allclose(flipped, image[:, ::-1], atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_blur_keeps_the_sky_below_zero_and_a_constant_cutout(image: np.ndarray, engine: str) -> None:
    settings = Augment(engine=engine, **OFF | {"blur": 1.0})
    results = apply(settings, *repeated(image, 50))
    assert (results.min(axis=(1, 2, 3)) < -0.2).all()
    constant = np.full((1, 8, 8), 0.7, dtype=np.float32)
    np.testing.assert_allclose(apply(settings, *repeated(constant, 20)), 0.7, atol=1e-6)


def test_torch_blurs_as_opencv_does_for_equal_kernels(image: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    images = rng.normal(size=(20, 3, 17, 23)).astype(np.float32)
    for size in augment.KERNELS:
        kernels = rng.random((20, size, size)).astype(np.float32)
        blurred = augment.convolve(torch.from_numpy(images), torch.from_numpy(kernels)).numpy()
        for one, kernel, result in zip(images, kernels, blurred, strict=True):
            expected = cv2.filter2D(np.moveaxis(one, 0, -1), -1, kernel)
            np.testing.assert_allclose(np.moveaxis(result, 0, -1), expected, atol=1e-5)


def test_torch_makes_the_kernel_that_albumentations_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same random numbers, handed to both."""
    u = np.random.default_rng(2).random((30, 5 + 49))
    sizes = np.resize(augment.KERNELS, 30)
    blur = albumentations.AdvancedBlur()
    for numbers, size, ours in zip(u, sizes, augment.blur_kernels(sizes, u), strict=True):
        inner = slice((7 - size) // 2, (7 + size) // 2)
        noise = numbers[5:].reshape(7, 7)[inner, inner]
        blur.py_random, blur.random_generator = Told([*numbers[:5]], size), Told([noise], size)
        np.testing.assert_allclose(ours[inner, inner], blur.get_params()["kernel"], atol=1e-7)
        assert ours.sum() == pytest.approx(ours[inner, inner].sum())


class Told:
    """A generator that answers what it is told."""

    def __init__(self, numbers: list, size: int) -> None:
        self.numbers, self.size = numbers, size

    def randint(self, low: int, high: int) -> int:
        return (self.size - 3) // 2

    def random(self) -> float:
        return self.numbers.pop(0)

    def uniform(self, low: float, high: float, size: object = None) -> np.ndarray:
        return low + (high - low) * self.numbers.pop(0)


def test_torch_draws_from_the_law_of_albumentations() -> None:
    """Moments of a delta function, of a flip's side and of a blurred pixel, over 6,000 draws of each engine."""
    delta = np.zeros((1, 9, 9), dtype=np.float32)
    delta[0, 4, 4], delta[0, 0, 0] = 1.0, -1.0
    results = {engine: apply(Augment(engine=engine), *repeated(delta, 6000))[:, 0] for engine in ENGINES}
    for moment in (np.mean, np.var):
        ours, theirs = (moment(results[engine], axis=0) for engine in ENGINES)
        np.testing.assert_allclose(ours, theirs, atol=0.025)
    corners = {engine: [(r[:, y, x] < -0.5).mean() for y in (0, 8) for x in (0, 8)] for engine, r in results.items()}
    np.testing.assert_allclose(corners["torch"], corners["albumentations"], atol=0.025)
    blurred = {engine: (r[:, 4, 4] < 0.999).mean() for engine, r in results.items()}
    assert blurred["torch"] == pytest.approx(blurred["albumentations"], abs=0.025)


def test_extras_turn_shift_and_add_noise(image: np.ndarray) -> None:
    turned = apply(Augment(engine="torch", **OFF, rotate90=1.0), *repeated(image, 60))
    turns = [np.rot90(image, k, (1, 2)) for k in (1, 2, 3)]
    which = [[np.array_equal(result, turn) for turn in turns] for result in turned]
    assert np.array(which).sum(axis=1).tolist() == [1] * 60
    assert np.array(which).any(axis=0).all()
    moved = apply(Augment(engine="torch", **OFF, shift=2), *repeated(image, 200))
    offsets = {
        (dy, dx)
        for result in moved
        for dy in range(-2, 3)
        for dx in range(-2, 3)
        if np.array_equal(result[:, 4:-4, 4:-4], np.roll(image, (dy, dx), (1, 2))[:, 4:-4, 4:-4])
    }
    assert len(offsets) == 25
    noise = apply(Augment(engine="torch", **OFF, noise=0.1), *repeated(image, 50)) - image
    assert noise.std() == pytest.approx(0.1, rel=0.02)
    assert abs(noise.mean()) < 0.001
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.15


def test_random_numbers_are_uniform_and_independent() -> None:
    u = augment.uniforms(3, 1, np.arange(4000), 6).numpy()
    assert u.min() >= 0
    assert u.max() < 1
    counts = np.stack([np.histogram(column, 20, (0, 1))[0] for column in u.T])
    assert ((counts - 200) ** 2 / 200).sum(axis=1).max() < 50  # chi squared of 19
    assert abs(np.corrcoef(u.T) - np.eye(6)).max() < 0.06
    assert abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 0.06
    others = [augment.uniforms(*key, np.arange(4000), 1, stream).numpy()[:, 0] for *key, stream in
              ((3, 2, 0), (4, 1, 0), (1, 3, 0), (3, 1, 1))]  # fmt: skip
    assert max(abs(np.corrcoef(u[:, 0], other)[0, 1]) for other in others) < 0.06


def test_what_does_not_fit_the_cutout_is_refused() -> None:
    for settings, message in (
        (Augment(rotate90=0.5), "rotate90 needs square cutouts, these are 8 x 9 px"),
        (Augment(shift=8), "shift = 8: these cutouts are only 8 x 9 px"),
    ):
        with pytest.raises(UserError, match=message):
            Augmentation(settings, 0).check(8, 9)


def test_cpu_and_gpu_change_a_batch_alike() -> None:
    rng = np.random.default_rng(5)
    images = rng.normal(size=(40, 3, 17, 23)).astype(np.float32)
    masks = [rng.random(40) < 0.5 for _ in range(3)]
    kernels = augment.blur_kernels(rng.choice(augment.KERNELS, masks[2].sum()), rng.random((masks[2].sum(), 54)))
    on_cpu, on_gpu = torch.from_numpy(images.copy()), torch.from_numpy(images.copy())
    augment.change_on_cpu(on_cpu, *masks, kernels)
    augment.change_on_gpu(on_gpu, *masks, kernels)  # here on the CPU, too: the same operations
    torch.testing.assert_close(on_cpu, on_gpu, rtol=0, atol=1e-5)
    assert not torch.equal(on_cpu, torch.from_numpy(images))
