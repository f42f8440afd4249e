"""Worker processes that end when their parent does, however it ends."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

SECONDS_BETWEEN_LOOKS = 0.3

# Signals that ask a process to stop. A launcher, Slurm or a terminal sends them to workers, too.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def make_pool(
    processes: int, method: str, initializer: Callable[..., None] | None = None, *arguments: Any
) -> ProcessPoolExecutor:
    """Make a pool of worker processes, each of which first calls `initializer(*arguments)`.

    `method` is "fork", which shares what the parent holds, or "spawn", which starts clean. Workers
    ignore the signals that ask a process to stop, because their parent ends them.
    """
    return ProcessPoolExecutor(
        processes,
        multiprocessing.get_context(method),
        initializer=_start_worker,
        initargs=(os.getpid(), initializer, arguments),
    )


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Block the signals that ask this thread to stop; they arrive at the end.

    A worker that is started meanwhile is born with them blocked, so that none ends it before it
    ignores them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(
    parent: int, initializer: Callable[..., None] | None, arguments: tuple[Any, ...]
) -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)

    end_with(parent)
    if initializer:
        initializer(*arguments)


def end_with(parent: int) -> None:
    """Let this process end when its parent does, which cannot end it when it is killed.

    Its children would go on writing, or wait for ever.
    """
    threading.Thread(target=_wait_for_end, args=(parent,), daemon=True).start()


def _wait_for_end(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)
