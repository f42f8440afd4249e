"""Where trained models look: the attention of their image branch, as maps of the cutouts."""

from collections.abc import Sequence

import numpy as np
import torch

from lens_hpc.dataset.split import Split
from lens_hpc.model.fusion import ImageBranch
from lens_hpc.model.trained import TrainedModel
from lens_hpc.scoring.distributed import samples_for

ROWS_PER_PASS = 16


def attention_maps(
    members: Sequence[TrainedModel], split: Split, rows: np.ndarray
) -> np.ndarray | None:
    """Return the attention on the cutouts of these rows, (n, height, width) from 0 to 1.

    It is the mean over those models that have some, and None where there are none: models of
    features alone, and models of one's own.
    """
    maps = [
        _map_member(member, branch, split, rows)
        for member in members
        if isinstance(branch := getattr(member.model, "image", None), ImageBranch)
    ]
    return np.mean(maps, axis=0) if maps else None


@torch.inference_mode()
def _map_member(
    member: TrainedModel, branch: ImageBranch, split: Split, rows: np.ndarray
) -> np.ndarray:
    """Return what one model pays attention to, (n, height, width)."""
    samples = samples_for(member, split)
    device = next(branch.parameters()).device
    branch.eval()

    maps = []
    for start in range(0, len(rows), ROWS_PER_PASS):
        stored = split.take("images", rows[start : start + ROWS_PER_PASS])
        images = torch.from_numpy(stored.astype(np.float32)).to(device)
        samples.normalise(images)
        maps.append(branch.attention_map(images).float().cpu().numpy())
    return np.concatenate(maps)
