"""Losses of steps: taken from all processes now and then, and checked."""

import json
from collections.abc import Sequence

import numpy as np
import torch
from accelerate.utils import gather_object

from lens_hpc import files, layout
from lens_hpc.errors import UserError
from lens_hpc.training.trainer import StepResult, Trainer


def reduce_losses(trainer: Trainer, results: Sequence[StepResult]) -> list[float]:
    """Return the mean loss of each step over all processes, which all must call this.

    Until then losses stay on the device, so that no step waits for it.
    """
    own = torch.stack([result.loss for result in results])
    return trainer.accelerator.reduce(own, reduction="mean").tolist()


def check_losses(
    trainer: Trainer, losses: Sequence[float], results: Sequence[StepResult], last_step: int
) -> None:
    """Raise UserError, on all processes, when the loss of a step is not a finite number.

    The ids of that step's samples are then in RUN/nonfinite.json.
    """
    for position, loss in enumerate(losses):
        if np.isfinite(loss):
            continue
        step = last_step - len(losses) + position + 1
        rate = trainer.rate.now()
        file = trainer.settings.run / layout.NONFINITE

        # A draw stands for a row, or for a copy of it where classes are balanced.
        rows = gather_object((results[position].draws % trainer.order.rows).tolist())
        if trainer.accelerator.is_main_process:
            ids = trainer.train_loader.samples.split.ids(np.array(rows)).tolist()
            files.write_text(file, json.dumps({"step": step, "lr": rate, "ids": ids}) + "\n")

        raise UserError(
            f"the loss became {loss} in step {step} at learning rate {rate:.1e}; "
            "lower optim.lr, or set optim.gradient_clip. "
            f"The samples of that step are in {file}"
        )
