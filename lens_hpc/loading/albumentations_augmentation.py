"""The author's augmentation by albumentations, a cutout at a time.

Shapes: B batch, C bands, H height, W width.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch

from lens_hpc.loading.augmentation_base import Augmentation

SMALLEST_STRETCH = np.float32(1e-12)


class AlbumentationsAugmentation(Augmentation):
    """Flips and blurs by albumentations, a cutout at a time, on the CPU.

    Its AdvancedBlur clips float32 to [0, 1], which would cut the sky noise below zero. So a cutout
    is stretched to [0, 1] before and back after: a kernel's weights add up to 1, which makes that
    exact.
    """

    is_slow = True

    @cached_property
    def _transform(self) -> Any:
        # Imported here: only this engine needs the second that it takes.
        with _no_update_check():
            import albumentations
            from albumentations.pytorch import ToTensorV2

        return albumentations.Compose(
            [
                albumentations.HorizontalFlip(p=self.settings.hflip),
                albumentations.VerticalFlip(p=self.settings.vflip),
                albumentations.AdvancedBlur(p=self.settings.blur),
                ToTensorV2(),
            ]
        )

    def flip_and_blur(self, images: torch.Tensor, epoch: int, draws: np.ndarray) -> None:
        """Flip and blur cutouts (B, C, H, W) in place."""
        for image, draw in zip(images.numpy(), draws, strict=True):
            # Not set_random_seed: it gives all transforms the same numbers, and flips and blur
            # would come together.
            rng = np.random.default_rng([self.seed, epoch, draw])
            python_rng = random.Random(int(rng.integers(2**63)))
            self._transform.set_random_state(rng, python_rng)

            low = image.min()
            stretch = max(image.max() - low, SMALLEST_STRETCH)
            pixels = np.moveaxis((image - low) / stretch, 0, -1)
            changed = self._transform(image=pixels)["image"].numpy()
            image[:] = changed * stretch + low


@contextmanager
def _no_update_check() -> Iterator[None]:
    """Keep albumentations from asking the internet for a new version when it is imported.

    Compute nodes have no internet, and the import would wait for it.
    """
    name = "NO_ALBUMENTATIONS_UPDATE"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before
