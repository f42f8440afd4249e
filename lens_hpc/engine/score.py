"""Scores that carry their sample's row: every sample exactly once, or an error."""

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from lens_hpc.data import order
from lens_hpc.data.loader import Samples, load


def score(
    accelerator: Accelerator, model: torch.nn.Module, samples: Samples, batch_size: int, workers: int
) -> np.ndarray:
    """Logits of a split, (N,) float32 in the order of its rows, on every process."""
    rows, logits = score_share(accelerator, model, samples, batch_size, workers)
    return in_order(_gather(accelerator, rows), _gather(accelerator, logits), len(samples.split))


@torch.inference_mode()
def score_share(
    accelerator: Accelerator, model: torch.nn.Module, samples: Samples, batch_size: int, workers: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and logits of this process's share."""
    device = accelerator.device
    rows, logits = [torch.empty(0, dtype=torch.int64, device=device)], [torch.empty(0, device=device)]
    batches = order.scoring_batches(
        len(samples.split), batch_size, accelerator.process_index, accelerator.num_processes
    )
    training = model.training
    model.eval()
    for batch in load(samples, 0, batches, workers):
        batch = batch.to(device)
        rows.append(batch.rows)
        logits.append(model(batch.images, batch.features).float())
    model.train(training)
    return torch.cat(rows), torch.cat(logits)


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
