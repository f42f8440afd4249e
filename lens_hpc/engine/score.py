"""Scores that carry their sample's row, so that each is counted exactly once, on any number of processes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from lens_hpc import UserError
from lens_hpc.data import order
from lens_hpc.data.loader import Loader
from lens_hpc.data.reader import Split

FLIPS = tuple((0, dims) for dims in ((), (-1,), (-2,), (-2, -1)))
VIEWS = {"none": FLIPS[:1], "flips": FLIPS, "d4": tuple((turns, dims) for turns in (0, 1) for _, dims in FLIPS)}
"""Test-time augmentation: quarter turns, then axes to flip, of each view of a cutout."""


class OverViews(torch.nn.Module):
    """A model whose logit is the mean over views of the cutout. UserError for turns of cutouts that are not square."""

    def __init__(self, model: torch.nn.Module, kind: str, size: tuple[int, int]) -> None:
        super().__init__()
        if kind == "d4" and size[0] != size[1]:
            raise UserError(f"tta = d4: cutouts of {size[0]} x {size[1]} pixels cannot be turned; choose tta=flips")
        self.model, self.views = model, VIEWS[kind]

    def forward(self, images: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """(B, bands, height, width) and (B, F) -> logits (B,)."""
        views = (images.rot90(turns, (-2, -1)).flip(dims) for turns, dims in self.views)
        return torch.stack([self.model(view.contiguous(), features) for view in views]).mean(0)


def score(
    accelerator: Accelerator, model: torch.nn.Module, loader: Loader, between: Callable[[], None] | None = None
) -> np.ndarray:
    """Logits of a whole split, (N,) float32 in the order of its rows, on every process; RuntimeError if one is missing.

    `between` is called before each batch, on all processes equally often.
    """
    split = loader.samples.split
    rows, logits = (_gather(accelerator, values) for values in score_share(accelerator, model, loader, between))
    every_row_once(np.bincount(rows, minlength=len(split)), split)
    return logits[np.argsort(rows)]


@torch.inference_mode()
def score_share(
    accelerator: Accelerator, model: torch.nn.Module, loader: Loader, between: Callable[[], None] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n,) and logits (n,) float32 of this process's share: rows that follow one another."""
    count, world_size = len(loader.samples.split), accelerator.num_processes
    rows, logits = [np.empty(0, dtype=np.int64)], [torch.empty(0, device=accelerator.device)]
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
    return np.concatenate(rows), torch.cat(logits).cpu().numpy()


def every_row_once(times: np.ndarray, split: Split) -> None:
    """RuntimeError unless every row of the split was scored exactly once; `times` (N,) says how often each was."""
    wrong = np.flatnonzero(times != 1)
    if len(wrong):
        raise RuntimeError(
            f"{(times == 0).sum():,} of {len(times):,} samples have no score and {(times > 1).sum():,} have several; "
            f"the first: {', '.join(split.ids(wrong[:10]))}"
        )


def _gather(accelerator: Accelerator, values: np.ndarray) -> np.ndarray:
    """The values of all processes, in the order of the ranks; processes may hold different numbers of them."""
    tensor = torch.from_numpy(values).to(accelerator.device)
    lengths: Any = accelerator.gather(torch.tensor([len(values)], device=tensor.device))
    padded: Any = accelerator.gather(accelerator.pad_across_processes(tensor))
    return np.concatenate([part[:n].cpu().numpy() for part, n in zip(padded.chunk(len(lengths)), lengths, strict=True)])
