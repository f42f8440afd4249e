"""The one place where an Accelerator is made, and where it is taken apart again."""

import atexit
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedType, ProjectConfiguration
from torch import distributed

from lens_hpc import config
from lens_hpc.errors import UserError
from lens_hpc.layout import TENSORBOARD
from lens_hpc.logs import quieted
from lens_hpc.process import environment_unchanged, float32_kept, torch_unchanged
from lens_hpc.training import deepspeed


@contextmanager
def accelerator_session(settings: config.Train | None = None) -> Iterator[Accelerator]:
    """Yield an Accelerator on the GPUs, or on the CPU where there is none.

    Without settings it is for evaluation in float32. Afterwards torch, Accelerate, the environment
    and the process group of a single process are as they were, so that a notebook can train twice;
    the group of several processes stays for the next call. Raises UserError when the launcher asked
    for more processes than came together: each would train alone.
    """
    with (
        environment_unchanged(),
        torch_unchanged(),
        float32_kept(settings is not None and settings.train.tf32),
        warnings.catch_warnings(),
        quieted("DeepSpeed"),
        _accelerate_unchanged(),
    ):
        # torch 2.14 has a new name for broadcast_buffers that Accelerate does not know yet.
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
        group_is_the_callers = distributed.is_initialized()
        accelerator = _make_accelerator(settings)

        try:
            check_world(accelerator, settings)
            # The first process keeps the store that the others still join by: if it left because
            # of a mistake in the settings, they would end with an error of their own.
            accelerator.wait_for_everyone()
            yield accelerator

            # Kept until the process ends: torch cannot join the same processes a second time. A
            # rank that fails leaves without a farewell, for which it might wait in vain.
            if accelerator.num_processes > 1 and not group_is_the_callers:
                atexit.register(_leave_process_group)
        finally:
            for tracker in accelerator.trackers:
                tracker.finish()
            if accelerator.num_processes == 1 and not group_is_the_callers:
                _leave_process_group()


def _leave_process_group() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def _accelerate_unchanged() -> Iterator[None]:
    """Give Accelerate a fresh state, and restore the one that a notebook may have."""
    states = [state._shared_state for state in (AcceleratorState, PartialState, GradientState)]
    before = [dict(state) for state in states]
    for state in states:
        state.clear()
    try:
        yield
    finally:
        for state, kept in zip(states, before, strict=True):
            state.clear()
            state.update(kept)


def _make_accelerator(settings: config.Train | None) -> Accelerator:
    has_gpu = torch.accelerator.is_available()
    uses_deepspeed = settings is not None and deepspeed.is_used()
    loop = settings.train if settings else config.Loop()
    if loop.precision == "fp16" and not has_gpu:
        raise UserError(
            "train.precision = fp16: needs a GPU, and this machine shows none; choose bf16 or no"
        )

    project = None
    trackers: list[str] = []
    if settings:
        trackers = list(loop.trackers)
        _check_trackers(trackers)
        project = ProjectConfiguration(settings.run, logging_dir=settings.run / TENSORBOARD)

    plugin = None
    backend = None
    if uses_deepspeed:
        assert settings is not None
        plugin = deepspeed.make_plugin(loop.precision, settings.optim.gradient_clip)
        backend = None if has_gpu else "gloo"

    return Accelerator(
        cpu=not has_gpu and not uses_deepspeed,
        mixed_precision="no" if uses_deepspeed else loop.precision,
        deepspeed_plugin=plugin,
        log_with=trackers or None,
        project_config=project,
        kwargs_handlers=[
            # Each rank keeps its own BatchNorm statistics while it trains; they are averaged before
            # they are used.
            DistributedDataParallelKwargs(broadcast_buffers=False),
            InitProcessGroupKwargs(
                backend=backend, timeout=timedelta(minutes=loop.timeout_minutes)
            ),
        ],
    )


def _check_trackers(wanted: list[str]) -> None:
    available = [str(tracker) for tracker in get_available_trackers()]
    missing = [tracker for tracker in wanted if tracker not in available]
    if missing:
        raise UserError(
            f"train.trackers = {missing}: unknown or not installed; here are: "
            f"{', '.join(available)}"
        )


def check_world(accelerator: Accelerator, settings: config.Train | None = None) -> None:
    """Raise UserError unless the launcher's processes, and DeepSpeed where asked for, are there."""
    wanted = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != wanted:
        raise UserError(
            f"the launcher started {wanted} processes, but {accelerator.num_processes} came "
            "together: they would each train alone. Set ACCELERATE_USE_CPU=true to train on the "
            "CPU, or check that every process sees a GPU"
        )
    wants_deepspeed = settings is not None and deepspeed.is_used()
    if wants_deepspeed and accelerator.distributed_type != DistributedType.DEEPSPEED:
        raise UserError(
            "the launcher's config file asks for DeepSpeed, which ACCELERATE_USE_CPU=true keeps "
            "out; unset it"
        )
