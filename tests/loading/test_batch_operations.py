import itertools

import cv2
import numpy as np
import pytest
import torch

from lens_hpc.loading.advanced_blur import KERNEL_SIZES, NUMBERS_PER_KERNEL, blur_kernels
from lens_hpc.loading.batch_operations import (
    FlipsAndBlurs,
    Turns,
    convolve,
    flip_and_blur_on_cpu,
    kernels_before_flips,
    move_pixels,
    source_pixels,
)


@pytest.mark.parametrize("size", KERNEL_SIZES)
def test_convolve_blurs_as_opencv_does(size: int) -> None:
    rng = np.random.default_rng(1)
    images = rng.normal(size=(20, 3, 17, 23)).astype(np.float32)
    kernels = rng.random((20, size, size)).astype(np.float32)
    of_bands = torch.from_numpy(kernels)[:, None].repeat(1, 3, 1, 1)
    blurred = convolve(torch.from_numpy(images), of_bands).numpy()

    for image, kernel, result in zip(images, kernels, blurred, strict=True):
        expected = cv2.filter2D(np.moveaxis(image, 0, -1), -1, kernel)
        np.testing.assert_allclose(np.moveaxis(result, 0, -1), expected, atol=1e-5)


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_to_blur_and_then_move_is_to_flip_and_then_blur(part: float) -> None:
    rng = np.random.default_rng(5)
    images = torch.from_numpy(rng.normal(size=(40, 3, 17, 23)).astype(np.float32))
    horizontal, vertical, blurred = (rng.random(40) < p for p in (0.5, 0.5, part))
    sizes = rng.choice(KERNEL_SIZES, blurred.sum())
    kernels = blur_kernels(sizes, rng.random((blurred.sum(), NUMBERS_PER_KERNEL)))
    chosen = FlipsAndBlurs(horizontal, vertical, blurred, kernels)
    nothing = Turns(np.zeros(40, dtype=int), np.zeros((40, 2), dtype=int))

    on_cpu = images.clone()
    flip_and_blur_on_cpu(on_cpu, chosen)
    blurred_first = convolve(images, kernels_before_flips(chosen, 3))
    moved = move_pixels(blurred_first, *source_pixels(17, 23, nothing, chosen))

    torch.testing.assert_close(moved, on_cpu, rtol=0, atol=1e-6)
    assert not torch.equal(on_cpu, images)
    torch.testing.assert_close(blurred_first[~blurred], images[~blurred], rtol=0, atol=0)


def test_pixels_move_as_by_flips_then_turns_then_shifts_whatever_these_are() -> None:
    """Every flip, turn and shift of a square cutout; no two of its pixels are alike."""
    side, largest = 5, 4
    shifts = range(-largest, largest + 1)
    cases = list(itertools.product((False, True), (False, True), range(4), shifts, shifts))
    horizontal, vertical, quarters, down, right = map(np.array, zip(*cases, strict=True))
    image = np.arange(2.0 * side**2).reshape(2, side, side)

    flips = FlipsAndBlurs(horizontal, vertical, horizontal, np.empty(0))
    turns = Turns(quarters, np.stack([down, right], axis=1))
    images = torch.from_numpy(np.repeat(image[None], len(cases), axis=0))
    moved = move_pixels(images, *source_pixels(side, side, turns, flips)).numpy()

    for case, result in zip(cases, moved, strict=True):
        flip_x, flip_y, turn, dy, dx = case
        expected = image[:, :, ::-1] if flip_x else image
        expected = expected[:, ::-1] if flip_y else expected
        expected = np.rot90(expected, turn, (1, 2))
        expected = np.pad(expected, [(0, 0), (largest,) * 2, (largest,) * 2], mode="reflect")
        expected = expected[:, largest - dy :, largest - dx :][:, :side, :side]
        np.testing.assert_array_equal(result, expected, str(case))


def test_cutouts_that_are_not_square_are_flipped_and_shifted() -> None:
    image = np.arange(12.0).reshape(1, 3, 4)
    flips = FlipsAndBlurs(np.array([True]), np.array([False]), np.array([False]), np.empty(0))
    turns = Turns(np.array([0]), np.array([[1, -2]]))
    moved = move_pixels(torch.from_numpy(image[None]), *source_pixels(3, 4, turns, flips))
    padded = np.pad(image[0, :, ::-1], 3, mode="reflect")
    np.testing.assert_array_equal(moved[0, 0], padded[2:5, 5:9])
