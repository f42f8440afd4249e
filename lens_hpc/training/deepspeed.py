"""DeepSpeed ZeRO: the launcher's config file names the stage, the run's settings all the rest.

Checkpoints hold complete tensors by name, like those of any other run, so that a run may go on with
another number of processes or another stage. They are gathered from DeepSpeed's flat pieces (0.19),
which hold the float32 weights of many parameters in a row:

    ZeRO 1, 2   the row is cut into as many pieces as there are processes
    ZeRO 3      every parameter is cut so, and a process's piece holds its part of each

Frozen parameters and buffers are in no piece. ZeRO 3 cuts the former, too.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from accelerate.utils import DeepSpeedPlugin
from torch import distributed, nn

from lens_hpc.errors import UserError
from lens_hpc.logs import logger

WEIGHTS = "weights"
MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's

BUCKET_VALUES = 50_000_000
"""Gradients that are added up at once, in a buffer of their own; by itself DeepSpeed takes 2 GB."""

ShardedState = dict[str, dict[str, torch.Tensor]]
"""Complete tensors: of the weights and of each moment, by the name of the parameter."""


def is_used() -> bool:
    """Whether the launcher's config file asks for DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true"


def make_plugin(precision: str, gradient_clip: float | None) -> DeepSpeedPlugin:
    """Configure DeepSpeed as the settings want it.

    It neither divides a loss nor counts micro-batches: `train_step` does.
    """
    if precision == "fp16":
        raise UserError("train.precision = fp16: not with DeepSpeed here; choose bf16 or no")
    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        plugin = DeepSpeedPlugin()
    except ImportError as error:
        raise UserError(
            f"DeepSpeed is not installed ({error}); pip install 'lens_hpc[deepspeed]'"
        ) from error

    if not torch.accelerator.is_available():
        _build_no_operator()
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")

    settings = plugin.deepspeed_config
    settings.update(
        train_micro_batch_size_per_gpu=1,
        gradient_accumulation_steps=1,
        gradient_clipping=gradient_clip or 0.0,  # left out, DeepSpeed clips to 1
        # Its timer would wait for the GPU each step.
        timers={"throughput": {"enabled": False, "synchronized": False}},
    )
    zero = settings["zero_optimization"]
    zero.setdefault("reduce_bucket_size", BUCKET_VALUES)
    if zero.get("offload_optimizer", {}).get("device", "none") != "none":
        logger.info(
            "deepspeed_config moves the optimizer off the GPU: at the first start DeepSpeed "
            "compiles its AdamW for CPUs, which takes minutes. If a start was killed meanwhile and "
            "the next one waits for ever (torch before 2.14), remove the file cpu_adam/lock below "
            "TORCH_EXTENSIONS_DIR, which is ~/.cache/torch_extensions unless it is set"
        )

    if precision == "bf16":  # DeepSpeed's own bf16 breaks BatchNorm
        settings["torch_autocast"] = {
            "enabled": True,
            "dtype": "bfloat16",
            # Of the layers named here DeepSpeed would add up gradients in bfloat16.
            "lower_precision_safe_modules": [],
        }
    return plugin


def _build_no_operator() -> None:
    """Keep DeepSpeed from compiling its all-reduce for inference on CPUs, which no training uses.

    It would need a compiler and minutes at the first start, and a killed build leaves a lock that
    torch before 2.14 waits for without end.
    """
    from deepspeed import ops

    # The list of what may be built; made by trying compilers, unless it is there already.
    ops.__compatible_ops__ = {}


def is_cut(module: nn.Module) -> bool:
    """Whether parameters are cut (ZeRO 3), so that no process has them complete."""
    return any(hasattr(parameter, "ds_id") for parameter in module.parameters())


def whole_weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the state_dict with complete parameters, on every process. All must call it."""
    return {name: _whole(value) for name, value in module.state_dict(keep_vars=True).items()}


def _whole(value: Any) -> torch.Tensor:
    """Return a complete parameter or a buffer. All must call it, because ZeRO 3 cuts the former."""
    if not hasattr(value, "ds_id"):
        return value.detach()
    return _shaped(_gather(value.ds_tensor.flatten()), value.ds_shape)


# ---- checkpoints ----


class _Slot(NamedTuple):
    """Where a parameter, or this process's part of it, lies in a flat piece."""

    name: str
    parameter: Any
    start: int
    length: int


class _Piece(NamedTuple):
    """A flat piece of this process, and what lies in it."""

    flat: torch.Tensor
    slots: list[_Slot]
    is_cut: bool
    """Whether it holds a part of every parameter (ZeRO 3), or a part of the row of all."""


