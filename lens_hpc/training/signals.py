"""Stopping: a request to one process becomes a decision that all processes take at the same step.

SIGUSR1, SIGUSR2, SIGTERM and SIGINT are only noted (`StopRequest`); a second SIGINT is obeyed at
once. Once a step, all processes compare their notes (`Agreement`) and then do the same: save, stop,
or go on.
"""

import os
import signal
import sys
import threading
import time
from datetime import timedelta
from types import FrameType
from typing import Any, Self

import torch
from accelerate import Accelerator
from torch import distributed

from lens_hpc import process

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)
# A launcher that ends the job kills 30 s after SIGTERM: a process that waits in vain for a dead one
# leaves before.
SECONDS_TO_ANSWER = 20.0
SECONDS_BEFORE_JOB_END = 120.0
UNTOLD = (
    "where each rank was cannot be told: the first one, which keeps the record, is gone or stopped"
)


class StopRequest:
    """Note the signals that this process receives while the context is entered.

    The handlers that were there before are back when it is left, but in a process that ends with
    its command: Slurm sends SIGTERM twice, and the second must not change its exit status. Outside
    the main thread, where Python sets no handlers, nothing is noted.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._seen = threading.Event()
        self._handlers_before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._handlers_before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._seen.set()  # whoever waits to end this process need not any more
        if process.ends_with_command:
            return
        for number, handler in self._handlers_before.items():
            _set_handler(number, handler)
        self._handlers_before.clear()

    @property
    def requested(self) -> bool:
        """Whether a signal came; from then on, the caller sees to it."""
        if self.reason:
            self._seen.set()
        return bool(self.reason)

    def _note(self, number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name

        if number == signal.SIGINT and self.reason == name:
            self._obey_interrupt()
        # A step that waits for a dead process never ends, and nobody would look at this note.
        if number == signal.SIGTERM and not self.reason:
            threading.Thread(target=self._leave_unless_seen, daemon=True).start()
        self.reason = self.reason or name

    def _obey_interrupt(self) -> None:
        """End the process, or do what its owner wants of an interrupt: raise KeyboardInterrupt."""
        before = self._handlers_before[signal.SIGINT]
        handler = signal.SIG_DFL if process.ends_with_command else before
        _set_handler(signal.SIGINT, handler)
        signal.raise_signal(signal.SIGINT)

    def _leave_unless_seen(self) -> None:
        if not self._seen.wait(SECONDS_TO_ANSWER):
            message = f"SIGTERM, and no step ended within {SECONDS_TO_ANSWER:g} s: leaving"
            print(f"lens-hpc: {message}", file=sys.stderr)
            os._exit(1)


def _set_handler(number: signal.Signals, handler: Any) -> None:
    """Set a handler as `signal.signal` returned it: None is one that Python did not set."""
    signal.signal(number, signal.SIG_DFL if handler is None else handler)


def deadline(max_minutes: float | None) -> float:
    """Return the time (of time.time) at which to stop; infinity: never.

    That is after `max_minutes`, or shortly before Slurm ends the job.
    """
    if max_minutes is not None:
        return time.time() + 60 * max_minutes

    job_end = os.environ.get("SLURM_JOB_END_TIME")
    if job_end:
        return float(job_end) - SECONDS_BEFORE_JOB_END
    return float("inf")


class Agreement:
    """Once a step, the largest of each number that the processes submit, for all of them.

    This goes over gloo and beside the training's own communication, so that no GPU is waited for:
    `submit` at the beginning of a step, `result` at its end.
    """

    def __init__(self, accelerator: Accelerator, timeout_minutes: float) -> None:
        self.rank = accelerator.process_index
        self.world_size = accelerator.num_processes
        self.timeout = timedelta(minutes=timeout_minutes)

        self._group: Any = None
        self._store: Any = None
        if self.world_size > 1:
            self._group = distributed.new_group(backend="gloo", timeout=self.timeout)
            self._store = distributed.distributed_c10d._get_default_store()

        self._numbers = torch.zeros(0)
        self._pending: Any = None

    def submit(self, where: str, *numbers: float) -> None:
        """Hand in this process's numbers, and record where it is."""
        self._numbers = torch.tensor(numbers, dtype=torch.float64)
        if self._group:
            self._store.set(_store_key(self.rank), f"{time.time()} {where}")
            self._pending = distributed.all_reduce(
                self._numbers, distributed.ReduceOp.MAX, self._group, async_op=True
            )

    def result(self) -> list[float]:
        """Return the largest of each number.

        Raises RuntimeError when a process does not answer in time.
        """
        if self._pending:
            self._pending.wait(self.timeout)
        return self._numbers.tolist()

    def last_seen(self) -> str:
        """Describe where each process was at its latest step, the one that lags most first."""
        if not self._group:
            return ""

        # The store is the first process's: if that one is stopped, the call waits without end, and
        # this process would be deaf to signals.
        described: list[str] = []
        asking = threading.Thread(target=lambda: described.append(self._describe()), daemon=True)
        asking.start()
        asking.join(SECONDS_TO_ANSWER)
        return described[0] if described else UNTOLD

    def _describe(self) -> str:
        sightings = []
        for rank in range(self.world_size):
            try:
                record = self._store.get(_store_key(rank)).decode()
            except RuntimeError:
                return UNTOLD
            seen_at, where = record.split(" ", 1)
            sightings.append((time.time() - float(seen_at), rank, where))

        sightings.sort(reverse=True)
        return "; ".join(
            f"rank {rank} was last seen {age:.0f} s ago, at {where}"
            for age, rank, where in sightings
        )


def _store_key(rank: int) -> str:
    return f"lens_hpc/{rank}"
