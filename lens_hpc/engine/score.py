"""Scores that carry their sample's row: every sample exactly once, or an error."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from lens_hpc.data import order
from lens_hpc.data.loader import Loader


def score(
    accelerator: Accelerator, model: torch.nn.Module, loader: Loader, between: Callable[[], None] | None = None
) -> np.ndarray:
    """Logits of a split, (N,) float32 in the order of its rows, on every process.

    `between` is called before each batch, on all processes equally often.
    """
    rows, logits = score_share(accelerator, model, loader, between)
    return in_order(_gather(accelerator, rows), _gather(accelerator, logits), len(loader.samples.split))


@torch.inference_mode()
def score_share(
    accelerator: Accelerator, model: torch.nn.Module, loader: Loader, between: Callable[[], None] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and logits of this process's share."""
    count, world_size = len(loader.samples.split), accelerator.num_processes
    rows = [np.empty(0, dtype=np.int64)]
    logits = [torch.empty(0, device=accelerator.device)]
    batches = loader(0, order.scoring_shares(count, loader.batch_size, accelerator.process_index, world_size))
    training = model.training
    model.eval()
    for _ in range(order.scoring_steps(count, loader.batch_size, world_size)):
        if between:
            between()
        if batch := next(batches, None):
            rows.append(batch.draws)
            logits.append(model(batch.images, batch.features).float())
    model.train(training)
    return torch.from_numpy(np.concatenate(rows)).to(accelerator.device), torch.cat(logits)


def in_order(rows: np.ndarray, logits: np.ndarray, count: int) -> np.ndarray:
    """Logits sorted by row; RuntimeError unless each of `count` rows came exactly once."""
    times = np.bincount(rows, minlength=count)
    wrong = np.flatnonzero(times != 1)
    if len(wrong):
        raise RuntimeError(
            f"{(times == 0).sum():,} of {count:,} samples have no score and {(times > 1).sum():,} have several; "
            f"first rows: {', '.join(map(str, wrong[:10]))}"
        )
    return logits[np.argsort(rows)]


def _gather(accelerator: Accelerator, values: torch.Tensor) -> np.ndarray:
    """The values of all processes, in the order of the ranks; processes may hold different numbers of them."""
    lengths: Any = accelerator.gather(torch.tensor([len(values)], device=values.device))
    padded: Any = accelerator.gather(accelerator.pad_across_processes(values))
    return np.concatenate([part[:n].cpu().numpy() for part, n in zip(padded.chunk(len(lengths)), lengths, strict=True)])