def gather_sharded_state(module: nn.Module, optimizer: Any) -> ShardedState:
    """Return float32 weights and AdamW's moments, complete. All processes must call it."""
    zero = optimizer.optimizer
    gathered: ShardedState = {kind: {} for kind in (WEIGHTS, *MOMENTS)}

    for name, value in _outside_pieces(module).items():
        gathered[WEIGHTS][name] = _whole(value)

    for piece in _pieces(zero, module):
        tensors = {WEIGHTS: piece.flat}
        tensors |= zero.optimizer.state.get(piece.flat, {})
        for kind, by_name in gathered.items():
            # Before the first step there are no moments.
            if kind in tensors:
                all_ranks = _gather(tensors[kind])
                for slot in piece.slots:
                    by_name[slot.name] = _take(all_ranks, slot, piece.is_cut)
    return gathered


@torch.no_grad()
def load_sharded_state(module: nn.Module, optimizer: Any, state: ShardedState, step: int) -> None:
    """Set weights and moments to gathered ones; `step` is AdamW's count."""
    zero = optimizer.optimizer

    for piece in _pieces(zero, module):
        flat = piece.flat
        flat.data.copy_(_cut(state[WEIGHTS], piece))

        moments = {"step": torch.tensor(float(step))}
        for kind in MOMENTS:
            moments[kind] = _cut(state[kind], piece).to(flat.device, copy=True)
        zero.optimizer.state[flat] = moments

        # ZeRO 3 keeps its parameters beside the flat piece, too.
        if piece.is_cut:
            for slot in piece.slots:
                _set_whole(slot.parameter, state[WEIGHTS][slot.name])

    for name, value in _outside_pieces(module).items():
        # Earlier versions did not save buffers, nor what a model of one's own had frozen.
        if name in state[WEIGHTS]:
            _set_whole(value, state[WEIGHTS][name])

    if hasattr(zero, "update_lp_params"):
        zero.update_lp_params()


def _outside_pieces(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return frozen parameters and buffers by name. Of statistics each process has its own."""
    state: dict[str, torch.Tensor] = module.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if not value.requires_grad}


def _pieces(zero: Any, module: nn.Module) -> Iterator[_Piece]:
    """Yield this process's flat pieces, of DeepSpeed's optimizer for stage 3 or for 1 and 2."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}

    is_cut = hasattr(zero, "fp32_partitioned_groups_flat")
    if is_cut:
        flats = zero.fp32_partitioned_groups_flat
        groups = zero.fp16_groups
    else:
        flats = zero.single_partition_of_fp32_groups
        groups = zero.round_robin_bit16_groups

    for flat, parameters in zip(flats, groups, strict=True):
        slots = []
        start = 0
        for parameter in parameters:
            length = parameter.partition_numel() if is_cut else parameter.numel()
            slots.append(_Slot(names[id(parameter)], parameter, start, length))
            start += length
        yield _Piece(flat, slots, is_cut)


def _take(all_ranks: torch.Tensor, slot: _Slot, is_cut: bool) -> torch.Tensor:
    """Return the complete tensor of a parameter, of the pieces of all processes (processes, n)."""
    stop = slot.start + slot.length
    if is_cut:
        return _shaped(all_ranks[:, slot.start : stop], slot.parameter.ds_shape)
    row = all_ranks.flatten()
    return _shaped(row[slot.start : stop], slot.parameter.shape)


def _cut(by_name: dict[str, torch.Tensor], piece: _Piece) -> torch.Tensor:
    """Return what belongs into this process's piece, of complete tensors by name."""
    size = piece.flat.numel()

    if not piece.is_cut:
        row = torch.cat([by_name[slot.name].flatten() for slot in piece.slots])
        return _own_part(row, size)

    parts = []
    for slot in piece.slots:
        parts.append(_own_part(by_name[slot.name].flatten(), slot.length))
    return _padded(torch.cat(parts), size)


def _own_part(row: torch.Tensor, length: int) -> torch.Tensor:
    """Return the part of a row, cut into parts of this length, that belongs to this process."""
    world_size = distributed.get_world_size()
    parts = _padded(row, length * world_size).view(world_size, -1)
    return parts[distributed.get_rank()]


def _set_whole(value: Any, complete: torch.Tensor) -> None:
    """Set a parameter or a buffer.

    Of a parameter that ZeRO 3 cuts, it sets this process's part, and all of a small one.
    """
    if hasattr(value, "ds_id"):
        own = _own_part(complete.flatten(), value.partition_numel())
        value.ds_tensor.data.copy_(own)
    if value.data.numel():
        value.data.copy_(complete)


def _gather(piece: torch.Tensor) -> torch.Tensor:
    """Return the pieces of all processes, (processes, n)."""
    size = distributed.get_world_size() * piece.numel()
    rows = torch.empty(size, dtype=piece.dtype, device=piece.device)
    distributed.all_gather_into_tensor(rows, piece.detach().contiguous())
    return rows.view(-1, piece.numel())


def _shaped(values: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Return the first values in a shape; what is left was padding."""
    return values.flatten()[: shape.numel()].view(shape)


def _padded(values: torch.Tensor, size: int) -> torch.Tensor:
    return nn.functional.pad(values, (0, size - values.numel()))
