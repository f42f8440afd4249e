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
ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def make_pool(
    processes: int, method: str, begin: Callable[..., None] | None = None, *arguments: Any
) -> ProcessPoolExecutor:
    """A pool of `processes`, started by `method`: fork shares what the parent holds, spawn starts clean.

    Each process first calls `begin(*arguments)`.
    """
    context = multiprocessing.get_context(method)
    return ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(os.getpid(), begin, arguments))


@contextmanager
def deaf() -> Iterator[None]:
    """What starts meanwhile is born deaf to these signals, and does not die of one before it can ignore it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(parent: int, begin: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    for number in ASKING:  # they are for the parent, which ends its workers
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if begin:
        begin(*arguments)


def _end_with(parent: int) -> None:
    """A parent that was killed cannot end its workers: they would go on writing, or wait for ever."""
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)
