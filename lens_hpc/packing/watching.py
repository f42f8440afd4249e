"""Readers that die or never end, and the file that they were at.

Images are decoded by C libraries. A damaged file may end the process that reads it, or keep it for
ever. So cutouts are read in worker processes alone, which say what row they are at.
"""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from lens_hpc.errors import UserError
from lens_hpc.packing.cutouts import Cutouts
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.workers import make_pool

LONGEST_READ_SECONDS = 300
SECONDS_BETWEEN_LOOKS = 0.5
NO_ROW = -1

ShapeOrReason = tuple[int, ...] | str
CutoutOrReason = np.ndarray | str


class Watch:
    """What row each worker process is at, known to all of them and to their parent."""

    def __init__(self, workers: int) -> None:
        context = multiprocessing.get_context("fork")
        self.rows_done = context.Value("q", 0)
        self.stuck_row = NO_ROW
        """The row at which a worker was ended because it took too long."""
        self._workers = context.Value("q", 0)
        self._pids = context.Array("q", workers, lock=False)
        self._rows = context.Array("q", [NO_ROW] * workers, lock=False)
        self._since = context.Array("d", workers, lock=False)
        self._number = 0

    def join(self) -> None:
        """Say, in a worker, that it is one."""
        with self._workers.get_lock():
            self._number = self._workers.value
            self._workers.value += 1
        self._pids[self._number] = os.getpid()

    def begin(self, row: int) -> None:
        """Say, in a worker, which row it reads now."""
        self._since[self._number] = time.monotonic()
        self._rows[self._number] = row

    def end(self) -> None:
        """Say, in a worker, that it reads none."""
        self._rows[self._number] = NO_ROW

    def end_stuck_worker(self) -> None:
        """End a worker that has read one row for too long; its pool is broken then."""
        now = time.monotonic()
        for number in range(self._workers.value):
            row, since = self._rows[number], self._since[number]
            if row != NO_ROW and now - since > LONGEST_READ_SECONDS:
                self.stuck_row = row
                os.kill(self._pids[number], signal.SIGKILL)
                return

    def rows(self) -> list[int]:
        """Return the rows that are being read, or were when the workers died."""
        return [row for row in self._rows if row != NO_ROW]


def read_shapes(cutouts: Cutouts, rows: Iterable[int]) -> list[ShapeOrReason]:
    """Return the shape of each of these cutouts, or why there is none, read in a worker process.

    Raises UserError with the file at which it died.
    """
    watch = Watch(1)
    try:
        return _in_one_worker(cutouts, watch, list(rows))
    except BrokenProcessPool as error:
        raise deadly_file_error(cutouts, watch) from error


def deadly_file_error(cutouts: Cutouts, watch: Watch) -> UserError:
    """Return the error that names the file at which a worker died, if there is one.

    Each of the rows that were being read is tried again, in a process of its own.
    """
    for row in watch.rows():
        name = cutouts.images.name(row)
        if row == watch.stuck_row:
            return UserError(
                f"{name}: was not read after {LONGEST_READ_SECONDS} seconds; mend or remove it"
            )
        try:
            _in_one_worker(cutouts, Watch(1), [row])
        except BrokenProcessPool:
            return UserError(f"{name}: ends the process that reads it; mend or remove it")
    return UserError(
        "a worker process was killed, perhaps for want of memory; run the same line again, "
        "with fewer processes: what is complete is kept"
    )


class CutoutReaders:
    """Worker processes that read cutouts. They begin with the first, and end with this object."""

    def __init__(self, cutouts: Cutouts, processes: int) -> None:
        self.cutouts = cutouts
        self.processes = processes
        self._watch = Watch(processes)
        self._pool = make_pool(processes, "fork", _start_worker, cutouts, self._watch)

    def read(self, groups: Iterable[Sequence[int]]) -> Iterator[list[CutoutOrReason]]:
        """Yield the cutouts of each group of rows, or why there are none, in order.

        As many groups are read ahead as there are processes. Raises UserError with the file at
        which one died.
        """
        tasks: deque[Future[list[CutoutOrReason]]] = deque()
        try:
            for rows in groups:
                tasks.append(self._pool.submit(_read_in_this_worker, rows))
                if len(tasks) > self.processes:
                    yield self._result(tasks.popleft())
            while tasks:
                yield self._result(tasks.popleft())
        except BrokenProcessPool as error:
            raise deadly_file_error(self.cutouts, self._watch) from error

    def _result(self, task: Future[list[CutoutOrReason]]) -> list[CutoutOrReason]:
        while not wait([task], timeout=SECONDS_BETWEEN_LOOKS).done:
            self._watch.end_stuck_worker()
        return task.result()


# ---- the worker ----

# Set in worker processes alone, which read nothing else.
_work: tuple[Cutouts, Watch] | None = None


def _in_one_worker(cutouts: Cutouts, watch: Watch, rows: list[int]) -> list[ShapeOrReason]:
    with make_pool(1, "fork", _start_worker, cutouts, watch) as pool:
        task: Future[list[ShapeOrReason]] = pool.submit(_shapes_in_this_worker, rows)
        while not wait([task], timeout=SECONDS_BETWEEN_LOOKS).done:
            watch.end_stuck_worker()
        return task.result()


def _start_worker(cutouts: Cutouts, watch: Watch) -> None:
    global _work
    _work = (cutouts, watch)
    watch.join()


def _shapes_in_this_worker(rows: list[int]) -> list[ShapeOrReason]:
    return [
        found if isinstance(found, str) else found.shape for found in _read_in_this_worker(rows)
    ]


def _read_in_this_worker(rows: Sequence[int]) -> list[CutoutOrReason]:
    assert _work is not None
    cutouts, watch = _work
    found: list[CutoutOrReason] = []
    for row in rows:
        watch.begin(row)
        try:
            found.append(cutouts[row])
        except BadCutoutError as error:
            found.append(str(error))
    watch.end()
    return found
