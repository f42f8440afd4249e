"""The order of samples: pure functions of (seed, epoch, dataset), blind to processes, workers and nodes.

One optimizer step consumes the next `global_batch_size` samples of the epoch's permutation; each process takes its
share of the step. So to resume is arithmetic, and a run may go on with another number of processes.
"""

from collections.abc import Iterator

import numpy as np

from lens_hpc import UserError


def epoch_order(rows: int, seed: int, epoch: int) -> np.ndarray:
    """Permutation of range(rows), int64, for one epoch."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def steps_per_epoch(rows: int, global_batch_size: int) -> int:
    """Full steps of an epoch; the rows of a last, short step are left out of that epoch."""
    if rows < global_batch_size:
        raise UserError(
            f"train.global_batch_size = {global_batch_size}: the training split has only {rows} rows; choose no more"
        )
    return rows // global_batch_size


def share_of_step(global_batch_size: int, world_size: int) -> int:
    """Samples of a step for each process; UserError unless the processes divide the batch."""
    if global_batch_size % world_size:
        below = global_batch_size - global_batch_size % world_size
        nearest = " or ".join(str(size) for size in (below, below + world_size) if size)
        raise UserError(
            f"train.global_batch_size = {global_batch_size} cannot be shared evenly by {world_size} processes; "
            f"choose {nearest}"
        )
    return global_batch_size // world_size


def training_batches(order: np.ndarray, global_batch_size: int, rank: int, world_size: int) -> Iterator[np.ndarray]:
    """This rank's share of each step of an epoch: (global_batch_size / world_size,) row numbers."""
    share = share_of_step(global_batch_size, world_size)
    for step in range(steps_per_epoch(len(order), global_batch_size)):
        start = step * global_batch_size + rank * share
        yield order[start : start + share]


def scoring_batches(rows: int, batch_size: int, rank: int, world_size: int) -> Iterator[np.ndarray]:
    """This rank's batches of a split in its own order: whole batches are dealt out, so their contents, and with them
    every score, do not depend on the number of processes."""
    for start in range(rank * batch_size, rows, world_size * batch_size):
        yield np.arange(start, min(start + batch_size, rows))
