"""train: fit the fusion model to a packed dataset, or go on where an earlier start was stopped."""

from typing import TYPE_CHECKING

from lens_hpc.config import Train as Settings
from lens_hpc.errors import STOPPED_STATUS

if TYPE_CHECKING:
    from lens_hpc.training.loop import TrainingResult

TARGET = "CONFIG"
EXTRA = "train"
SUMMARY = "Train the fusion model on a packed dataset, or go on with a run that was stopped."
EXAMPLE = "lens-hpc train configs/train/demo.yaml train.epochs=5 processes=2"
PROCESSES = (
    "Processes to start on this machine, one a GPU; without GPUs they share the cores. For several "
    "machines: accelerate launch."
)


def run(settings: Settings) -> "TrainingResult":
    """Train, in as many processes as the launcher started; the same call goes on with a run."""
    from lens_hpc.training.loop import train_run  # imports torch

    return train_run(settings)


def text(result: "TrainingResult") -> str:
    """Say nothing: the log has told each epoch already."""
    return ""


def status(result: "TrainingResult") -> int:
    """A run that was stopped, and waits for the same line again, is told apart."""
    return STOPPED_STATUS if result.stopped else 0
