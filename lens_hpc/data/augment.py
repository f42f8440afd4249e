"""Augmentation, as the author has it: flips and AdvancedBlur of albumentations, a seed for each sample.

albumentations' AdvancedBlur clips float32 to [0, 1], which would cut the sky noise below zero. So a cutout is stretched
to [0, 1] before and back after: the kernel's weights add up to one, which makes that exact.
"""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no look-up of new versions: compute nodes have no internet

import albumentations
import cv2
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2

from lens_hpc.config import Augment


class Augmentation:
    """Draws from (seed, epoch, row) alone, so that neither workers nor ranks change a pixel."""

    def __init__(self, settings: Augment, seed: int) -> None:
        cv2.setNumThreads(0)
        self.seed = seed
        self.transform = albumentations.Compose(
            [
                albumentations.HorizontalFlip(p=settings.hflip),
                albumentations.VerticalFlip(p=settings.vflip),
                albumentations.AdvancedBlur(p=settings.blur),
                ToTensorV2(),
            ]
        )

    def __call__(self, image: np.ndarray, epoch: int, row: int) -> torch.Tensor:
        """Augment one normalised cutout, float32 (bands, height, width), to a tensor of that shape."""
        draw = np.random.SeedSequence([self.seed, epoch, row]).generate_state(1)
        self.transform.set_random_seed(int(draw[0]))
        low = image.min()
        stretch = max(image.max() - low, np.float32(1e-12))
        pixels = np.moveaxis((image - low) / stretch, 0, -1)
        augmented: torch.Tensor = self.transform(image=pixels)["image"]
        return augmented * float(stretch) + float(low)
