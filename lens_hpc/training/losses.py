"""Losses of steps: taken from all processes now and then, and checked.

Looking at a loss would let this process wait until the GPU has done all that it was told. So the
losses of some steps are sent to the host together, and are looked at when the next are sent.
"""

import json
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.utils import gather_object

from lens_hpc import files, layout
from lens_hpc.errors import UserError
from lens_hpc.training.trainer import StepResult, Trainer


class SentLosses(NamedTuple):
    """Losses of steps in a row, on their way from the device to the host."""

    losses: torch.Tensor
    """(steps,) means over all processes, on the host when `arrived` has happened."""
    arrived: Any
    """An event of the GPU; None where nothing need be waited for."""
    results: list[StepResult]
    last_step: int
    """How many steps of the run had been done after the last of them."""
    rate: float
    """Learning rate of the last of them."""


def send_losses(trainer: Trainer, results: list[StepResult], last_step: int) -> SentLosses:
    """Begin to send the losses of steps to the host. All processes must call it."""
    own = torch.stack([result.loss for result in results])
    mean: Any = trainer.accelerator.reduce(own, reduction="mean")

    if mean.device.type != "cuda":
        return SentLosses(mean, None, results, last_step, trainer.rate.now())
    on_host = torch.empty(mean.shape, dtype=mean.dtype, pin_memory=True)
    on_host.copy_(mean, non_blocking=True)
    arrived = torch.cuda.current_stream(mean.device).record_event()
    return SentLosses(on_host, arrived, results, last_step, trainer.rate.now())


def receive_losses(trainer: Trainer, sent: SentLosses) -> list[float]:
    """Return the mean loss of each step, when they have arrived, after `check_losses`."""
    if sent.arrived:
        sent.arrived.synchronize()
    losses: list[float] = sent.losses.tolist()
    check_losses(trainer, losses, sent)
    return losses


def check_losses(trainer: Trainer, losses: list[float], sent: SentLosses) -> None:
    """Raise UserError, on all processes, when the loss of a step is not a finite number.

    The ids of that step's samples are then in RUN/nonfinite.json.
    """
    for position, loss in enumerate(losses):
        if np.isfinite(loss):
            continue
        step = sent.last_step - len(losses) + position + 1
        file = trainer.settings.run / layout.NONFINITE

        # A draw stands for a row, or for a copy of it where classes are balanced.
        rows = gather_object((sent.results[position].draws % trainer.order.rows).tolist())
        if trainer.accelerator.is_main_process:
            ids = trainer.train_loader.samples.split.ids(np.array(rows)).tolist()
            files.write_text(file, json.dumps({"step": step, "lr": sent.rate, "ids": ids}) + "\n")

        raise UserError(
            f"the loss became {loss} in step {step} at learning rate {sent.rate:.1e}; "
            "lower optim.lr, or set optim.gradient_clip. "
            f"The samples of that step are in {file}"
        )
