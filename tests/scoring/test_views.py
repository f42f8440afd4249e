import numpy as np
import pytest
import torch

from lens_hpc.errors import UserError
from lens_hpc.scoring.views import VIEWS, OverViews


class FirstPixel(torch.nn.Module):
    """A logit that depends on how the cutout lies."""

    def forward(self, images: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        return images[:, 0, 0, 1]


@pytest.mark.parametrize(("kind", "views"), [("none", 1), ("flips", 4), ("d4", 8)])
def test_the_mean_over_views_is_over_each_position_once(kind: str, views: int) -> None:
    images = torch.arange(2 * 16.0).reshape(2, 1, 4, 4).pow(2)
    positions = {
        tuple(turned.flip(dims)[0, 0].flatten().tolist())
        for turned in (images.rot90(n, (-2, -1)) for n in range(4 if kind == "d4" else 1))
        for dims in ([(), (-1,), (-2,), (-2, -1)] if kind != "none" else [()])
    }
    assert len(positions) == len(VIEWS[kind]) == views
    mean = OverViews(FirstPixel(), kind, (4, 4))(images, torch.empty(2, 0))
    assert mean[0].item() == pytest.approx(np.mean([position[1] for position in positions]))


def test_a_logit_over_all_views_does_not_depend_on_how_the_cutout_lies() -> None:
    model, images = OverViews(FirstPixel(), "d4", (4, 4)), torch.rand(3, 1, 4, 4)
    turned = model(images.rot90(1, (-2, -1)).flip(-1), torch.empty(3, 0))
    torch.testing.assert_close(model(images, torch.empty(3, 0)), turned)


def test_cutouts_that_are_not_square_cannot_be_turned() -> None:
    with pytest.raises(
        UserError, match="tta = d4: cutouts of 4 x 6 pixels cannot be turned; choose tta=flips"
    ):
        OverViews(FirstPixel(), "d4", (4, 6))
