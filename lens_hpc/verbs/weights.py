"""weights: fetch timm's pretrained weights where there is internet, for nodes that have none."""

from typing import TYPE_CHECKING

from lens_hpc.config import Train as Settings

if TYPE_CHECKING:
    from lens_hpc.model.pretrained import Fetched

TARGET = "CONFIG"
EXTRA = "train"
SUMMARY = (
    "Fetch timm's pretrained weights of a config's backbone into a folder, for compute nodes "
    "without internet."
)
EXAMPLE = "lens-hpc weights configs/train/resnet50.yaml"


def run(settings: Settings) -> "Fetched":
    """Download the weights of the config's backbone into its folder, unless they are there."""
    from lens_hpc.model.pretrained import fetch_weights  # imports torch

    return fetch_weights(settings.model)


def text(fetched: "Fetched") -> str:
    """Say where the weights are."""
    return fetched.text
