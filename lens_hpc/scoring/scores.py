"""Scores that carry their sample's row, so that each counts once on any number of processes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from lens_hpc.dataset.split import Split
from lens_hpc.loading.loader import Loader
from lens_hpc.loading.order import scoring_shares, scoring_steps
from lens_hpc.progress import Progress

IDS_SHOWN = 10


def score(
    accelerator: Accelerator,
    model: torch.nn.Module,
    loader: Loader,
    before_batch: Callable[[], None] | None = None,
) -> np.ndarray:
    """Score a split: logits (N,) float32 in the order of its rows, on every process.

    `before_batch` is called before each batch, equally often on all processes. Raises RuntimeError
    unless every row was scored exactly once.
    """
    split = loader.samples.split
    rows, logits = score_share(accelerator, model, loader, before_batch)
    rows = _gather(accelerator, rows)
    logits = _gather(accelerator, logits)

    every_row_once(np.bincount(rows, minlength=len(split)), split)
    return logits[np.argsort(rows)]


@torch.inference_mode()
def score_share(
    accelerator: Accelerator,
    model: torch.nn.Module,
    loader: Loader,
    before_batch: Callable[[], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Score this process's share of a split: row numbers (n,) and logits (n,) float32.

    The rows of a share follow one another.
    """
    count = len(loader.samples.split)
    rank, world_size = accelerator.process_index, accelerator.num_processes
    shares = scoring_shares(count, loader.batch_size, rank, world_size)
    batches = loader(0, shares)

    rows = [np.empty(0, dtype=np.int64)]
    logits = [torch.empty(0, device=accelerator.device)]
    # For another size, a model is compiled, and a GPU's fastest algorithms are looked for, anew.
    keeps_size = accelerator.device.type != "cpu" or is_compiled(model)
    was_training = model.training
    model.eval()
    title = f"scoring {loader.samples.split.name}"
    with Progress(count, title, "cutouts", accelerator.is_main_process) as progress:
        # A process without a batch left takes part in what all do before one.
        for _ in range(scoring_steps(count, loader.batch_size, world_size)):
            if before_batch:
                before_batch()
            batch = next(batches, None)
            if batch:
                size = loader.batch_size if keeps_size else len(batch.draws)
                parts = (_filled_up(part, size) for part in (batch.images, batch.features))
                rows.append(batch.draws)
                logits.append(model(*parts)[: len(batch.draws)].float())
            # The others do as many meanwhile.
            progress.update(min(world_size * loader.batch_size, count - progress.done))
    model.train(was_training)
    return np.concatenate(rows), torch.cat(logits).cpu().numpy()


def is_compiled(model: torch.nn.Module) -> bool:
    """Whether `model.compile()` was called."""
    return getattr(model, "_compiled_call_impl", None) is not None


def _filled_up(batch: torch.Tensor, size: int) -> torch.Tensor:
    """Return a batch (B, ...) with its last sample repeated until there are `size`."""
    missing = size - len(batch)
    if missing == 0:
        return batch
    return torch.cat([batch, batch[-1:].expand(missing, *batch.shape[1:])])


def every_row_once(times: np.ndarray, split: Split) -> None:
    """Raise RuntimeError unless every row was scored once; `times` (N,) counts the scores of
    each."""
    wrong = np.flatnonzero(times != 1)
    if not len(wrong):
        return
    without = (times == 0).sum()
    several = (times > 1).sum()
    raise RuntimeError(
        f"{without:,} of {len(times):,} samples have no score and {several:,} have several; "
        f"the first: {', '.join(split.ids(wrong[:IDS_SHOWN]))}"
    )


def _gather(accelerator: Accelerator, values: np.ndarray) -> np.ndarray:
    """Return the values of all processes in the order of the ranks; their numbers may differ."""
    tensor = torch.from_numpy(values).to(accelerator.device)
    length = torch.tensor([len(values)], device=tensor.device)

    lengths: Any = accelerator.gather(length)
    padded: Any = accelerator.gather(accelerator.pad_across_processes(tensor))
    parts = padded.chunk(len(lengths))
    return np.concatenate(
        [part[:length].cpu().numpy() for part, length in zip(parts, lengths, strict=True)]
    )
