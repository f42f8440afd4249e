"""The order of samples: pure functions of (seed, epoch, dataset), blind to processes and workers.

One optimizer step consumes the next `global_batch_size` samples of the epoch's sequence; each
process takes its share of the step. So to resume is arithmetic, and a run may go on with another
number of processes.

A *draw* is a number that stands for a sample: row `draw % rows`, its copy `draw // rows`. Without
balancing, draws are row numbers. Within a step, samples are sorted by row: neighbours on disk are
read together, and each process always reads about the same part of the dataset, so that one node's
page cache or local disk needs to hold that part only.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from lens_hpc.errors import UserError

RUN_ROWS = 64
"""With `blocks`, so many neighbouring rows stay together until they come into a window."""
WINDOW_ROWS = 8192
"""With `blocks`, runs of rows are mixed within a window of about so many rows."""


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
        """Yield micro-batches of equal size; the first has all that is to be read ahead."""
        size = len(self.draws) // parts
        for number in range(parts):
            part = slice(number * size, (number + 1) * size)
            ahead = self.ahead if number == 0 else self.ahead[:0]
            yield Share(self.draws[part], self.weights[part], ahead)


@dataclass(frozen=True)
class Order:
    """The order of the samples of a training split."""

    rows: int
    """Number of rows of the split."""
    global_batch_size: int
    seed: int = 0
    blocks: bool = False
    """Mix runs of rows in a window, instead of a true permutation of all."""
    keep_last: bool = False
    """Keep the last, short step of an epoch, instead of leaving out its samples."""
    labels: np.ndarray | None = None
    """(rows,) 0 or 1, to repeat samples of the rarer class until both are equally frequent."""
    _made_ahead: dict[int, np.ndarray] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """The sequence of the epoch that comes next, by its number."""

    @cached_property
    def _classes(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the frequent class and of the rare one."""
        assert self.labels is not None
        positive = np.flatnonzero(self.labels == 1)
        negative = np.flatnonzero(self.labels != 1)
        if len(positive) <= len(negative):
            return negative, positive
        return positive, negative

    @cached_property
    def samples(self) -> int:
        """Samples of an epoch, copies included."""
        if self.labels is None:
            return self.rows
        frequent, _ = self._classes
        return 2 * len(frequent)

    @cached_property
    def steps(self) -> int:
        """Optimizer steps of an epoch. Raises UserError when there would be none."""
        if self.keep_last:
            return math.ceil(self.samples / self.global_batch_size)

        if self.samples < self.global_batch_size:
            raise UserError(
                f"train.global_batch_size = {self.global_batch_size}: an epoch has only "
                f"{self.samples} samples; choose no more, or data.last=keep"
            )
        return self.samples // self.global_batch_size

    @property
    def window_steps(self) -> int:
        """Steps of one window of `blocks`."""
        return max(1, WINDOW_ROWS // self.global_batch_size)

    def sequence(self, epoch: int) -> np.ndarray:
        """Return all draws of an epoch, (samples,) int64."""
        rng = np.random.default_rng([self.seed, epoch])
        draws = self._mixed_runs(rng) if self.blocks else np.arange(self.rows)
        if self.labels is not None:
            draws = self._repeat(draws, rng)

        # Every window is mixed in itself; without blocks there is one, of all draws.
        window = self.window_steps * self.global_batch_size if self.blocks else len(draws)
        for start in range(0, len(draws), window):
            rng.shuffle(draws[start : start + window])
        return draws

    def _mixed_runs(self, rng: np.random.Generator) -> np.ndarray:
        """Return all rows, neighbours still together in runs, but the runs in a random order."""
        runs = math.ceil(self.rows / RUN_ROWS)
        starts = rng.permutation(runs) * RUN_ROWS
        rows = (starts[:, None] + np.arange(RUN_ROWS)).ravel()

        # The last run may be shorter.
        return rows[rows < self.rows]

    def _repeat(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the draws of these rows, each of the rare class several times in a row."""
        frequent, rare = self._classes
        times = np.ones(self.rows, dtype=np.int64)
        times[rare] = len(frequent) // len(rare)
        once_more = rng.choice(rare, len(frequent) % len(rare), replace=False)
        times[once_more] += 1

        # The copies of a row are counted 0, 1, 2, ...
        times = times[rows]
        positions = np.arange(times.sum())
        first_positions = np.cumsum(times) - times
        copies = positions - np.repeat(first_positions, times)
        return np.repeat(rows, times) + self.rows * copies

    def samples_of(self, step: int) -> int:
        """Return the samples of one step: global_batch_size, but for a last one that is kept."""
        before = step * self.global_batch_size
        return min(self.global_batch_size, self.samples - before)

    def step(self, sequence: np.ndarray, step: int) -> np.ndarray:
        """Return the draws of one step, sorted by row."""
        start = step * self.global_batch_size
        draws = sequence[start : start + self.global_batch_size]

        by_row = np.argsort(draws % self.rows, kind="stable")
        return draws[by_row]

    def share(self, sequence: np.ndarray, step: int, rank: int, world_size: int) -> Share:
        """Return this rank's part of a step.

        The parts of a short step are filled up with samples that count nothing.
        """
        size = share_of_step(self.global_batch_size, world_size)
        all_draws = self.step(sequence, step)
        parts = np.array_split(all_draws, world_size)
        part = parts[rank]

        # A process may have no sample of a step that is very short: any will do then.
        source = part if len(part) else all_draws
        filling = np.resize(source, size - len(part))
        draws = np.concatenate([part, filling])

        weights = np.zeros(size, dtype=np.float32)
        weights[: len(part)] = 1
        return Share(draws, weights, ahead=all_draws[:0])

    def shares(self, epoch: int, rank: int, world_size: int, first: int = 0) -> Iterator[Share]:
        """Yield this rank's parts of an epoch's steps, from the step `first` on.

        With `blocks`, the first step of each window has the draws of the next window to read ahead;
        the step that an epoch is begun with has what is left of its own window, too.

        A thread makes the next epoch's sequence meanwhile, which takes a second for 2e7 rows.
        """
        sequence = self._made_ahead.pop(epoch, None)
        if sequence is None:
            sequence = self.sequence(epoch)

        with ThreadPoolExecutor(1, "next epoch") as pool:
            next_sequence = pool.submit(self.sequence, epoch + 1)
            for step in range(first, self.steps):
                share = self.share(sequence, step, rank, world_size)

                parts = [share.ahead]
                for later_step in self._steps_ahead(step, first):
                    later_share = self.share(sequence, later_step, rank, world_size)
                    parts.append(later_share.draws)
                yield replace(share, ahead=np.concatenate(parts))

        self._made_ahead.clear()
        self._made_ahead[epoch + 1] = next_sequence.result()

    def _steps_ahead(self, step: int, first: int) -> range:
        """Return the steps to read ahead at a step of an epoch that is begun with `first`."""
        window = self.window_steps
        if not self.blocks or (step != first and step % window):
            return range(0)

        begin = step if step == first else step + window
        end_of_next_window = (step // window + 2) * window
        return range(begin, min(end_of_next_window, self.steps))


def share_of_step(global_batch_size: int, world_size: int) -> int:
    """Return the samples of a step for each process.

    Raises UserError, with the nearest sizes that are possible, unless the processes divide it.
    """
    remainder = global_batch_size % world_size
    if remainder:
        below = global_batch_size - remainder
        possible = [size for size in (below, below + world_size) if size > 0]
        raise UserError(
            f"train.global_batch_size = {global_batch_size} cannot be shared evenly by "
            f"{world_size} processes; choose {' or '.join(map(str, possible))}"
        )
    return global_batch_size // world_size


def micro_batches(
    global_batch_size: int, world_size: int, micro_batch_size: int | None
) -> tuple[int, int]:
    """Return the samples of a micro-batch, and the micro-batches of a step, on each process.

    Without a `micro_batch_size` there is one, of all samples. Raises UserError, with the nearest
    sizes that are possible, when the sizes do not divide each other.
    """
    share = share_of_step(global_batch_size, world_size)
    if micro_batch_size is None:
        return share, 1

    micro = min(micro_batch_size, share)
    if share % micro:
        divisors = [size for size in range(1, share + 1) if share % size == 0]
        below = max(size for size in divisors if size < micro)
        above = min(size for size in divisors if size > micro)
        raise UserError(
            f"train.micro_batch_size = {micro}: a process's share of a step, {share} of "
            f"train.global_batch_size = {global_batch_size} samples, is no multiple of it; "
            f"choose {below} or {above}"
        )
    return micro, share // micro


def scoring_steps(rows: int, batch_size: int, world_size: int) -> int:
    """Return the number of batches of the process that has most."""
    batches = math.ceil(rows / batch_size)
    return math.ceil(batches / world_size)


def scoring_shares(rows: int, batch_size: int, rank: int, world_size: int) -> Iterator[Share]:
    """Yield this rank's batches of a split in its own order; they are neighbours.

    Entire batches are dealt out, so their contents, and with them every score, do not depend on the
    number of processes.
    """
    batches = math.ceil(rows / batch_size)
    first = rank * batches // world_size
    last = (rank + 1) * batches // world_size
    for number in range(first, last):
        start = number * batch_size
        draws = np.arange(start, min(start + batch_size, rows))
        yield Share(draws, np.ones(len(draws), dtype=np.float32), ahead=draws[:0])
