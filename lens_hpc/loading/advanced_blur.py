"""The kernels of albumentations' AdvancedBlur, made for a batch at a time.

Every constant is a default of albumentations 2.0.8.
"""

import numpy as np

KERNEL_SIZES = (3, 5, 7)
"""Sides of a kernel, pixels."""
SIGMA_RANGE = (0.2, 1.0)
"""Widths along the two axes, pixels."""
BETA_RANGE = (0.5, 8.0)
"""Exponent of the generalised Gaussian; 1 is a Gaussian."""
NOISE_RANGE = (0.9, 1.1)
"""Factor of each weight."""

LARGEST_SIZE = max(KERNEL_SIZES)
LARGEST_HALF = LARGEST_SIZE // 2
SHAPE_NUMBERS = 5
NUMBERS_PER_KERNEL = SHAPE_NUMBERS + LARGEST_SIZE**2
"""Random numbers that `blur_kernels` takes for a kernel."""

NEGLIGIBLE_WEIGHT = 1e-12


def blur_kernels(sizes: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return kernels of the given sizes (B,), around the centre of (B, 7, 7) float32, else zero.

    A kernel is a generalised Gaussian exp(-q^beta / 2) of random widths, angle and beta, times
    noise, as albumentations draws it (Wang et al. 2021, Real-ESRGAN). Its weights add up to 1.
    `numbers` are uniform random numbers, (B, NUMBERS_PER_KERNEL).
    """
    noise_numbers = numbers[:, SHAPE_NUMBERS:].reshape(-1, LARGEST_SIZE, LARGEST_SIZE)
    noise = _between(*NOISE_RANGE, noise_numbers)
    kernels = _generalised_gaussians(numbers[:, :SHAPE_NUMBERS]) * noise

    y, x = _pixel_offsets()
    distances = np.maximum(abs(x), abs(y))
    halves = sizes[:, None, None] // 2
    kernels *= distances <= halves

    # Processors crawl through numbers that are next to zero.
    kernels[kernels < NEGLIGIBLE_WEIGHT] = 0

    sums = kernels.sum((1, 2), keepdims=True)
    return (kernels / sums).astype(np.float32)


def _generalised_gaussians(numbers: np.ndarray) -> np.ndarray:
    """Return (B, 7, 7) values of which the largest, at the centre, is 1, from (B, 5) numbers."""
    width_x, width_y, turn, peakedness, exponent = numbers.T[:, :, None, None]
    sigma_x = _between(*SIGMA_RANGE, width_x)
    sigma_y = _between(*SIGMA_RANGE, width_y)
    angle = np.pi * (turn - 0.5)

    # Half of the kernels are more peaked than a Gaussian, half less.
    lowest, highest = BETA_RANGE
    peaked = _between(lowest, 1, exponent)
    flat = _between(1, highest, exponent)
    beta = np.where(peakedness < 0.5, peaked, flat)

    y, x = _pixel_offsets()
    cosine = np.cos(angle)
    sine = np.sin(angle)
    along = x * cosine + y * sine
    across = y * cosine - x * sine

    q = (along / sigma_x) ** 2 + (across / sigma_y) ** 2
    return np.exp(-0.5 * q**beta)


def _pixel_offsets() -> np.ndarray:
    """Return rows and columns of the kernel's pixels, counted from its centre, (2, 7, 7)."""
    return np.mgrid[:LARGEST_SIZE, :LARGEST_SIZE] - LARGEST_HALF


def _between(low: float, high: float, numbers: np.ndarray) -> np.ndarray:
    """Stretch numbers from [0, 1) to [low, high)."""
    return low + (high - low) * numbers
