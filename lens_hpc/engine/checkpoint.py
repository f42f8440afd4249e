"""RUN/checkpoints: all that a run needs to go on as if nothing had happened.

    step-00001000/state.pt        tensors and plain values alone: no code is run when it is read
    step-00001000/complete.json   its checksum

`capture` takes a copy of the state, with the help of all processes; the first process writes it in a thread, while
training goes on. A folder has its name only when it is whole and on the disk. To go on:

 1. what was being written is cleared away;
 2. the first process reads the newest checkpoint; a damaged one is passed over for the one before;
 3. it tells the others which, and all read it;
 4. `restore` sets weights, optimizer, averages and random states, and gives back the place in the run.
"""

import json
import random
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from lens_hpc import UserError, files
from lens_hpc.data.shards import file_crc32
from lens_hpc.engine import zero
from lens_hpc.engine.trainer import Trainer
from lens_hpc.logs import logger

STATE, COMPLETE = "state.pt", "complete.json"


@dataclass
class Place:
    """Where a run is."""

    step: int = 0
    """Optimizer steps done."""
    epochs_done: int = 0
    """Epochs trained, validated and recorded."""
    loss_sum: float = 0.0
    """Sum over the steps of the present epoch."""
    best_auc: float = -1.0


class Checkpoints:
    """The checkpoints of a run; `write` and `newest` are for the first process."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self.thread = ThreadPoolExecutor(1, "checkpoint")
        self.writing: Future[None] | None = None

    def write(self, step: int, state: dict[str, Any]) -> None:
        """Begin to write; what was begun before is waited for."""
        self.wait()
        self.writing = self.thread.submit(self._write, step, state)

    def wait(self) -> None:
        """Return when the last one is on the disk, or raise what went wrong."""
        if self.writing:
            self.writing.result()
            self.writing = None

    def _write(self, step: int, state: dict[str, Any]) -> None:
        with files.whole_folder(self.folder / f"step-{step:08d}", replace=True) as partial:
            torch.save(state, partial / STATE)
            facts = {"step": step, "crc32": file_crc32(partial / STATE)}
            (partial / COMPLETE).write_text(json.dumps(facts) + "\n", encoding="utf-8")
        for old in self._newest_first()[self.keep :]:
            shutil.rmtree(old)

    def _newest_first(self) -> list[Path]:
        return sorted((path for path in self.folder.glob("step-*") if path.name[5:].isdigit()), reverse=True)

    def newest(self) -> Path | None:
        """The newest one that is whole; warn about those that are not."""
        for left_over in self.folder.glob(f"*{files.PARTIAL}"):
            shutil.rmtree(left_over)
        for path in self._newest_first():
            if not (problem := _problem(path)):
                return path
            logger.warning("%s: %s; the one before is taken", path, problem)
        return None


def _problem(path: Path) -> str:
    try:
        facts = json.loads((path / COMPLETE).read_text(encoding="utf-8"))
        return "" if file_crc32(path / STATE) == facts["crc32"] else f"{STATE} is damaged"
    except (OSError, ValueError, KeyError) as error:
        return f"is not complete ({error})"


def resume(trainer: Trainer, checkpoints: Checkpoints) -> Place:
    """Go on from the newest whole checkpoint, or begin."""
    chosen = [checkpoints.newest() if trainer.accelerator.is_main_process else None]
    path = broadcast_object_list(chosen)[0]
    if path is None:
        return Place()
    try:
        state = torch.load(path / STATE, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}); all processes must see the same run folder") from error
    place = restore(trainer, state)
    logger.info("going on from step %d, in epoch %d", place.step, place.epochs_done + 1)
    return place


def capture(trainer: Trainer, place: Place) -> dict[str, Any] | None:
    """A copy of all that belongs to the run, on the first process. All processes must call it."""
    accelerator, model = trainer.accelerator, trainer.accelerator.unwrap_model(trainer.model)
    buffers: Any = accelerator.gather(_flat_buffers(model)[None])
    ema_buffers: Any = accelerator.gather(_flat_buffers(trainer.ema.module)[None]) if trainer.ema else None
    random_states = gather_object([random_state(accelerator.device)])
    zero_state = zero.capture(model, trainer.optimizer) if zero.is_used() else None
    if not accelerator.is_main_process:
        return None
    state = {
        "place": asdict(place),
        "model": None if zero_state else model.state_dict(),
        "optimizer": None if zero_state else trainer.optimizer.state_dict(),
        "zero": zero_state,
        "scaler": accelerator.scaler.state_dict() if accelerator.scaler else None,
        "ema": trainer.ema.module.state_dict() if trainer.ema else None,
        "buffers": buffers,
        "ema_buffers": ema_buffers,
        "random": random_states,
    }
    return _each_tensor(state, lambda tensor: tensor.detach().to("cpu", copy=True))


def restore(trainer: Trainer, state: dict[str, Any]) -> Place:
    """Set a trainer to a captured state, whatever the number of processes that captured it."""
    accelerator, model = trainer.accelerator, trainer.accelerator.unwrap_model(trainer.model)
    if zero.is_used() != (state["zero"] is not None):
        raise UserError("the run was begun with DeepSpeed and goes on without, or the other way round; use the same")
    if zero.is_used():
        zero.restore(model, trainer.optimizer, state["zero"], state["place"]["step"])
    else:
        model.load_state_dict(state["model"])
        trainer.optimizer.load_state_dict(state["optimizer"])
    _set_buffers(model, state["buffers"], accelerator)
    if accelerator.scaler and state["scaler"]:
        accelerator.scaler.load_state_dict(state["scaler"])
    if trainer.ema and state["ema"]:
        trainer.ema.module.load_state_dict(state["ema"])
        _set_buffers(trainer.ema.module, state["ema_buffers"], accelerator)
    if len(state["random"]) == accelerator.num_processes:
        set_random_state(state["random"][accelerator.process_index], accelerator.device)
    return Place(**state["place"])


def _flat_buffers(model: torch.nn.Module) -> torch.Tensor:
    """BatchNorm's statistics, (n,): each process has its own while it trains."""
    parts = [buffer.flatten() for buffer in model.buffers() if buffer.is_floating_point()]
    return torch.cat(parts) if parts else torch.zeros(1, device=next(model.parameters()).device)


def _set_buffers(model: torch.nn.Module, all_ranks: torch.Tensor, accelerator: Accelerator) -> None:
    """This process's own statistics, or the mean of all where another number of processes goes on."""
    same = len(all_ranks) == accelerator.num_processes
    flat = all_ranks[accelerator.process_index] if same else all_ranks.mean(dim=0)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            part, flat = flat[: buffer.numel()], flat[buffer.numel() :]
            buffer.copy_(part.view_as(buffer))


def random_state(device: torch.device) -> dict[str, Any]:
    """Python's, NumPy's and torch's."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - what libraries may draw from
    return {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *rest),  # type: ignore[union-attr]
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Undo what was drawn since `random_state`."""
    name, keys, *rest = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["device"] is not None:
        torch.cuda.set_rng_state(state["device"], device)


def _each_tensor(tree: Any, how: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(tree, torch.Tensor):
        return how(tree)
    if isinstance(tree, dict):
        return {key: _each_tensor(value, how) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_each_tensor(value, how) for value in tree]
    return tree
