"""check: before the queue, everything of a training that could fail later."""

from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveInt

from lens_hpc.config import Train
from lens_hpc.settings import FilePath

if TYPE_CHECKING:
    from lens_hpc.training.readiness import Readiness

TARGET = "CONFIG"
EXTRA = "train"
SUMMARY = (
    "Find in seconds, before the queue, what could fail later: config, data, weights, batches, "
    "disk, memory."
)
EXAMPLE = "lens-hpc check configs/train/demo.yaml world_size=4"


class Settings(Train):
    """Settings of `lens-hpc check`: those of `train`, and the job to come."""

    shown_first: ClassVar[tuple[str, ...]] = ("world_size", "sbatch", *Train.shown_first[:-1])

    world_size: PositiveInt = 1
    """Processes of the job: GPUs of all nodes together."""
    sbatch: FilePath | None = None
    """Batch script of the job; its nodes and GPUs then give the world size."""


def run(settings: Settings) -> "Readiness":
    """Check config, data, weights, batches, run folder, disk and memory.

    Raises UserError with every problem.
    """
    from lens_hpc.training.readiness import check_training, world_size_of  # imports torch

    training = Train(**{name: getattr(settings, name) for name in Train.model_fields})
    world_size = world_size_of(settings.sbatch) if settings.sbatch else settings.world_size
    return check_training(training, world_size)


def text(readiness: "Readiness") -> str:
    """Show a line for each check."""
    lines = [f"  {name:<12}{found}" for name, found in readiness.found.items()]
    return "\n".join([*lines, f"ready for {readiness.world_size} processes"])
