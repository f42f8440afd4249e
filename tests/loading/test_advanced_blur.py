from typing import Any

import albumentations
import numpy as np
import pytest

from lens_hpc.loading.advanced_blur import (
    KERNEL_SIZES,
    LARGEST_SIZE,
    NUMBERS_PER_KERNEL,
    blur_kernels,
)


class PresetNumbers:
    """A generator of random numbers that gives those it was made with."""

    def __init__(self, numbers: list[Any], size: int) -> None:
        self.numbers = numbers
        self.size = size

    def randint(self, low: int, high: int) -> int:
        return (self.size - 3) // 2

    def random(self) -> float:
        return self.numbers.pop(0)

    def uniform(self, low: float, high: float, size: object = None) -> np.ndarray:
        return low + (high - low) * self.numbers.pop(0)


def test_kernels_are_those_that_albumentations_makes() -> None:
    """Both are given the same random numbers."""
    count = 30
    numbers = np.random.default_rng(2).random((count, NUMBERS_PER_KERNEL))
    sizes = np.resize(KERNEL_SIZES, count)
    kernels = blur_kernels(sizes, numbers)

    blur = albumentations.AdvancedBlur()
    for of_kernel, size, kernel in zip(numbers, sizes, kernels, strict=True):
        inner = slice((LARGEST_SIZE - size) // 2, (LARGEST_SIZE + size) // 2)
        noise = of_kernel[5:].reshape(LARGEST_SIZE, LARGEST_SIZE)[inner, inner]
        blur.py_random = PresetNumbers([*of_kernel[:5]], size)
        blur.random_generator = PresetNumbers([noise], size)

        expected = blur.get_params()["kernel"]
        np.testing.assert_allclose(kernel[inner, inner], expected, atol=1e-7)
        assert kernel.sum() == pytest.approx(kernel[inner, inner].sum())  # zero outside


def test_weights_add_up_to_one() -> None:
    numbers = np.random.default_rng(3).random((40, NUMBERS_PER_KERNEL))
    kernels = blur_kernels(np.resize(KERNEL_SIZES, 40), numbers)
    assert kernels.dtype == np.float32
    np.testing.assert_allclose(kernels.sum(axis=(1, 2)), 1, rtol=1e-6)
