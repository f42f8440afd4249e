"""Stopping: what asks one process to stop becomes a decision that all processes take at the same step.

SIGUSR1, SIGUSR2, SIGTERM and SIGINT only leave a note; a second SIGINT ends the process at once. Once a step, all
processes compare their notes (`Agreement`) and then do the same: save, stop, or go on.
"""

import os
import signal
import sys
import threading
import time
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from torch import distributed

STOPPED = 85
SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)
# A launcher that ends the job kills 30 s after SIGTERM: a process that waits in vain for a dead one leaves before.
SECONDS_TO_ANSWER = 20.0
SECONDS_BEFORE_JOB_END = 120.0


class StopRequest:
    """Notes the signals that this process got."""

    def __init__(self) -> None:
        self.reason = ""
        self._seen = threading.Event()
        for number in SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        if number == signal.SIGINT and self.reason == name:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(signal.SIGINT)
        if number == signal.SIGTERM and not self.reason:
            threading.Thread(target=self._leave_unless_seen, daemon=True).start()
        self.reason = self.reason or name

    def came(self) -> bool:
        """Whether one did; from then on, the caller sees to it."""
        if self.reason:
            self._seen.set()
        return bool(self.reason)

    def _leave_unless_seen(self) -> None:
        if not self._seen.wait(SECONDS_TO_ANSWER):
            print(f"lens-hpc: SIGTERM, and no step ended within {SECONDS_TO_ANSWER:g} s: leaving", file=sys.stderr)
            os._exit(1)


def deadline(max_minutes: float | None) -> float:
    """Time (of time.time) at which to stop: after `max_minutes`, or before Slurm ends the job; infinity: never."""
    if max_minutes is not None:
        return time.time() + 60 * max_minutes
    end = os.environ.get("SLURM_JOB_END_TIME")
    return float(end) - SECONDS_BEFORE_JOB_END if end else float("inf")


class Agreement:
    """Once a step, the largest of each number that the processes bring, for all of them.

    Over gloo and beside the training's own communication, so that no GPU is waited for: `bring` at the beginning of a
    step, `take` at its end.
    """

    def __init__(self, accelerator: Accelerator, timeout_minutes: float) -> None:
        self.rank, self.world_size = accelerator.process_index, accelerator.num_processes
        self.timeout = timedelta(minutes=timeout_minutes)
        self.group: Any = distributed.new_group(backend="gloo", timeout=self.timeout) if self.world_size > 1 else None
        self.numbers = torch.zeros(0)
        self.work: Any = None
        self.store: Any = distributed.distributed_c10d._get_default_store() if self.group else None

    def bring(self, where: str, *numbers: float) -> None:
        """Hand in this process's numbers, and say where it is."""
        self.numbers = torch.tensor(numbers, dtype=torch.float64)
        if self.group:
            self.store.set(f"lens_hpc/{self.rank}", f"{time.time()} {where}")
            self.work = distributed.all_reduce(self.numbers, distributed.ReduceOp.MAX, self.group, async_op=True)

    def take(self) -> list[float]:
        """The largest of each number. RuntimeError when a process does not answer in time."""
        if self.work:
            self.work.wait(self.timeout)
        return self.numbers.tolist()

    def last_seen(self) -> str:
        """Where each process was when it last came to a step, the one that lags first."""
        if not self.group:
            return ""
        seen = []
        for rank in range(self.world_size):
            try:
                at, where = self.store.get(f"lens_hpc/{rank}").decode().split(" ", 1)
                seen.append((time.time() - float(at), rank, where))
            except RuntimeError:
                return "where each rank was cannot be told: the first one, which keeps the record, is gone"
        seen.sort(reverse=True)
        return "; ".join(f"rank {rank} was last seen {age:.0f} s ago, at {where}" for age, rank, where in seen)
