"""RUN/checkpoints: all that a run needs to go on as if nothing had happened.

    step-00001000/state.pt        tensors and plain values alone: no code is run when it is read
    step-00001000/complete.json   its checksum

`capture_state` takes a copy of the state, with the help of all processes; the first process writes
it in a thread, while training goes on. A folder has its name only when it is complete and on the
disk. To go on:

 1. what was being written is cleared away;
 2. the first process reads the newest checkpoint; a damaged one is passed over for the one before;
 3. it tells the others which, and all read it;
 4. `restore_state` sets weights, optimizer, averages and random states, and returns how far the run
    has come.
"""

import json
import random
import shutil
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map_only

from lens_hpc import config, files, layout
from lens_hpc.dataset.shards import file_crc32
from lens_hpc.errors import UserError
from lens_hpc.logs import logger
from lens_hpc.training import deepspeed
from lens_hpc.training.accelerator import bare_model
from lens_hpc.training.best import LOSS, ValidationNumbers
from lens_hpc.training.long_wait import waited_for
from lens_hpc.training.optimizer import load_optimizer
from lens_hpc.training.trainer import Trainer


@dataclass
class TrainingState:
    """How far a run has come."""

    step: int = 0
    """Optimizer steps done."""
    epochs_done: int = 0
    """Epochs trained, validated and recorded."""
    loss_sum: float = 0.0
    """Sum over the steps of the present epoch."""
    best: ValidationNumbers = field(default_factory=dict)
    """Numbers of the best weights; none before the first epoch has ended."""


# ---- on disk ----


