"""The one place where an Accelerator is made."""

import os
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import ProjectConfiguration

from lens_hpc import UserError


def make_accelerator(
    precision: str = "no", run: Path | None = None, trackers: Sequence[str] = (), timeout_minutes: float = 10.0
) -> Accelerator:
    """An Accelerator on the GPUs, or on the CPU where there is none, whose trackers write into RUN.

    UserError when the launcher asked for more processes than came together: they would train side by side, each alone.
    """
    gpu = torch.accelerator.is_available()
    if precision == "fp16" and not gpu:
        raise UserError("train.precision = fp16: needs a GPU, and this machine shows none; choose bf16 or no")
    # torch 2.14 has a new name for broadcast_buffers that Accelerate does not know yet
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
    accelerator = Accelerator(
        cpu=not gpu,
        mixed_precision=precision,
        log_with=list(trackers) or None,
        project_config=ProjectConfiguration(project_dir=run, logging_dir=run / "tensorboard") if run else None,
        # each rank keeps its own BatchNorm statistics while it trains; they are averaged before they are used
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=timedelta(minutes=timeout_minutes)),
        ],
    )
    wanted = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != wanted:
        raise UserError(
            f"the launcher started {wanted} processes, but {accelerator.num_processes} came together: they would each "
            "train alone. Set ACCELERATE_USE_CPU=true to train on the CPU, or check that every process sees a GPU"
        )
    return accelerator
