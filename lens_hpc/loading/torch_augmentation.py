"""The author's augmentation by torch: drawn for a batch at a time, which is changed where it lies.

Shapes: B batch, C bands, H height, W width.
"""

import numpy as np
import torch

from lens_hpc.loading.advanced_blur import KERNEL_SIZES, NUMBERS_PER_KERNEL, blur_kernels
from lens_hpc.loading.augmentation_base import Augmentation
from lens_hpc.loading.batch_operations import (
    FlipsAndBlurs,
    flip_and_blur_on_cpu,
    flip_and_blur_on_gpu,
)
from lens_hpc.loading.random_numbers import FLIPS_AND_BLUR_STREAM, uniforms


class TorchAugmentation(Augmentation):
    """Flips and blurs a batch at a time, on the device that it is on."""

    def flip_and_blur(self, images: torch.Tensor, epoch: int, draws: np.ndarray) -> None:
        """Flip and blur cutouts (B, C, H, W) in place."""
        chosen = self._choose(epoch, draws)
        if images.device.type == "cpu":
            flip_and_blur_on_cpu(images, chosen)
        else:
            flip_and_blur_on_gpu(images, chosen)

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
