"""bench: where the time of a training would go on this machine, and which setting to turn."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveFloat

from lens_hpc.config import Train
from lens_hpc.settings import FilePath

if TYPE_CHECKING:
    from lens_hpc.training.bottleneck import Rates

TARGET = "CONFIG"
EXTRA = "train"
SUMMARY = (
    "Measure for a minute where the time of a training would go on this machine, and which "
    "setting to turn."
)
EXAMPLE = "lens-hpc bench configs/train/demo.yaml"
PROCESSES = (
    "Processes to start on this machine, one a GPU; without GPUs they share the cores. For several "
    "machines: accelerate launch."
)


class Settings(Train):
    """Settings of `lens-hpc bench`: those of `train`, and how long to measure."""

    shown_first: ClassVar[tuple[str, ...]] = ("seconds", *Train.shown_first)

    run: FilePath = Path("runs/bench")
    """Not used: bench writes nothing."""
    seconds: PositiveFloat = 6.0
    """How long each part is measured."""


def run(settings: Settings) -> "Rates | None":
    """Measure the parts of a training, on all processes; the first returns what was found."""
    from lens_hpc.training.bottleneck import measure_rates  # imports torch

    return measure_rates(settings, settings.seconds)


def text(rates: "Rates") -> str:
    """Show the rate of each part, and the advice that follows."""
    together = f" of {rates.processes} processes together" if rates.processes > 1 else ""
    lines = [f"{rates.rows:,} training rows, {rates.batch_size} a batch, samples/s{together}:"]
    lines += [f"  {part:<22}{rate:>12,.0f}" for part, rate in rates.samples_per_second.items()]
    return "\n".join([*lines, rates.advice])
