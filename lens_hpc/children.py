"""Processes that this one starts: signals are passed on to them, and they end when it does."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lens_hpc import process, workers

PARENT = "LENS_HPC_LAUNCHER"
"""Environment variable of a process that was started here: who has started it, and must live."""


@contextmanager
def signals_noted() -> Iterator[list[int]]:
    """Note the signals that ask this process to stop, in place of ending.

    Slurm sends SIGTERM twice, so a process that ends with its command goes on noting them: the
    second must not change its status. Under nohup, SIGHUP stays ignored. Outside the main thread,
    where Python sets no handlers, nothing is noted.
    """
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return

    before = {}
    for number in workers.STOP_SIGNALS:
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            continue
        before[number] = signal.signal(number, lambda number, _: noted.append(number))
    try:
        yield noted
    finally:
        if not process.ends_with_command:
            for number, handler in before.items():
                signal.signal(number, handler)
