"""What every augmentation has: its settings, its seed, and astronomers' extras.

Shapes: B batch, C bands, H height, W width.
"""

from functools import partial

import numpy as np
import torch

from lens_hpc import config
from lens_hpc.errors import UserError
from lens_hpc.loading.advanced_blur import LARGEST_HALF
from lens_hpc.loading.batch_operations import replace_some, shift_images
from lens_hpc.loading.random_numbers import EXTRAS_STREAM, NOISE_STREAM, normals, uniforms


class Augmentation:
    """Base of all engines: keeps `settings` and `seed`, and adds the extras.

    An engine writes `flip_and_blur`, or replaces `__call__` as a whole. What it does must depend on
    (seed, epoch, draw) alone. It is sent to loader processes by pickle.
    """

    is_slow = False
    """Whether the work is Python code for each cutout, for which the loader needs processes; for
    native code on whole batches, threads do."""

    def __init__(self, settings: config.Augment, seed: int) -> None:
        self.settings = settings
        self.seed = seed

    def __call__(self, images: torch.Tensor, epoch: int, draws: np.ndarray) -> None:
        """Augment normalised cutouts (B, C, H, W) float32, of the draws (B,), in place."""
        self.flip_and_blur(images, epoch, draws)
        self.add_extras(images, epoch, draws)

    def flip_and_blur(self, images: torch.Tensor, epoch: int, draws: np.ndarray) -> None:
        """Flip and blur cutouts (B, C, H, W) in place."""
        raise NotImplementedError

    def check(self, height: int, width: int) -> None:
        """Raise UserError when cutouts of this size, in pixels, cannot be augmented as set."""
        settings = self.settings
        size = f"{height} x {width}"
        smaller = min(height, width)

        if settings.rotate90 and height != width:
            raise UserError(
                f"augment.rotate90 needs square cutouts, these are {size} px; set it to 0"
            )
        if settings.shift >= smaller:
            raise UserError(f"augment.shift = {settings.shift}: these cutouts are only {size} px")
        if settings.blur and smaller <= LARGEST_HALF:
            raise UserError(
                f"augment.blur: needs more than {LARGEST_HALF} px, these cutouts are {size}"
            )

    def add_extras(self, images: torch.Tensor, epoch: int, draws: np.ndarray) -> None:
        """Rotate and shift cutouts (B, C, H, W), and add noise to them, in place."""
        settings = self.settings
        if not (settings.rotate90 or settings.shift or settings.noise):
            return

        numbers = uniforms(self.seed, epoch, draws, 4, EXTRAS_STREAM).numpy()
        if settings.rotate90:
            self._rotate(images, numbers[:, 0], numbers[:, 1])
        if settings.shift:
            self._shift(images, numbers[:, 2:])
        if settings.noise:
            pixels = images[0].numel()
            noise = normals(self.seed, epoch, draws, pixels, NOISE_STREAM, images.device)
            images += settings.noise * noise.view_as(images)

    def _rotate(self, images: torch.Tensor, whether: np.ndarray, how_far: np.ndarray) -> None:
        rotated = whether < self.settings.rotate90
        quarter_turns = (how_far * 3).astype(int) + 1
        for turns in (1, 2, 3):
            chosen = rotated & (quarter_turns == turns)
            replace_some(images, chosen, partial(torch.rot90, k=turns, dims=(2, 3)))

    def _shift(self, images: torch.Tensor, numbers: np.ndarray) -> None:
        largest = self.settings.shift
        shifts = (numbers * (2 * largest + 1)).astype(int) - largest
        shift_images(images, torch.from_numpy(shifts).to(images.device))
