"""The order of samples: pure functions of (seed, epoch, dataset), blind to processes, workers and nodes.

One optimizer step consumes the next `global_batch_size` samples of the epoch's sequence; each process takes its share
of the step. So to resume is arithmetic, and a run may go on with another number of processes.

A *draw* is a number that stands for a sample: row `draw % rows`, its copy `draw // rows`. Without balancing, draws are
rows. Within a step, samples are sorted by row: neighbours on disk are read together, and each process always reads
about the same part of the dataset, so that one node's page cache or local disk needs to hold that part only.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lens_hpc import UserError

# `blocks`: runs of so many rows, read as one, are mixed in a window of about so many rows.
RUN_ROWS = 64
WINDOW_ROWS = 8192


@dataclass(frozen=True)
class Share:
    """What one process sees of one step."""

    draws: np.ndarray
    """(share,) int64."""
    weights: np.ndarray
    """(share,) float32: 1 for a sample, 0 for what fills up the last, short step."""
    ahead: np.ndarray
    """Draws of later steps, to have the system read from the disk now; mostly none."""

    def split(self, parts: int) -> Iterator["Share"]:
        """Micro-batches of equal size."""
        size = len(self.draws) // parts
        for n in range(parts):
            some = slice(n * size, (n + 1) * size)
            yield Share(self.draws[some], self.weights[some], self.ahead if n == 0 else self.ahead[:0])


@dataclass(frozen=True)
class Order:
    """The order of the samples of a training split."""

    rows: int
    global_batch_size: int
    seed: int = 0
    blocks: bool = False
    """Mix runs of rows in a window, instead of a true permutation of all."""
    keep_last: bool = False
    """Keep the last, short step of an epoch, instead of leaving out its samples."""
    labels: np.ndarray | None = None
    """(rows,) 0 or 1, to repeat samples of the rarer class until both classes are equally frequent."""

    @cached_property
    def _classes(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the frequent class and of the rare one."""
        assert self.labels is not None
        positive, negative = np.flatnonzero(self.labels == 1), np.flatnonzero(self.labels != 1)
        return (negative, positive) if len(positive) <= len(negative) else (positive, negative)

    @cached_property
    def samples(self) -> int:
        """Samples of an epoch, copies included."""
        return self.rows if self.labels is None else 2 * len(self._classes[0])

    @cached_property
    def steps(self) -> int:
        """Optimizer steps of an epoch. UserError when there would be none."""
        if self.samples < self.global_batch_size and not self.keep_last:
            raise UserError(
                f"train.global_batch_size = {self.global_batch_size}: an epoch has only {self.samples} samples; "
                "choose no more, or data.last=keep"
            )
        return -(-self.samples // self.global_batch_size) if self.keep_last else self.samples // self.global_batch_size

    @property
    def window_steps(self) -> int:
        """Steps of one window of `blocks`."""
        return max(1, WINDOW_ROWS // self.global_batch_size)

    def sequence(self, epoch: int) -> np.ndarray:
        """All draws of an epoch, (samples,) int64."""
        rng = np.random.default_rng([self.seed, epoch])
        draws = np.arange(self.rows)
        if self.blocks:
            firsts = rng.permutation(-(-self.rows // RUN_ROWS)) * RUN_ROWS
            draws = (firsts[:, None] + np.arange(RUN_ROWS)).ravel()
            draws = draws[draws < self.rows]
        if self.labels is not None:
            draws = self._repeat(draws, rng)
        window = self.window_steps * self.global_batch_size if self.blocks else len(draws)
        for start in range(0, len(draws), window):
            rng.shuffle(draws[start : start + window])
        return draws

    def _repeat(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        frequent, rare = self._classes
        times = np.ones(self.rows, dtype=np.int64)
        times[rare] = len(frequent) // len(rare)
        times[rng.choice(rare, len(frequent) % len(rare), replace=False)] += 1
        times = times[rows]
        copies = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
        return np.repeat(rows, times) + self.rows * copies

    def samples_of(self, step: int) -> int:
        """Samples of one step: global_batch_size, but for a last one that is kept."""
        return min(self.global_batch_size, self.samples - step * self.global_batch_size)

    def step(self, sequence: np.ndarray, step: int) -> np.ndarray:
        """Draws of one step, sorted by row."""
        draws = sequence[step * self.global_batch_size : (step + 1) * self.global_batch_size]
        return draws[np.argsort(draws % self.rows, kind="stable")]

    def share(self, sequence: np.ndarray, step: int, rank: int, world_size: int) -> Share:
        """This rank's part of a step. The parts of a short step are filled up with samples that count nothing."""
        size = share_of_step(self.global_batch_size, world_size)
        whole = self.step(sequence, step)
        part = np.array_split(whole, world_size)[rank]
        filling = np.resize(part if len(part) else whole, size - len(part))
        weights = np.repeat(np.array([1, 0], dtype=np.float32), [len(part), len(filling)])
        return Share(np.concatenate([part, filling]), weights, whole[:0])

    def shares(self, epoch: int, rank: int, world_size: int, first: int = 0) -> Iterator[Share]:
        """This rank's parts of an epoch's steps from `first` on; with `blocks`, each window has the next read ahead."""
        sequence, window = self.sequence(epoch), self.window_steps
        for step in range(first, self.steps):
            share = self.share(sequence, step, rank, world_size)
            if self.blocks and (step == first or step % window == 0):
                begin = step if step == first else step + window
                coming = range(begin, min((step // window + 2) * window, self.steps))
                parts = [self.share(sequence, later, rank, world_size).draws for later in coming]
                share = replace(share, ahead=np.concatenate([share.ahead, *parts]))
            yield share


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


def micro_batches(global_batch_size: int, world_size: int, micro_batch_size: int | None) -> tuple[int, int]:
    """Samples of a micro-batch, and micro-batches of a step, on each process. UserError names the nearest possible."""
    share = share_of_step(global_batch_size, world_size)
    micro = share if micro_batch_size is None else min(micro_batch_size, share)
    if share % micro:
        divisors = [size for size in range(1, share + 1) if share % size == 0]
        below, above = max(d for d in divisors if d < micro), min(d for d in divisors if d > micro)
        raise UserError(
            f"train.micro_batch_size = {micro}: a process's share of a step, {share} of train.global_batch_size = "
            f"{global_batch_size} samples, is no multiple of it; choose {below} or {above}"
        )
    return micro, share // micro


def scoring_steps(rows: int, batch_size: int, world_size: int) -> int:
    """Batches of the process that has most."""
    return math.ceil(math.ceil(rows / batch_size) / world_size)


def scoring_shares(rows: int, batch_size: int, rank: int, world_size: int) -> Iterator[Share]:
    """This rank's batches of a split in its own order: whole batches are dealt out, so their contents, and with them
    every score, do not depend on the number of processes. A rank's batches are neighbours."""
    batches = -(-rows // batch_size)
    first, last = rank * batches // world_size, (rank + 1) * batches // world_size
    for number in range(first, last):
        draws = np.arange(number * batch_size, min((number + 1) * batch_size, rows))
        yield Share(draws, np.ones(len(draws), dtype=np.float32), draws[:0])
