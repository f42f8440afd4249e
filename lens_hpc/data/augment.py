"""Augmentation of training batches, in place: the author's flips and AdvancedBlur, and astronomers' extras.

Two engines draw the author's three from the same law: albumentations, a cutout at a time, and torch, which draws for a
batch at a time and changes it where it lies (on the CPU, OpenCV does that). Every random number is a hash of (seed,
epoch, draw), so that neither workers nor ranks nor the batch that a sample is in change a pixel.

albumentations' AdvancedBlur clips float32 to [0, 1], which would cut the sky noise below zero. So its engine stretches
a cutout to [0, 1] before and back after: the kernel's weights add up to one, which makes that exact.

Shapes: B batch, C bands, H height, W width, K side of a kernel.
"""

import os
import random

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no look-up of new versions: compute nodes have no internet

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn import functional

from lens_hpc import UserError
from lens_hpc.config import Augment

# AdvancedBlur's defaults (albumentations 2.0.8)
KERNELS = (3, 5, 7)
SIGMA = (0.2, 1.0)
BETA = (0.5, 8.0)
NOISE = (0.9, 1.1)
LARGEST = max(KERNELS)
HALF = LARGEST // 2
NEGLIGIBLE = 1e-12
EXTRAS_STREAM, NOISE_STREAM = 1, 2  # beside stream 0, of the author's three


class Augmentation:
    """Draws from (seed, epoch, draw) alone."""

    def __init__(self, settings: Augment, seed: int) -> None:
        cv2.setNumThreads(0)
        self.settings, self.seed = settings, seed

    def check(self, height: int, width: int) -> None:
        """UserError when cutouts of this size cannot be augmented so."""
        if self.settings.rotate90 and height != width:
            raise UserError(f"augment.rotate90 needs square cutouts, these are {height} x {width} px; set it to 0")
        if self.settings.shift >= min(height, width):
            raise UserError(f"augment.shift = {self.settings.shift}: these cutouts are only {height} x {width} px")
        if self.settings.blur and min(height, width) <= HALF:
            raise UserError(f"augment.blur: needs more than {HALF} px, these cutouts are {height} x {width}")

    @property
    def is_slow(self) -> bool:
        """Whether it is Python a cutout, which needs processes, or native code a batch, for which threads do."""
        return self.settings.engine == "albumentations"

    def __call__(self, images: torch.Tensor, epoch: int, draws: np.ndarray) -> None:
        """Augment normalised cutouts (B, C, H, W) float32 in place."""
        if self.is_slow:
            self._albumentations(images, epoch, draws)
        else:
            self._torch(images, epoch, draws)
        self._extras(images, epoch, draws)

    def _torch(self, images: torch.Tensor, epoch: int, draws: np.ndarray) -> None:
        s, u = self.settings, uniforms(self.seed, epoch, draws, 9 + LARGEST**2).numpy()
        flipped, mirrored, blurred = u[:, 0] < s.hflip, u[:, 1] < s.vflip, u[:, 2] < s.blur
        sizes = np.array(KERNELS)[(u[blurred, 3] * len(KERNELS)).astype(int)]
        kernels = blur_kernels(sizes, u[blurred, 4:])
        change_all = change_on_cpu if images.device.type == "cpu" else change_on_gpu
        change_all(images, flipped, mirrored, blurred, kernels)

    @cached_property
    def _compose(self) -> Any:
        import albumentations  # here: only this engine needs its second of imports
        from albumentations.pytorch import ToTensorV2

        s = self.settings
        return albumentations.Compose(
            [
                albumentations.HorizontalFlip(p=s.hflip),
                albumentations.VerticalFlip(p=s.vflip),
                albumentations.AdvancedBlur(p=s.blur),
                ToTensorV2(),
            ]
        )

    def _albumentations(self, images: torch.Tensor, epoch: int, draws: np.ndarray) -> None:
        for image, draw in zip(images.numpy(), draws, strict=True):
            rng = np.random.default_rng([self.seed, epoch, draw])
            # not set_random_seed: it gives all transforms the same numbers, and flips and blur would come together
            self._compose.set_random_state(rng, random.Random(int(rng.integers(2**63))))
            low = image.min()
            stretch = max(image.max() - low, np.float32(1e-12))
            pixels = np.moveaxis((image - low) / stretch, 0, -1)
            image[:] = self._compose(image=pixels)["image"].numpy() * stretch + low

    def _extras(self, images: torch.Tensor, epoch: int, draws: np.ndarray) -> None:
        s = self.settings
        if not (s.rotate90 or s.shift or s.noise):
            return
        u = uniforms(self.seed, epoch, draws, 4, EXTRAS_STREAM).numpy()
        for turns in (1, 2, 3):
            chosen = (u[:, 0] < s.rotate90) & ((u[:, 1] * 3).astype(int) + 1 == turns)
            change(images, chosen, partial(torch.rot90, k=turns, dims=(2, 3)))
        if s.shift:
            shift(images, torch.from_numpy((u[:, 2:] * (2 * s.shift + 1)).astype(int) - s.shift).to(images.device))
        if s.noise:
            images += s.noise * normals(self.seed, epoch, draws, images[0].numel(), images.device).view_as(images)


# ---- random numbers ---------------------------------------------------------------------------------------------


def uniforms(
    seed: int, epoch: int, draws: np.ndarray, count: int, stream: int = 0, device: torch.device | None = None
) -> torch.Tensor:
    """(B, count) float64 in [0, 1), a hash of (seed, epoch, draw, stream, number): SplitMix64 (Steele et al. 2014)."""
    key = torch.from_numpy(np.asarray(draws, dtype=np.int64)).to(device)
    for word in (stream, epoch, seed):
        key = _mix(key + _mix(torch.tensor(word + 1, device=device) * _GOLDEN))
    numbers = _mix(key[:, None] + torch.arange(1, count + 1, device=device) * _GOLDEN)
    return _shift_right(numbers, 11).double() * 2.0**-53


