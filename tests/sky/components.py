"""Light that tests paint."""

from collections.abc import Sequence

import numpy as np
import torch

from lens_hpc.sky.light import Light
from lens_hpc.sky.rays import Source

POINTS_PER_PIXEL = 5
"""Along a side; odd, so that one is its middle."""


def light(**changes: float) -> Light:
    values = {
        "x": 0.0,
        "y": 0.0,
        "q": 0.7,
        "phi": 0.4,
        "n": 1.0,
        "radius": 0.5,
        "mag_i": 20.0,
        "color_gi": 1.0,
    }
    return Light(**values | changes)


def draw_picture(sources: Sequence[Source], pixel_scale: float, size: int) -> np.ndarray:
    """Return what pixels see of sources of flux 1 each, without PSF and noise, (size, size)."""
    points = size * POINTS_PER_PIXEL
    axis = (torch.arange(points) - (points - 1) / 2).double() * pixel_scale / POINTS_PER_PIXEL
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    light = torch.stack([source.brightness(x, y) for source in sources]).sum(dim=0)
    shape = (size, POINTS_PER_PIXEL, size, POINTS_PER_PIXEL)
    return light.reshape(shape).mean(dim=(1, 3)).numpy() * pixel_scale**2
