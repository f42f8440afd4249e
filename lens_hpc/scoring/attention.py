"""Where trained models look: the attention of their image branch, as maps of the cutouts."""

from collections.abc import Sequence

import numpy as np
import torch

from lens_hpc.loading.samples import scale_images
from lens_hpc.model.fusion import ImageBranch
from lens_hpc.model.trained import TrainedModel

IMAGES_PER_PASS = 16


def attention_maps(members: Sequence[TrainedModel], images: np.ndarray) -> np.ndarray | None:
    """Return the attention on images (n, bands, height, width), (n, height, width) from 0 to 1.

    They are as they were packed. It is the mean over those models that have some, and None where
    there are none: models of features alone, and models of one's own.
    """
    maps = [
        _map_member(member, branch, images)
        for member in members
        if isinstance(branch := getattr(member.model, "image", None), ImageBranch)
    ]
    return np.mean(maps, axis=0) if maps else None


@torch.inference_mode()
def _map_member(member: TrainedModel, branch: ImageBranch, images: np.ndarray) -> np.ndarray:
    """Return what one model pays attention to, (n, height, width)."""
    statistics = member.manifest.statistics
    assert statistics is not None
    device = next(branch.parameters()).device
    branch.eval()

    maps = []
    for start in range(0, len(images), IMAGES_PER_PASS):
        # Normalising is in place, so it works on a copy.
        pixels = images[start : start + IMAGES_PER_PASS]
        scaled = torch.tensor(pixels, dtype=torch.float32, device=device)
        scale_images(scaled, member.settings.data.image_scale, statistics)
        maps.append(branch.attention_map(scaled).float().cpu().numpy())
    return np.concatenate(maps)
