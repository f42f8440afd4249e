"""The one place where an Accelerator is made, and where it is taken apart again."""

import atexit
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedType
from accelerate.utils.environment import get_cpu_distributed_information
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from lens_hpc import config
from lens_hpc.errors import UserError
from lens_hpc.logs import quieted
from lens_hpc.process import environment_unchanged, float32_kept, torch_unchanged
from lens_hpc.resources import usable_cpus
from lens_hpc.training import deepspeed, devices
from lens_hpc.training.heart import heart_beating
from lens_hpc.training.trackers import check_trackers


@contextmanager
def accelerator_session(settings: config.Train | None = None) -> Iterator[Accelerator]:
    """Yield an Accelerator on the GPUs, or on the CPU where there is none.

    Without settings it is for evaluation in float32. Afterwards torch, Accelerate, the environment
    and the process group of a single process are as they were, so that a notebook can train twice;
    the group of several processes stays for the next call. Raises UserError when processes or
    devices are not those that the launcher and the settings ask for.
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
        _limit_threads()
        _choose_algorithms(settings)
        _name_processes_of_mpi()
        _check_before_meeting(settings)
        loop = settings.train if settings else config.Loop()
        with heart_beating(60 * loop.timeout_minutes) as heart, _changing_bits_named():
            group_is_the_callers = distributed.is_initialized()
            accelerator = _make_accelerator(settings)
            try:
                check_world(accelerator, settings)
                assert accelerator.num_processes == heart.world_size
                yield accelerator

                # Kept until the process ends: torch cannot join the same processes a second time.
                # A rank that fails leaves without a farewell, for which it might wait in vain.
                if accelerator.num_processes > 1 and not group_is_the_callers:
                    atexit.register(_leave_process_group)
            finally:
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


@contextmanager
def _changing_bits_named() -> Iterator[None]:
    """Raise UserError where torch has no algorithm that gives the same bits each time."""
    try:
        yield
    except RuntimeError as error:
        if "use_deterministic_algorithms" not in str(error):
            raise
        reason = str(error).partition(".")[0]
        raise UserError(
            f"train.deterministic = true: {reason}. Choose another model.backbone, or "
            "train.deterministic=false"
        ) from error


def _limit_threads() -> None:
    """Let torch use the cores of this process alone, unless the user has set a number."""
    if {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & set(os.environ):
        return
    threads = min(torch.get_num_threads(), usable_cpus())
    torch.set_num_threads(threads)
    # Otherwise Accelerate counts the cores of the whole machine.
    os.environ["OMP_NUM_THREADS"] = str(threads)


def _choose_algorithms(settings: config.Train | None) -> None:
    """Let a GPU try which convolutions are fastest, or choose those that give the same bits.

    What was tried first may be chosen or not, so evaluation, which shall give the same scores each
    time, does not try.
    """
    deterministic = settings is not None and settings.train.deterministic
    torch.backends.cudnn.benchmark = settings is not None and not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
        torch.backends.cudnn.deterministic = True
        torch.use_deterministic_algorithms(True)


def _name_processes_of_mpi() -> None:
    """Give rank and number of processes their usual names, where MPI has started them on CPUs."""
    world = get_cpu_distributed_information()
    if "RANK" in os.environ or world.world_size == 1 or devices.has_gpu():
        return
    os.environ["RANK"], os.environ["WORLD_SIZE"] = str(world.rank), str(world.world_size)
    os.environ["LOCAL_RANK"] = str(world.local_rank)
    os.environ["LOCAL_WORLD_SIZE"] = str(world.local_world_size)
    os.environ.setdefault("MASTER_PORT", "29500")
    if world.local_world_size == world.world_size:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")


def _check_before_meeting(settings: config.Train | None) -> None:
    """Raise UserError for what each process can see to be wrong by itself."""
    loop = settings.train if settings else config.Loop()
    devices.check_launcher(settings.train if settings else None)
    if not devices.has_gpu():
        uses_deepspeed = settings is not None and deepspeed.is_used()
        devices.check_cpu(loop.precision, uses_deepspeed)
    if settings:
        check_trackers(loop.trackers)


def _make_accelerator(settings: config.Train | None) -> Accelerator:
    has_gpu = devices.has_gpu()
    uses_deepspeed = settings is not None and deepspeed.is_used()
    loop = settings.train if settings else config.Loop()

    plugin = None
    backend = None
    if uses_deepspeed:
        assert settings is not None
        plugin = deepspeed.make_plugin(loop.precision, settings.optim.gradient_clip)
        backend = None if has_gpu else "gloo"

    return Accelerator(
        cpu=not has_gpu and not uses_deepspeed,
        mixed_precision="no" if uses_deepspeed else loop.precision,
        dynamo_backend="no",  # train.compile does it
        deepspeed_plugin=plugin,
        kwargs_handlers=[
            # Each rank keeps its own BatchNorm statistics while it trains; they are averaged before
            # they are used. Gradients are added up where they lie, without a second copy.
            DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
            InitProcessGroupKwargs(
                backend=backend, timeout=timedelta(minutes=loop.timeout_minutes)
            ),
        ],
    )


def check_world(accelerator: Accelerator, settings: config.Train | None = None) -> None:
    """Raise UserError unless processes, GPUs, and DeepSpeed where asked for, are there."""
    wanted = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != wanted:
        raise UserError(
            f"the launcher started {wanted} processes, but {accelerator.num_processes} came "
            "together: they would each train alone. Set ACCELERATE_USE_CPU=true to train on the "
            "CPU, or check that every process sees a GPU"
        )
    devices.check_gpus(accelerator, settings.train.precision if settings else "no")

    wants_deepspeed = settings is not None and deepspeed.is_used()
    if wants_deepspeed and accelerator.distributed_type != DistributedType.DEEPSPEED:
        raise UserError(
            "the launcher's config file asks for DeepSpeed, which ACCELERATE_USE_CPU=true keeps "
            "out; unset it"
        )


def bare_model(model: Any) -> nn.Module:
    """Return the model without what Accelerate has put around it.

    Its own `unwrap_model` imports DeepSpeed to ask whose wrapper that is, seconds of each start.
    """
    is_wrapped = isinstance(model, DistributedDataParallel) or deepspeed.is_used()
    return model.module if is_wrapped else model