class Checkpoints:
    """The checkpoints of a run; `write` and `newest` are for the first process.

    As a context manager, it ends the thread that writes when it is left.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.shutdown()

    def write(self, step: int, state: dict[str, Any]) -> None:
        """Begin to write a checkpoint, after the one before it is on the disk."""
        self.wait()
        self._writing = self._writer.submit(self._write, step, state)

    def wait(self) -> None:
        """Return when the latest one is on the disk, or raise what went wrong."""
        if self._writing:
            self._writing.result()
            self._writing = None

    def newest(self) -> Path | None:
        """Return the newest one that is complete, and warn about those that are not."""
        files.recover_all(self.folder)
        files.remove_partials(self.folder)
        for path in self._newest_first():
            problem = _find_problem(path)
            if not problem:
                return path
            logger.warning("%s: %s; the one before is taken", path, problem)
        return None

    def _write(self, step: int, state: dict[str, Any]) -> None:
        folder = layout.checkpoint_folder(self.folder, step)
        size = sum(leaf.nbytes for leaf in tree_leaves(state) if isinstance(leaf, torch.Tensor))
        kept = f"checkpoints before it are kept, and each needs {size / 1e6:,.0f} MB"
        with files.whole_folder(folder, replace=True, kept=kept) as partial:
            state_file = partial / layout.CHECKPOINT_STATE
            _save(state, state_file)
            facts = {"step": step, "crc32": file_crc32(state_file)}
            complete_file = partial / layout.CHECKPOINT_COMPLETE
            complete_file.write_text(json.dumps(facts) + "\n", encoding="utf-8")

        for old in self._newest_first()[self.keep :]:
            shutil.rmtree(old)

    def _newest_first(self) -> list[Path]:
        prefix = layout.CHECKPOINT_PREFIX
        named = self.folder.glob(f"{prefix}*")
        complete = [path for path in named if path.name.removeprefix(prefix).isdigit()]
        return sorted(complete, reverse=True)


def _save(state: dict[str, Any], path: Path) -> None:
    """Write a state by torch. Raises OSError when the disk fails."""
    with path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            # torch fails again when it ends its archive, and hides what the disk said.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def _find_problem(checkpoint: Path) -> str:
    """Return what is wrong with a checkpoint; nothing when it is as it was written."""
    try:
        text = (checkpoint / layout.CHECKPOINT_COMPLETE).read_text(encoding="utf-8")
        expected = json.loads(text)["crc32"]
        found = file_crc32(checkpoint / layout.CHECKPOINT_STATE)
    except (OSError, ValueError, KeyError) as error:
        return f"is not complete ({error})"
    return "" if found == expected else f"{layout.CHECKPOINT_STATE} is damaged"


# ---- from and to a trainer ----


def resume_training(trainer: Trainer, checkpoints: Checkpoints) -> TrainingState:
    """Resume from the newest complete checkpoint, or start at step 0."""
    accelerator = trainer.accelerator
    # One process chooses, so that all resume from the same one.
    with waited_for(accelerator, "looking for a checkpoint"):
        newest = checkpoints.newest() if accelerator.is_main_process else None
    folder = broadcast_object_list([newest])[0]
    if folder is None:
        return TrainingState()

    with waited_for(accelerator, f"reading {folder}"):
        captured = _load(folder)

    state = restore_state(trainer, captured)
    logger.info("going on from step %d, in epoch %d", state.step, state.epochs_done + 1)
    return state


def _load(folder: Path) -> dict[str, Any]:
    """Read a checkpoint. Raises UserError where this process does not see it."""
    try:
        state_file = folder / layout.CHECKPOINT_STATE
        captured: dict[str, Any] = torch.load(state_file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be read ({error}); all processes must see the same run folder"
        ) from error
    return captured


def capture_state(trainer: Trainer, state: TrainingState) -> dict[str, Any] | None:
    """Copy all that belongs to the run, on the first process. All processes must call it.

    Raises UserError, on all of them, when a number is not finite: nobody could go on from it.
    """
    accelerator = trainer.accelerator
    model = bare_model(trainer.model)
    ema_model = trainer.ema.module if trainer.ema else None

    # These need all processes.
    buffers: Any = accelerator.gather(_flatten_buffers(model)[None])
    ema_buffers: Any = None
    if ema_model:
        ema_buffers = accelerator.gather(_flatten_buffers(ema_model)[None])
    all_random_states = gather_object([random_states(accelerator.device)])
    sharded = None
    if deepspeed.is_used():
        sharded = deepspeed.gather_sharded_state(model, trainer.optimizer)

    copied = None
    with waited_for(accelerator, f"saving step {state.step}"):
        if accelerator.is_main_process:
            # The keys are those of the files of earlier versions.
            captured = {
                "place": asdict(state),
                "loss": trainer.settings.loss.model_dump(),
                "model": None if sharded else model.state_dict(),
                "optimizer": None if sharded else trainer.optimizer.state_dict(),
                "zero": sharded,
                "scaler": accelerator.scaler.state_dict() if accelerator.scaler else None,
                "ema": ema_model.state_dict() if ema_model else None,
                "buffers": buffers,
                "ema_buffers": ema_buffers,
                "random": all_random_states,
            }
            check_finite(captured, {name for name, _ in model.named_parameters()})
            copied = tree_map_only(torch.Tensor, _copy_to_cpu, captured)
    return copied


def _copy_to_cpu(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True)


def check_finite(captured: dict[str, Any], parameters: Collection[str]) -> None:
    """Raise UserError when a captured parameter, average or moment is infinite or NaN.

    `parameters` are the names of the model's. Buffers may be infinite, as masks are, but not NaN.
    """
    weights: list[torch.Tensor] = []
    buffers = [captured["buffers"], captured["ema_buffers"]]
    for by_name in (captured["model"], captured["ema"], *(captured["zero"] or {}).values()):
        for name, tensor in (by_name or {}).items():
            (weights if name in parameters else buffers).append(tensor)
    if captured["optimizer"]:
        weights += tree_leaves(captured["optimizer"]["state"])

    # The largest of all: one value to wait for, and NaN when there is one.
    largest = torch.nn.utils.get_total_norm(_numbers(weights), torch.inf)
    has_nan = [tensor.isnan().any() for tensor in _numbers(buffers)]
    if not largest.isfinite() or any(has_nan):
        raise UserError(
            "weights, their averages or moments became NaN or infinite; no checkpoint of them is "
            "kept. Lower optim.lr, or set optim.gradient_clip"
        )


def _numbers(leaves: Sequence[Any]) -> list[torch.Tensor]:
    """Return those leaves of a state that are tensors of floating-point numbers."""
    tensors = [leaf.detach() for leaf in leaves if isinstance(leaf, torch.Tensor)]
    return [tensor for tensor in tensors if tensor.is_floating_point() and tensor.numel()]


def restore_state(trainer: Trainer, captured: dict[str, Any]) -> TrainingState:
    """Set a trainer to a captured state, whatever the number of processes that captured it."""
    accelerator = trainer.accelerator
    model = bare_model(trainer.model)
    state = restore_place(captured, trainer.settings.loss)

    sharded = captured["zero"]
    if deepspeed.is_used() != (sharded is not None):
        raise UserError(
            "the run was begun with DeepSpeed and goes on without, or the other way round; "
            "use the same"
        )
    if sharded is not None:
        deepspeed.load_sharded_state(model, trainer.optimizer, sharded, state.step)
    else:
        model.load_state_dict(captured["model"])
        load_optimizer(trainer.optimizer, model, captured["optimizer"])

    # The model's own state holds the first process's statistics; each has its own.
    _set_buffers(model, captured["buffers"], accelerator)
    if accelerator.scaler and captured["scaler"]:
        accelerator.scaler.load_state_dict(captured["scaler"])
    if trainer.ema and captured["ema"]:
        trainer.ema.module.load_state_dict(captured["ema"])
        _set_buffers(trainer.ema.module, captured["ema_buffers"], accelerator)

    all_random_states = captured["random"]
    if len(all_random_states) == accelerator.num_processes:
        own = all_random_states[accelerator.process_index]
        set_random_states(own, accelerator.device)
    return state


def restore_place(captured: dict[str, Any], loss: config.Loss) -> TrainingState:
    """Return how far a captured run had come, and of its best weights what can be compared still.

    Earlier versions kept their AUC alone. A loss is forgotten when another kind is trained now.
    """
    place = dict(captured["place"])
    best_auc = place.pop("best_auc", -1.0)
    if best_auc >= 0:
        place["best"] = {"auc": best_auc}

    state = TrainingState(**place)
    if captured.get("loss") != loss.model_dump():
        state.best.pop(LOSS, None)
    return state


def _float_buffers(model: nn.Module) -> list[torch.Tensor]:
    """List BatchNorm's statistics: each process has its own while it trains."""
    return [buffer for buffer in model.buffers() if buffer.is_floating_point()]


def _flatten_buffers(model: nn.Module) -> torch.Tensor:
    """Return BatchNorm's statistics as (n,); (1,) where there are none."""
    parts = [buffer.flatten() for buffer in _float_buffers(model)]
    if not parts:
        return torch.zeros(1, device=next(model.parameters()).device)
    return torch.cat(parts)


def _set_buffers(model: nn.Module, all_ranks: torch.Tensor, accelerator: Accelerator) -> None:
    """Set this process's own statistics (processes, n), or the mean where their number differs."""
    if len(all_ranks) == accelerator.num_processes:
        flat = all_ranks[accelerator.process_index]
    else:
        flat = all_ranks.mean(dim=0)

    start = 0
    for buffer in _float_buffers(model):
        stop = start + buffer.numel()
        buffer.copy_(flat[start:stop].view_as(buffer))
        start = stop


# ---- random states ----


def random_states(device: torch.device) -> dict[str, Any]:
    """Return the states of Python's, NumPy's and torch's generators, as plain values."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - libraries draw from it
    return {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *rest),  # type: ignore[union-attr]
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Undo what was drawn since `random_states`."""
    random.setstate(states["python"])

    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002

    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and states["device"] is not None:
        torch.cuda.set_rng_state(states["device"], device)
