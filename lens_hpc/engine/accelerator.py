"""The one place where an Accelerator is made."""

import os
import warnings
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedType, ProjectConfiguration

from lens_hpc import UserError, config
from lens_hpc.engine import zero


def make_accelerator(settings: config.Train | None = None) -> Accelerator:
    """An Accelerator on the GPUs, or on the CPU where there is none; without settings, for evaluation in float32.

    UserError when the launcher asked for more processes than came together: they would train side by side, each alone.
    """
    gpu, zero_stages = torch.accelerator.is_available(), settings is not None and zero.is_used()
    loop = settings.train if settings else config.Loop()
    if loop.precision == "fp16" and not gpu:
        raise UserError("train.precision = fp16: needs a GPU, and this machine shows none; choose bf16 or no")
    # torch 2.14 has a new name for broadcast_buffers that Accelerate does not know yet
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
    trackers, run = (list(loop.trackers), settings.run) if settings else ([], None)
    available = [str(tracker) for tracker in get_available_trackers()]
    if missing := [tracker for tracker in trackers if tracker not in available]:
        raise UserError(f"train.trackers = {missing}: unknown or not installed; here are: {', '.join(available)}")
    clip = settings.optim.gradient_clip if settings else None
    accelerator = Accelerator(
        cpu=not gpu and not zero_stages,
        mixed_precision="no" if zero_stages else loop.precision,
        deepspeed_plugin=zero.make_plugin(loop.precision, clip) if zero_stages else None,
        log_with=trackers or None,
        project_config=ProjectConfiguration(project_dir=run, logging_dir=run / "tensorboard") if run else None,
        # each rank keeps its own BatchNorm statistics while it trains; they are averaged before they are used
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False),
            InitProcessGroupKwargs(
                backend="gloo" if zero_stages and not gpu else None, timeout=timedelta(minutes=loop.timeout_minutes)
            ),
        ],
    )
    wanted = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != wanted:
        raise UserError(
            f"the launcher started {wanted} processes, but {accelerator.num_processes} came together: they would each "
            "train alone. Set ACCELERATE_USE_CPU=true to train on the CPU, or check that every process sees a GPU"
        )
    if zero_stages and accelerator.distributed_type != DistributedType.DEEPSPEED:
        raise UserError(
            "the launcher's config file asks for DeepSpeed, which ACCELERATE_USE_CPU=true keeps out; unset it"
        )
    return accelerator
