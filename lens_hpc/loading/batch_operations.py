"""Operations on batches of cutouts, in place where they say so.

Shapes: B batch, C bands, H height, W width, K side of a kernel.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.nn import functional


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


def flip_and_blur_on_gpu(images: torch.Tensor, chosen: FlipsAndBlurs) -> None:
    """Flip and blur (B, C, H, W) in place by torch, a batch at a time."""
    kernels = torch.from_numpy(chosen.kernels)
    replace_some(images, chosen.horizontal, partial(torch.flip, dims=(3,)))
    replace_some(images, chosen.vertical, partial(torch.flip, dims=(2,)))
    replace_some(images, chosen.blurred, partial(convolve, kernels=kernels))


def replace_some(
    images: torch.Tensor, which: np.ndarray, operation: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Apply an operation to those of (B, C, H, W) where `which` (B,) is true, in place.

    The operation takes a batch of cutouts and returns one of the same shape.
    """
    if not which.any():
        return

    indices = torch.from_numpy(np.flatnonzero(which)).to(images.device)
    results = operation(images.index_select(0, indices))
    images.index_copy_(0, indices, results)


def convolve(images: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Return each of (B, C, H, W) convolved with its own kernel (B, K, K).

    The borders are mirrored as OpenCV does by default (reflect 101: the edge itself only once).
    """
    batch, bands, _, _ = images.shape
    half = kernels.shape[1] // 2
    padded = functional.pad(images, (half, half, half, half), mode="reflect")

    # One call for all: each band of each cutout is a channel of one sample, and a group for itself.
    channels = batch * bands
    one_sample = padded.view(1, channels, *padded.shape[2:])
    weights = kernels.to(images).repeat_interleave(bands, dim=0)[:, None]
    results = functional.conv2d(one_sample, weights, groups=channels)
    return results.view_as(images)


def shift_images(images: torch.Tensor, shifts: torch.Tensor) -> None:
    """Move (B, C, H, W) by whole pixels (B, 2), down and to the right, in place.

    What comes in at a border is the mirrored cutout.
    """
    batch, bands, height, width = images.shape
    device = images.device

    # Where each row and column of a cutout comes from, (B, H) and (B, W).
    rows = torch.arange(height, device=device) - shifts[:, :1]
    columns = torch.arange(width, device=device) - shifts[:, 1:]
    rows = _mirror(rows, height)[:, None, :, None]
    columns = _mirror(columns, width)[:, None, None, :]

    samples = torch.arange(batch, device=device)[:, None, None, None]
    channels = torch.arange(bands, device=device)[None, :, None, None]
    images.copy_(images[samples, channels, rows, columns])


def _mirror(positions: torch.Tensor, size: int) -> torch.Tensor:
    """Reflect positions beyond either end of an axis of this size back into it."""
    last = size - 1
    positions = positions.abs()
    return torch.where(positions > last, 2 * last - positions, positions)
