"""What every augmentation has: its settings, its seed, and astronomers' extras.

Shapes: B batch, C bands, H height, W width.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from lens_hpc import config
from lens_hpc.errors import UserError
from lens_hpc.loading.advanced_blur import LARGEST_HALF
from lens_hpc.loading.batch_operations import Turns, move_pixels, source_pixels
from lens_hpc.loading.memory import copy_to
from lens_hpc.loading.random_numbers import (
    EXTRAS_STREAM,
    NOISE_STREAM,
    draw_keys,
    normals_of_keys,
    uniforms,
)


class Augmentation:
    """Base of all engines: keeps `settings` and `seed`, and adds the extras.

    An engine writes `flip_and_blur`, or replaces `__call__` as a whole. What it does must depend on
    (seed, epoch, draw) alone. It is sent to loader processes by pickle.

    On a GPU, an engine that has nothing else is called by the thread that launches all work. One
    that also writes `draw` and `apply` has its random numbers drawn by the loader's threads, and
    `apply` is called instead of it.
    """

    is_slow = False
    """Whether the work is Python code for each cutout, for which the loader needs processes; for
    native code on whole batches, threads do."""

    draws_ahead = False
    """Whether `draw` and `apply` do all that a call does. Set for each class by what it writes."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        written = vars(cls)
        if "apply" in written:
            cls.draws_ahead = True
        elif "__call__" in written or "flip_and_blur" in written:
            # What the base class has drawn ahead would leave out what this class adds to it.
            cls.draws_ahead = False

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

    def draw(self, epoch: int, draws: np.ndarray, shape: Sequence[int]) -> dict[str, torch.Tensor]:
        """Draw on the CPU all that `apply` needs for cutouts of a shape (C, H, W).

        Return tensors (B, ...) by name. Their shapes may depend on nothing but B and the settings.
        """
        raise NotImplementedError

    def apply(self, images: torch.Tensor, drawn: Mapping[str, torch.Tensor]) -> None:
        """Augment cutouts (B, C, H, W) float32 in place, with what `draw` has drawn for them.

        Both lie on the same device. Nothing here may wait for a GPU: no value is looked at, no mask
        is an index, nothing comes from the CPU.
        """
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
        device = images.device

        if settings.rotate90 or settings.shift:
            height, width = images.shape[2:]
            sources = source_pixels(height, width, self.draw_turns(epoch, draws))
            down, across = (copy_to(source, device) for source in sources)
            images.copy_(move_pixels(images, down, across))

        if settings.noise:
            keys = draw_keys(self.seed, epoch, draws, NOISE_STREAM)
            self.add_noise(images, copy_to(keys, device))

    def draw_turns(self, epoch: int, draws: np.ndarray) -> Turns:
        """Draw how cutouts are rotated and shifted."""
        numbers = uniforms(self.seed, epoch, draws, 4, EXTRAS_STREAM).numpy()
        rotated = numbers[:, 0] < self.settings.rotate90
        quarters = (numbers[:, 1] * 3).astype(int) + 1

        largest = self.settings.shift
        shifts = (numbers[:, 2:] * (2 * largest + 1)).astype(int) - largest
        return Turns(np.where(rotated, quarters, 0), shifts)

    def add_noise(self, images: torch.Tensor, keys: torch.Tensor) -> None:
        """Add noise to cutouts (B, C, H, W) in place; `keys` (B,) are those of NOISE_STREAM."""
        noise = normals_of_keys(keys, images[0].numel())
        images += noise.view_as(images).mul_(self.settings.noise)
