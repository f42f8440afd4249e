"""sweep: draw settings from ranges, train each, and find the best by validation."""

from typing import TYPE_CHECKING

from lens_hpc.errors import STOPPED_STATUS
from lens_hpc.sweeping.sweep_settings import SweepSettings as Settings

if TYPE_CHECKING:
    from lens_hpc.sweeping.results import Sweep

TARGET = "SWEEP"
EXTRA = "sweep"
SUMMARY = (
    "Train with settings that Optuna draws from the ranges in the file SWEEP, each with one or "
    "more seeds or folds, and tell which are best by validation. Any number of tasks share a "
    "sweep, and the same line goes on with it."
)
EXAMPLE = "lens-hpc sweep configs/sweep/demo.yaml trials=10"


def run(settings: Settings) -> "Sweep":
    """Train what is left of the sweep, and write its table, picture and best settings."""
    from lens_hpc.sweeping.sweep import sweep  # imports torch and optuna
    from lens_hpc.sweeping.trial_process import TrainCommand

    return sweep(settings, TrainCommand(settings.processes, settings.code))


def text(sweep: "Sweep") -> str:
    """Say what was tried, and what is best."""
    return sweep.text


def status(sweep: "Sweep") -> int:
    """A sweep that was stopped, and waits for the same line again, is told apart."""
    return STOPPED_STATUS if sweep.stopped else 0
