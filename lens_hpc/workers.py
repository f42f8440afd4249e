"""Worker processes that end when their parent does, however it ends; and cores for them."""

import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SECONDS_BETWEEN_LOOKS = 0.3

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")

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


def usable_cpus() -> int:
    """Return the number of cores that this process may use, at least 1.

    In a job or a container they are fewer than the machine has; the processes of one launcher on
    one node share them.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    on_node = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, int(min(allowed, _cpu_quota()) / on_node))


def _cpu_quota() -> float:
    """Return the processor time that Linux gives to this process's control groups, in cores.

    Groups are nested, and each may limit what is within it: the smallest limit counts.
    """
    if not OWN_CGROUPS.is_file():
        return math.inf

    limits = [math.inf]
    for line in OWN_CGROUPS.read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        # Version 2 has one tree for all controllers, version 1 has one for each.
        if not controllers:
            group = CGROUPS / path.lstrip("/")
        elif "cpu" in controllers.split(","):
            group = CGROUPS / "cpu" / path.lstrip("/")
        else:
            continue
        limits += [_limit_of(folder) for folder in (group, *group.parents)]
    return min(limits)


def _limit_of(group: Path) -> float:
    """Return what one control group allows, in cores; infinity where it says nothing."""
    new, old = group / "cpu.max", group / "cpu.cfs_quota_us"
    if new.is_file():
        quota, period = new.read_text(encoding="utf-8").split()
    elif old.is_file():
        quota = old.read_text(encoding="utf-8").strip()
        period = (group / "cpu.cfs_period_us").read_text(encoding="utf-8").strip()
    else:
        return math.inf
    return math.inf if quota in {"max", "-1"} else int(quota) / int(period)


def _start_worker(
    parent: int, initializer: Callable[..., None] | None, arguments: tuple[Any, ...]
) -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)

    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if initializer:
        initializer(*arguments)


def _end_with(parent: int) -> None:
    # A parent that was killed cannot end its workers: they would go on writing, or wait for ever.
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)
