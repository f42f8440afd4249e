"""Operations on batches of cutouts, in place where they say so.

Shapes: B batch, C bands, H height, W width, K side of a kernel.
"""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.nn import functional

from lens_hpc.loading.advanced_blur import LARGEST_SIZE


class FlipsAndBlurs(NamedTuple):
    """What happens to each cutout of a batch."""

    horizontal: np.ndarray
    """(B,) bool: whether it is flipped left to right."""
    vertical: np.ndarray
    """(B,) bool: whether it is flipped top to bottom."""
    blurred: np.ndarray
    """(B,) bool: whether it is blurred, after the flips."""
    kernels: np.ndarray
    """(cutouts that are blurred, K, K) float32, in their order."""


class Turns(NamedTuple):
    """How each cutout of a batch is rotated and moved, after flips and blur."""

    quarters: np.ndarray
    """(B,) int: quarter turns, 0 to 3, as those of torch.rot90; odd ones if cutouts are square."""
    shifts: np.ndarray
    """(B, 2) int: pixels down and to the right, after the turn. What comes in is mirrored."""


def flip_and_blur_on_cpu(images: torch.Tensor, chosen: FlipsAndBlurs) -> None:
    """Flip and blur (B, C, H, W) in place by OpenCV: a cutout stays in the cache meanwhile."""
    next_kernel = iter(chosen.kernels)
    masks = zip(chosen.horizontal, chosen.vertical, chosen.blurred, strict=True)

    for image, (horizontal, vertical, blurred) in zip(images.numpy(), masks, strict=True):
        if horizontal:
            rows_of_all_bands = image.reshape(-1, image.shape[2])
            cv2.flip(rows_of_all_bands, 1, rows_of_all_bands)
        if vertical:
            for band in image:
                cv2.flip(band, 0, band)
        if blurred:
            kernel = next(next_kernel)
            for band in image:
                cv2.filter2D(band, -1, kernel, band)


def source_pixels(
    height: int, width: int, turns: Turns, flips: FlipsAndBlurs | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where each pixel comes from, for `move_pixels`: (B, 1, H, 1) and (B, 1, 1, W) int64.

    The pixel that comes to (y, x) is in all bands number `down[y] + across[x]` of the cutout, its
    rows one after another: flips, turns and shifts together are one gather.
    """
    # Positions in the turned cutout, and whether rows and columns of the cutout run backwards.
    y = _mirror(np.arange(height) - turns.shifts[:, :1], height)
    x = _mirror(np.arange(width) - turns.shifts[:, 1:], width)
    quarters = turns.quarters
    backward_rows = quarters >= 2
    backward_columns = (quarters == 1) | (quarters == 2)
    if flips:
        backward_rows = backward_rows ^ flips.vertical
        backward_columns = backward_columns ^ flips.horizontal

    # With an odd number of turns, y runs along the columns of the cutout and x along its rows.
    is_odd = (quarters % 2 == 1)[:, None]
    down = np.where(
        is_odd, _reverse(y, backward_columns, width), width * _reverse(y, backward_rows, height)
    )
    across = np.where(
        is_odd, width * _reverse(x, backward_rows, height), _reverse(x, backward_columns, width)
    )
    return torch.from_numpy(down)[:, None, :, None], torch.from_numpy(across)[:, None, None, :]


def move_pixels(images: torch.Tensor, down: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
    """Return (B, C, H, W) whose pixels come from where `source_pixels` says."""
    bands = images.shape[1]
    sources = (down + across).expand(-1, bands, -1, -1).flatten(2)
    return images.flatten(2).gather(2, sources).view_as(images)


def kernels_before_flips(chosen: FlipsAndBlurs, bands: int) -> torch.Tensor:
    """Return kernels for `convolve` (B, bands, K, K), which blur before the flips instead of after.

    That takes a kernel that is flipped itself. One of a cutout that is not blurred changes nothing.
    """
    size = LARGEST_SIZE
    kernels = np.zeros((len(chosen.blurred), size, size), dtype=np.float32)
    kernels[:, size // 2, size // 2] = 1
    kernels[chosen.blurred] = chosen.kernels

    horizontal, vertical = chosen.horizontal, chosen.vertical
    kernels[horizontal] = kernels[horizontal, :, ::-1]
    kernels[vertical] = kernels[vertical, ::-1]
    return torch.from_numpy(np.repeat(kernels[:, None], bands, axis=1))


def convolve(images: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Return each of (B, C, H, W) convolved with its own kernels (B, C, K, K).

    The borders are mirrored as OpenCV does by default (reflect 101: the edge itself only once).
    """
    size = kernels.shape[-1]
    half = size // 2
    padded = functional.pad(images, (half, half, half, half), mode="reflect")

    # One call for all: each band of each cutout is a channel of one sample, and a group for itself.
    one_sample = padded.view(1, -1, *padded.shape[2:])
    weights = kernels.view(-1, 1, size, size)
    results = functional.conv2d(one_sample, weights, groups=len(weights))
    return results.view_as(images)


def _mirror(positions: np.ndarray, size: int) -> np.ndarray:
    """Reflect positions beyond either end of an axis of this size back into it."""
    last = size - 1
    return last - abs(last - abs(positions))


def _reverse(positions: np.ndarray, which: np.ndarray, size: int) -> np.ndarray:
    """Count positions (B, n) on an axis from its other end where `which` (B,) is true."""
    return np.where(which[:, None], size - 1 - positions, positions)