def normals(seed: int, epoch: int, draws: np.ndarray, count: int, device: torch.device) -> torch.Tensor:
    """(B, count) float32 of the standard normal distribution (Box & Muller 1958)."""
    half = -(-count // 2)
    radius, angle = uniforms(seed, epoch, draws, 2 * half, NOISE_STREAM, device).float().chunk(2, dim=1)
    radius = (-2 * torch.log1p(-radius.clamp(max=1 - 2**-24))).sqrt()
    angle = 2 * np.pi * angle
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count]


_GOLDEN = 0x9E3779B97F4A7C15 - 2**64


def _mix(x: torch.Tensor) -> torch.Tensor:
    x = (x ^ _shift_right(x, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ _shift_right(x, 27)) * (0x94D049BB133111EB - 2**64)
    return x ^ _shift_right(x, 31)


def _shift_right(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Of the 64 bits, without their sign."""
    return (x >> bits) & (2 ** (64 - bits) - 1)


# ---- operations on batches --------------------------------------------------------------------------------------


def change_on_cpu(
    images: torch.Tensor, flipped: np.ndarray, mirrored: np.ndarray, blurred: np.ndarray, kernels: np.ndarray
) -> None:
    """Flip, mirror and blur those of (B, C, H, W) where (B,) is true, in place, by OpenCV: each stays in the cache."""
    next_kernel = iter(kernels)
    for image, flip, mirror, blur in zip(images.numpy(), flipped, mirrored, blurred, strict=True):
        if flip:
            rows = image.reshape(-1, image.shape[2])  # of all bands
            cv2.flip(rows, 1, rows)
        kernel = next(next_kernel) if blur else None
        for band in image if mirror or blur else ():
            if mirror:
                cv2.flip(band, 0, band)
            if kernel is not None:
                cv2.filter2D(band, -1, kernel, band)


def change_on_gpu(
    images: torch.Tensor, flipped: np.ndarray, mirrored: np.ndarray, blurred: np.ndarray, kernels: np.ndarray
) -> None:
    """The same by torch, a batch at a time."""
    change(images, flipped, partial(torch.flip, dims=(3,)))
    change(images, mirrored, partial(torch.flip, dims=(2,)))
    change(images, blurred, partial(convolve, kernels=torch.from_numpy(kernels)))


def change(images: torch.Tensor, which: np.ndarray, how: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Replace those of (B, C, H, W) where `which` (B,) is true by what `how` makes of them."""
    if which.any():
        there = torch.from_numpy(np.flatnonzero(which)).to(images.device)
        images.index_copy_(0, there, how(images.index_select(0, there)))


def blur_kernels(sizes: np.ndarray, u: np.ndarray) -> np.ndarray:
    """AdvancedBlur's kernels, (B, 7, 7) float32, of `sizes` (B,) around the centre and zero outside.

    A generalised Gaussian exp(-q^beta / 2) of random widths, angle and beta, times noise (Wang et al. 2021,
    Real-ESRGAN; as albumentations draws it). `u` (B, 5 + 49): uniform random numbers.
    """
    u = u[:, :, None, None]
    sigma_x, sigma_y = (SIGMA[0] + (SIGMA[1] - SIGMA[0]) * u[:, i] for i in (0, 1))
    angle = np.pi * (u[:, 2] - 0.5)
    beta = np.where(u[:, 3] < 0.5, BETA[0] + (1 - BETA[0]) * u[:, 4], 1 + (BETA[1] - 1) * u[:, 4])
    noise = NOISE[0] + (NOISE[1] - NOISE[0]) * u[:, 5:].reshape(-1, LARGEST, LARGEST)
    y, x = np.mgrid[: 2 * HALF + 1, : 2 * HALF + 1] - HALF
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kernels = np.exp(-0.5 * ((along / sigma_x) ** 2 + (across / sigma_y) ** 2) ** beta) * noise
    kernels *= np.maximum(abs(x), abs(y)) <= sizes[:, None, None] // 2
    kernels[kernels < NEGLIGIBLE] = 0  # processors crawl through numbers next to zero
    return (kernels / kernels.sum((1, 2), keepdims=True)).astype(np.float32)


def convolve(images: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Each of (B, C, H, W) with its own kernel (B, K, K), mirrored at the borders as OpenCV does (reflect 101)."""
    batch, bands, height, _ = images.shape
    half = kernels.shape[1] // 2
    padded = functional.pad(images, (half,) * 4, mode="reflect").view(1, batch * bands, height + 2 * half, -1)
    each = kernels.to(images).repeat_interleave(bands, dim=0)[:, None]
    return functional.conv2d(padded, each, groups=batch * bands).view_as(images)


def shift(images: torch.Tensor, by: torch.Tensor) -> None:
    """Move (B, C, H, W) by whole pixels (B, 2), down and right, in place; what comes in is the mirrored border."""
    batch, bands, height, width = images.shape
    rows = _mirror(torch.arange(height, device=images.device) - by[:, :1], height)
    columns = _mirror(torch.arange(width, device=images.device) - by[:, 1:], width)
    number = torch.arange(batch, device=images.device)[:, None, None, None]
    band = torch.arange(bands, device=images.device)[None, :, None, None]
    images.copy_(images[number, band, rows[:, None, :, None], columns[:, None, None, :]])


def _mirror(places: torch.Tensor, size: int) -> torch.Tensor:
    places = places.abs()
    return torch.where(places > size - 1, 2 * (size - 1) - places, places)
