"""The one place where an Accelerator is made."""

import os
import warnings
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import ProjectConfiguration

from lens_hpc import UserError


def make_accelerator(precision: str = "no", run: Path | None = None) -> Accelerator:
    """An Accelerator on the GPUs, or on the CPU where there is none; it logs to RUN/tensorboard when `run` is given.

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
        log_with="tensorboard" if run else None,
        project_config=ProjectConfiguration(project_dir=run, logging_dir=run) if run else None,
        # each rank keeps its own BatchNorm statistics while it trains; they are averaged before they are used
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    wanted = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != wanted:
        raise UserError(
            f"the launcher started {wanted} processes, but {accelerator.num_processes} came together: they would each "
            "train alone. Set ACCELERATE_USE_CPU=true to train on the CPU, or check that every process sees a GPU"
        )
    return accelerator
