"""Worker processes that end when their parent does, however it ends."""

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor

SECONDS_BETWEEN_LOOKS = 0.3


def make_pool(processes: int, method: str) -> ProcessPoolExecutor:
    """A pool of `processes`, started by `method`: fork shares what the parent holds, spawn starts clean."""
    context = multiprocessing.get_context(method)
    return ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(os.getpid(),))


def _begin(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A parent that was killed cannot end its workers: they would go on writing, or wait for ever."""
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)
