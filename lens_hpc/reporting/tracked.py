"""Figures and cutouts of an evaluation, where the run's training was shown."""

from pathlib import Path

from lens_hpc import layout
from lens_hpc.model.trained import TrainedModel
from lens_hpc.training.trackers import show_pictures


def show_in_trackers(evaluation: Path, run: Path, model: TrainedModel) -> None:
    """Show the pictures of an evaluation of a run at the step of its weights."""
    # A run may have been moved since it was trained.
    settings = model.settings.model_copy(update={"run": run})
    pictures = sorted((evaluation / layout.FIGURES).glob("*.png"))
    step = int(model.facts.get("step", 0))
    show_pictures(settings, evaluation.name, {file.stem: file for file in pictures}, step)
