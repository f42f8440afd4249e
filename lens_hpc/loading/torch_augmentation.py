"""The author's augmentation by torch: drawn for a batch at a time, which is changed where it lies.

Shapes: B batch, C bands, H height, W width.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from lens_hpc.loading.advanced_blur import KERNEL_SIZES, NUMBERS_PER_KERNEL, blur_kernels
from lens_hpc.loading.augmentation_base import Augmentation
from lens_hpc.loading.batch_operations import (
    FlipsAndBlurs,
    Turns,
    convolve,
    flip_and_blur_on_cpu,
    kernels_before_flips,
    move_pixels,
    source_pixels,
)
from lens_hpc.loading.memory import copy_to
from lens_hpc.loading.random_numbers import (
    FLIPS_AND_BLUR_STREAM,
    NOISE_STREAM,
    draw_keys,
    uniforms,
)


class TorchAugmentation(Augmentation):
    """Flips and blurs a batch at a time: on the CPU by OpenCV, on a GPU with what was drawn ahead.

    On a GPU all cutouts are blurred, most of them by nothing, and then flipped, turned and shifted
    at once: few operations, of sizes that are always the same.
    """

    def flip_and_blur(self, images: torch.Tensor, epoch: int, draws: np.ndarray) -> None:
        """Flip and blur cutouts (B, C, H, W) in place."""
        chosen = self._choose(epoch, draws)
        if images.device.type == "cpu":
            flip_and_blur_on_cpu(images, chosen)
            return

        nothing = Turns(np.zeros(len(draws), dtype=int), np.zeros((len(draws), 2), dtype=int))
        drawn = self._arrange(images.shape[1:], chosen, nothing)
        there = {name: copy_to(tensor, images.device) for name, tensor in drawn.items()}
        self._change(images, there)

    def draw(self, epoch: int, draws: np.ndarray, shape: Sequence[int]) -> dict[str, torch.Tensor]:
        """Draw kernels, where each pixel comes from, and what the noise is made of."""
        drawn = self._arrange(shape, self._choose(epoch, draws), self.draw_turns(epoch, draws))
        if self.settings.noise:
            drawn["noise_keys"] = draw_keys(self.seed, epoch, draws, NOISE_STREAM)
        return drawn

    def apply(self, images: torch.Tensor, drawn: Mapping[str, torch.Tensor]) -> None:
        """Flip, blur, rotate and shift cutouts (B, C, H, W), and add noise to them, in place."""
        self._change(images, drawn)
        if self.settings.noise:
            self.add_noise(images, drawn["noise_keys"])

    def _choose(self, epoch: int, draws: np.ndarray) -> FlipsAndBlurs:
        """Draw what happens to each sample."""
        count = 4 + NUMBERS_PER_KERNEL
        numbers = uniforms(self.seed, epoch, draws, count, FLIPS_AND_BLUR_STREAM).numpy()
        horizontal = numbers[:, 0] < self.settings.hflip
        vertical = numbers[:, 1] < self.settings.vflip
        blurred = numbers[:, 2] < self.settings.blur

        size_indices = (numbers[blurred, 3] * len(KERNEL_SIZES)).astype(int)
        sizes = np.array(KERNEL_SIZES)[size_indices]
        kernels = blur_kernels(sizes, numbers[blurred, 4:])
        return FlipsAndBlurs(horizontal, vertical, blurred, kernels)

    def _arrange(
        self, shape: Sequence[int], chosen: FlipsAndBlurs, turns: Turns
    ) -> dict[str, torch.Tensor]:
        """Return what `_change` needs on a GPU, as far as the settings want any of it."""
        settings = self.settings
        bands, height, width = shape
        arranged = {}
        if settings.blur:
            arranged["kernels"] = kernels_before_flips(chosen, bands)
        if settings.hflip or settings.vflip or settings.rotate90 or settings.shift:
            arranged["down"], arranged["across"] = source_pixels(height, width, turns, chosen)
        return arranged

    def _change(self, images: torch.Tensor, arranged: Mapping[str, torch.Tensor]) -> None:
        changed = images
        if "kernels" in arranged:
            changed = convolve(changed, arranged["kernels"])
        if "down" in arranged:
            changed = move_pixels(changed, arranged["down"], arranged["across"])
        images.copy_(changed)
