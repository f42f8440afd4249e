"""DeepSpeed ZeRO: the launcher's config file says the stage, everything else comes from the run's settings.

Checkpoints hold whole tensors by name, like those of any other run, so that a run may go on with another number of
processes or another stage. They are gathered from DeepSpeed's flat pieces (0.19), which hold the float32 weights of
many parameters in a row:

    ZeRO 1, 2   the row is cut into as many pieces as there are processes
    ZeRO 3      every parameter is cut so, and a process's piece holds its part of each
"""

import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import DeepSpeedPlugin
from torch import distributed, nn

from lens_hpc import UserError

WEIGHTS, MOMENTS = "weights", ("exp_avg", "exp_avg_sq")


def is_used() -> bool:
    """Whether the launcher's config file asks for DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true"


def make_plugin(precision: str, gradient_clip: float | None) -> DeepSpeedPlugin:
    """DeepSpeed as the settings want it. It neither divides a loss nor counts micro-batches: `train_step` does."""
    if precision == "fp16":
        raise UserError("train.precision = fp16: not with DeepSpeed here; choose bf16 or no")
    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        plugin = DeepSpeedPlugin()
    except ImportError as error:
        raise UserError(f"DeepSpeed is not installed ({error}); pip install 'lens_hpc[deepspeed]'") from error
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    plugin.deepspeed_config.update(
        train_micro_batch_size_per_gpu=1,
        gradient_accumulation_steps=1,
        gradient_clipping=gradient_clip or 0.0,  # left out, DeepSpeed clips to 1
        timers={"throughput": {"enabled": False, "synchronized": False}},  # they wait for the GPU each step
    )
    if precision == "bf16":  # DeepSpeed's own bf16 breaks BatchNorm
        plugin.deepspeed_config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    return plugin


def is_cut(module: nn.Module) -> bool:
    """Whether parameters are cut (ZeRO 3), so that no process has them whole."""
    return any(hasattr(parameter, "ds_id") for parameter in module.parameters())


def whole_weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """The state_dict with whole parameters, on every process. All must call it."""
    state = dict(module.state_dict())
    parameters: dict[str, Any] = dict(module.named_parameters())
    for name, parameter in parameters.items():
        if hasattr(parameter, "ds_id"):
            pieces = _gather(parameter.ds_tensor.flatten())
            state[name] = pieces.flatten()[: parameter.ds_numel].view(parameter.ds_shape)
    return state


def capture(module: nn.Module, optimizer: Any) -> dict[str, dict[str, torch.Tensor]]:
    """Float32 weights and AdamW's moments by parameter, whole. All processes must call it."""
    zero, names = optimizer.optimizer, {id(p): name for name, p in module.named_parameters()}
    whole: dict[str, dict[str, torch.Tensor]] = {kind: {} for kind in (WEIGHTS, *MOMENTS)}
    for flat, places, cut in _pieces(zero):
        state = {WEIGHTS: flat, **zero.optimizer.state.get(flat, {})}
        for kind, by_name in whole.items():
            if kind not in state:
                continue
            rows = _gather(state[kind])
            for parameter, begin, length in places:
                shape = parameter.ds_shape if cut else parameter.shape
                values = rows[:, begin : begin + length] if cut else rows.flatten()[begin : begin + length]
                by_name[names[id(parameter)]] = values.flatten()[: shape.numel()].view(shape)
    return whole


@torch.no_grad()
def restore(module: nn.Module, optimizer: Any, whole: dict[str, dict[str, torch.Tensor]], step: int) -> None:
    """Set weights and moments to captured ones; `step` is AdamW's count."""
    zero, names = optimizer.optimizer, {id(p): name for name, p in module.named_parameters()}
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    for flat, places, cut in _pieces(zero):
        pieces = {}
        for kind, by_name in whole.items():
            values = [(by_name[names[id(p)]].flatten(), length) for p, _, length in places]
            if cut:
                parts = [_padded(value, length * world_size).view(world_size, -1)[rank] for value, length in values]
                pieces[kind] = _padded(torch.cat(parts), flat.numel())
            else:
                row = _padded(torch.cat([value for value, _ in values]), flat.numel() * world_size)
                pieces[kind] = row.view(world_size, -1)[rank]
        flat.data.copy_(pieces.pop(WEIGHTS))
        moments = {kind: piece.to(flat.device, copy=True) for kind, piece in pieces.items()}
        zero.optimizer.state[flat] = {"step": torch.tensor(float(step)), **moments}
        for parameter, begin, length in places if cut else ():
            parameter.ds_tensor.data.copy_(flat[begin : begin + length])
            if parameter.data.numel():  # a small one stays whole on every process
                parameter.data.copy_(whole[WEIGHTS][names[id(parameter)]])
    if hasattr(zero, "update_lp_params"):
        zero.update_lp_params()


def _pieces(zero: Any) -> Iterator[tuple[torch.Tensor, list[tuple[Any, int, int]], bool]]:
    """This process's flat pieces, the parameters in each with place and length there, and whether they are cut."""
    cut = hasattr(zero, "fp32_partitioned_groups_flat")
    flats = zero.fp32_partitioned_groups_flat if cut else zero.single_partition_of_fp32_groups
    groups = zero.fp16_groups if cut else zero.round_robin_bit16_groups
    for flat, parameters in zip(flats, groups, strict=True):
        places, begin = [], 0
        for parameter in parameters:
            length = parameter.partition_numel() if cut else parameter.numel()
            places.append((parameter, begin, length))
            begin += length
        yield flat, places, cut


def _gather(piece: torch.Tensor) -> torch.Tensor:
    """(processes, n)."""
    rows = torch.empty(distributed.get_world_size() * piece.numel(), dtype=piece.dtype, device=piece.device)
    distributed.all_gather_into_tensor(rows, piece.detach().contiguous())
    return rows.view(-1, piece.numel())


def _padded(values: torch.Tensor, size: int) -> torch.Tensor:
    return nn.functional.pad(values, (0, size - values.numel()))
