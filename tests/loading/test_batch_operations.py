import cv2
import numpy as np
import pytest
import torch

from lens_hpc.loading.advanced_blur import KERNEL_SIZES, NUMBERS_PER_KERNEL, blur_kernels
from lens_hpc.loading.batch_operations import (
    FlipsAndBlurs,
    convolve,
    flip_and_blur_on_cpu,
    flip_and_blur_on_gpu,
    replace_some,
    shift_images,
)


@pytest.mark.parametrize("size", KERNEL_SIZES)
def test_convolve_blurs_as_opencv_does(size: int) -> None:
    rng = np.random.default_rng(1)
    images = rng.normal(size=(20, 3, 17, 23)).astype(np.float32)
    kernels = rng.random((20, size, size)).astype(np.float32)
    blurred = convolve(torch.from_numpy(images), torch.from_numpy(kernels)).numpy()

    for image, kernel, result in zip(images, kernels, blurred, strict=True):
        expected = cv2.filter2D(np.moveaxis(image, 0, -1), -1, kernel)
        np.testing.assert_allclose(np.moveaxis(result, 0, -1), expected, atol=1e-5)


def test_cpu_and_gpu_change_a_batch_alike() -> None:
    rng = np.random.default_rng(5)
    images = torch.from_numpy(rng.normal(size=(40, 3, 17, 23)).astype(np.float32))
    horizontal, vertical, blurred = (rng.random(40) < 0.5 for _ in range(3))
    sizes = rng.choice(KERNEL_SIZES, blurred.sum())
    kernels = blur_kernels(sizes, rng.random((blurred.sum(), NUMBERS_PER_KERNEL)))
    chosen = FlipsAndBlurs(horizontal, vertical, blurred, kernels)

    on_cpu = images.clone()
    flip_and_blur_on_cpu(on_cpu, chosen)
    on_gpu = images.clone()
    flip_and_blur_on_gpu(on_gpu, chosen)  # here on the CPU, too: the same operations

    torch.testing.assert_close(on_cpu, on_gpu, rtol=0, atol=1e-5)
    assert not torch.equal(on_cpu, images)


def test_only_what_was_chosen_is_replaced() -> None:
    images = torch.arange(4.0)[:, None, None, None].repeat(1, 2, 3, 3)
    replace_some(images, np.array([False, True, False, True]), torch.neg)
    assert images[:, 0, 0, 0].tolist() == [0, -1, 2, -3]

    replace_some(images, np.zeros(4, dtype=bool), torch.zeros_like)
    assert images[:, 0, 0, 0].tolist() == [0, -1, 2, -3]


def test_a_shift_moves_down_and_right_and_mirrors_what_comes_in() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4)
    images = image.repeat(2, 1, 1, 1)
    shift_images(images, torch.tensor([[1, 0], [0, -2]]))

    padded = np.pad(image[0, 0].numpy(), 3, mode="reflect")
    np.testing.assert_array_equal(images[0, 0], padded[2:6, 3:7])
    np.testing.assert_array_equal(images[1, 0], padded[3:7, 5:9])
