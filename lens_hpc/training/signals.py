"""Stopping: a request to one process becomes a decision that all processes take at the same step.

SIGUSR1, SIGUSR2, SIGTERM, SIGHUP and SIGINT are only noted (`StopRequest`); a second SIGINT is
obeyed at once. Once a step, all processes compare their notes (`Agreement`) and then do the same:
save, stop, or go on. After SIGTERM and SIGHUP they must agree soon, or the process leaves: Python
runs no handler while the main thread waits in C, so a thread of its own listens to signals.
"""

import math
import os
import signal
import socket
import threading
import time
from datetime import timedelta
from types import FrameType
from typing import Any, Self

import torch
from accelerate import Accelerator
from torch import distributed

from lens_hpc import process
from lens_hpc.training import heart

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
URGENT = {signal.SIGTERM, signal.SIGHUP}
# A launcher that ends the job kills 30 s after SIGTERM: a process that waits in vain for a dead one
# leaves before.
SECONDS_TO_ANSWER = 20.0
SECONDS_BEFORE_JOB_END = 120.0


class StopRequest:
    """Note the signals that this process receives while the context is entered.

    What was there before is back when it is left, but in a process that ends with its command:
    Slurm sends SIGTERM twice, and the second must not change its exit status. Under nohup, SIGHUP
    stays ignored. Outside the main thread, where Python sets no handlers, nothing is noted.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._obeyed = threading.Event()
        self._handlers_before: dict[signal.Signals, Any] = {}
        self._sockets: tuple[socket.socket, socket.socket] | None = None
        self._wakeup_before = -1
        self._listener: threading.Thread | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._handlers_before[number] = signal.signal(number, self._note)

        # Python writes each signal's number there at once, whatever the main thread does.
        self._sockets = writer, reader = socket.socketpair()
        writer.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._listener = threading.Thread(
            target=self._listen, args=[reader], name="signals", daemon=True
        )
        self._listener.start()
        _entered.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.obeyed()
        if process.ends_with_command:
            # Whoever asks from now on finds a process that does not end though its work is done.
            self._obeyed = threading.Event()
            return
        if not (self._sockets and self._listener):
            return

        _entered.remove(self)
        self._restore()
        self._sockets[0].close()  # which ends the thread that listens at the other end
        self._listener.join()

    def _restore(self) -> None:
        """Let signals do what they did before."""
        for number, handler in self._handlers_before.items():
            _set_handler(number, handler)
        self._handlers_before.clear()
        signal.set_wakeup_fd(self._wakeup_before)

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return bool(self.reason)

    def obeyed(self) -> None:
        """Say that all processes do what the signal asked for: they save, and end after it."""
        self._obeyed.set()

    def _note(self, number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        if number == signal.SIGINT and self.reason == name:
            self._obey_interrupt()
        self.reason = self.reason or name

    def _obey_interrupt(self) -> None:
        """End the process, or do what its owner wants of an interrupt: raise KeyboardInterrupt."""
        before = self._handlers_before[signal.SIGINT]
        handler = signal.SIG_DFL if process.ends_with_command else before
        _set_handler(signal.SIGINT, handler)
        signal.raise_signal(signal.SIGINT)

    def _listen(self, reader: socket.socket) -> None:
        """Leave when an urgent signal is not obeyed in time, be it one that came again later."""
        obeyed_at = -math.inf
        with reader:
            while numbers := reader.recv(64):
                came_twice = time.monotonic() - obeyed_at < SECONDS_TO_ANSWER
                if came_twice or not URGENT & set(numbers):
                    continue
                if not self._obeyed.wait(SECONDS_TO_ANSWER):
                    names = ", ".join(signal.Signals(each).name for each in URGENT & set(numbers))
                    heart.leave(f"{names}, and no step ended within {SECONDS_TO_ANSWER:g} s")
                obeyed_at = time.monotonic()
                self._obeyed.clear()


# A forked process has handlers and file descriptors of its parent's: what is sent to it would be
# taken for the parent's.
_entered: list[StopRequest] = []


def _restore_in_child() -> None:
    while _entered:
        _entered.pop()._restore()


os.register_at_fork(after_in_child=_restore_in_child)


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
        self.timeout = timedelta(minutes=timeout_minutes)
        self._group: Any = None
        if accelerator.num_processes > 1:
            self._group = distributed.new_group(backend="gloo", timeout=self.timeout)

        self._numbers = torch.zeros(0)
        self._pending: Any = None

    @property
    def is_of_one(self) -> bool:
        """Whether there is no other process to agree with."""
        return self._group is None

    def submit(self, where: str, *numbers: float) -> None:
        """Hand in this process's numbers, and note where it is."""
        heart.present().note(where)
        self._numbers = torch.tensor(numbers, dtype=torch.float64)
        if self._group:
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
