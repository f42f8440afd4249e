"""Test-time augmentation: the mean of a model's logits over views of each cutout."""

from typing import NamedTuple

import torch

from lens_hpc.errors import UserError


class View(NamedTuple):
    """A position of a cutout: some quarter turns, then flips along some axes."""

    quarter_turns: int
    flipped_axes: tuple[int, ...]


FLIPS = (View(0, ()), View(0, (-1,)), View(0, (-2,)), View(0, (-2, -1)))
TURNED_FLIPS = tuple(View(1, view.flipped_axes) for view in FLIPS)
VIEWS = {"none": FLIPS[:1], "flips": FLIPS, "d4": FLIPS + TURNED_FLIPS}


class OverViews(torch.nn.Module):
    """A model whose logit is the mean over views of the cutout.

    Raises UserError for quarter turns of cutouts that are not square.
    """

    def __init__(self, model: torch.nn.Module, kind: str, size: tuple[int, int]) -> None:
        super().__init__()
        if kind == "d4" and size[0] != size[1]:
            raise UserError(
                f"tta = d4: cutouts of {size[0]} x {size[1]} pixels cannot be turned; "
                "choose tta=flips"
            )
        self.model = model
        self.views = VIEWS[kind]

    def forward(self, images: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Score images (B, bands, height, width) and features (B, F): logits (B,)."""
        logits = []
        for view in self.views:
            turned = images.rot90(view.quarter_turns, (-2, -1)).flip(view.flipped_axes)
            logits.append(self.model(turned.contiguous(), features))
        return torch.stack(logits).mean(0)
