"""What a launcher, a driver and the settings make of the devices: refuse what nobody can want.

Each of these would otherwise train in silence, but slowly or on something else than was asked for.
"""

import os
import platform
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import parse_flag_from_env
from torch import distributed

from lens_hpc import config
from lens_hpc.errors import UserError
from lens_hpc.logs import logger

DEVICE_FILES = Path("/dev")

FOREIGN_STRATEGIES = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}
SETTING_INSTEAD_OF = {
    "ACCELERATE_MIXED_PRECISION": "train.precision",
    "ACCELERATE_DYNAMO_BACKEND": "train.compile",
}


def has_gpu() -> bool:
    """Whether there is a GPU, or another accelerator, that the user does not leave alone."""
    return torch.accelerator.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU")


def has_device_files() -> bool:
    """Whether the driver shows a GPU of NVIDIA, be it that PyTorch can use it or not."""
    return any(DEVICE_FILES.glob("nvidia[0-9]*"))


def is_cpu_chosen() -> bool:
    """Whether the user said that no GPU shall be used, as configs/accelerate/cpu.yaml does."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return parse_flag_from_env("ACCELERATE_USE_CPU")

    # CUDA sees what stands before the first entry that names no GPU. Slurm writes NoDevFiles.
    first = visible.split(",")[0].strip()
    names_gpu = first.isdigit() or first.startswith(("GPU-", "MIG-"))
    return not names_gpu or parse_flag_from_env("ACCELERATE_USE_CPU")


# ---- before the processes meet ----


def check_cpu(precision: str, uses_deepspeed: bool) -> None:
    """Raise UserError where work on the CPU is not what the user asked for."""
    if precision == "fp16":
        reason = "this machine shows none"
        if torch.accelerator.is_available():
            reason = "ACCELERATE_USE_CPU=true forbids it; unset that"
        raise UserError(f"train.precision = fp16: needs a GPU, and {reason}, or choose bf16 or no")
    if is_cpu_chosen():
        return

    problem = ""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if has_device_files():
        problem = f"{platform.node()} has a GPU that PyTorch cannot use: {_cuda_error()}"
    elif processes > 1:
        problem = (
            f"the launcher started {processes} processes for GPUs, and {platform.node()} has none"
        )

    # It has no other way to be told to use the CPU.
    if problem and uses_deepspeed:
        logger.warning("%s: DeepSpeed works on the CPU", problem)
    elif problem:
        raise UserError(
            f"{problem}. To work on the CPU all the same, set ACCELERATE_USE_CPU=true, or launch "
            "with configs/accelerate/cpu.yaml"
        )


def _cuda_error() -> str:
    """Say why CUDA cannot be used."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return str(error).splitlines()[0].rstrip(".")
    return "it does not say why"


def check_launcher(settings: config.Loop | None) -> None:
    """Raise UserError for a strategy that lens_hpc has not, and warn of what it does not heed."""
    for variable, strategy in FOREIGN_STRATEGIES.items():
        if parse_flag_from_env(variable):
            raise UserError(
                f"the launcher asks for {strategy}, which lens_hpc has not; use a config file of "
                "configs/accelerate: DistributedDataParallel, or DeepSpeed"
            )
    if settings is None:
        return

    chosen = {"train.precision": settings.precision != "no", "train.compile": settings.compile}
    for variable, setting in SETTING_INSTEAD_OF.items():
        value = os.environ.get(variable, "no").lower()
        if value != "no" and not chosen[setting]:
            logger.warning("the launcher's %s=%s is not heeded: set %s", variable, value, setting)


# ---- when they have met ----


def check_gpus(accelerator: Accelerator, precision: str) -> None:
    """Raise UserError when two processes share a GPU; warn of those that are left unused."""
    if accelerator.device.type != "cuda":
        return
    if accelerator.num_processes > 1:
        _check_own_gpu(accelerator)
    if not accelerator.is_main_process:
        return

    # A launch that does not say how many processes a node has may well use all.
    alone = "1" if accelerator.num_processes == 1 else str(torch.cuda.device_count())
    used = int(os.environ.get("LOCAL_WORLD_SIZE", alone))
    visible = torch.cuda.device_count()
    if used < visible:
        logger.warning(
            "%d of the %d GPUs here are used. To use all, add processes=%d; to hide the others, "
            "set CUDA_VISIBLE_DEVICES",
            used,
            visible,
            visible,
        )
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name(accelerator.device)
        logger.warning("train.precision = bf16: %s only imitates it, slowly; choose fp16", name)


def _check_own_gpu(accelerator: Accelerator) -> None:
    """Raise UserError when another process has the same GPU.

    Processes that see one GPU each are fine if it is not the same one, so it is told by its UUID
    and by its place on the bus: some cards have no UUID of their own.
    """
    rank = str(accelerator.process_index)
    properties = torch.cuda.get_device_properties(accelerator.device)
    places = ("uuid", "pci_domain_id", "pci_bus_id", "pci_device_id")
    gpu = "/".join(str(getattr(properties, name, "")) for name in places)
    store = distributed.distributed_c10d._get_default_store()

    owner = store.compare_set(f"lens_hpc/gpu/{platform.node()}/{gpu}", "", rank).decode()
    if owner != rank:
        on_node = os.environ.get("LOCAL_WORLD_SIZE", "several")
        raise UserError(
            f"ranks {owner} and {rank} share one GPU of {platform.node()}: the launcher started "
            f"{on_node} processes there, and PyTorch sees {torch.cuda.device_count()} GPUs; "
            "start one process a GPU (--num_processes)"
        )
