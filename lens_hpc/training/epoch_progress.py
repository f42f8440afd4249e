"""The progress of an epoch, and when the run will have ended."""

import time

from lens_hpc.progress import Progress, duration_text
from lens_hpc.training.best import LOSS, RECORDED, TITLES
from lens_hpc.training.checkpoints import TrainingState
from lens_hpc.training.metrics_log import EpochFacts
from lens_hpc.training.trainer import Trainer

SCORING_WORK = 1 / 3
"""Of a cutout, where training is 1: a step goes back as well, which takes twice as long."""


class Pace:
    """How fast this call comes on with its run, with all that it does beside training.

    Work is counted in cutouts of training.
    """

    def __init__(self, trainer: Trainer, state: TrainingState) -> None:
        validated = len(trainer.validation_loader.samples.split)
        self.trained = trainer.order.samples
        self.of_epoch = self.trained + SCORING_WORK * validated
        self.of_run = trainer.settings.train.epochs * self.of_epoch

        into_epoch = state.step / trainer.order.steps - state.epochs_done
        self.before = state.epochs_done * self.of_epoch + into_epoch * self.trained
        self.began = time.monotonic()

    def seconds_left(self, work: float) -> float:
        """Return the time until the end of the run, when so much of its work is done."""
        seconds = time.monotonic() - self.began
        return seconds * (self.of_run - work) / (work - self.before)


class EpochProgress(Progress):
    """How much is trained of what was left of an epoch; the first process shows it.

    `last` is what was recorded of the epoch before, if anything.
    """

    def __init__(
        self, trainer: Trainer, pace: Pace, epoch: int, samples: int, last: EpochFacts
    ) -> None:
        self.pace = pace
        self.work_before = epoch * pace.of_epoch + pace.trained - samples
        loop = trainer.settings.train
        title = f"epoch {epoch + 1}/{loop.epochs}"
        super().__init__(samples, title, "cutouts", trainer.accelerator.is_main_process)

        # The number that chooses the best weights is shown beside the usual two.
        for name in dict.fromkeys([LOSS, "auc", loop.best]):
            if RECORDED + name in last:
                self.facts[f"val {TITLES[name]}"] = f"{last[RECORDED + name]:.4f}"

    def time_left(self) -> str:
        """Say when the run will be done; empty as long as nobody knows."""
        if not self.done:
            return ""
        seconds = self.pace.seconds_left(self.work_before + self.done)
        return f"{duration_text(seconds)} of the run left"
