"""Reading a file of which a damaged one may end its reader, or keep it for ever."""

import os
import pickle
import resource
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from lens_hpc.errors import UserError
from lens_hpc.resources import usable_memory
from lens_hpc.workers import make_pool

LEAST_SECONDS = 300
SLOWEST_BYTES_PER_SECOND = 1_000_000
"""Nothing that is sound is read more slowly, on a busy file system of a cluster either."""
LEAST_BYTES = 4 << 30
BYTES_PER_BYTE = 200
"""Memory that a reader may take: so much, or so much for each byte of its file."""
SECONDS_TO_STOP = 5
"""Code in C that looks at no signals is ended so much later."""
SECONDS_BETWEEN_LOOKS = 0.02

AnyResult = TypeVar("AnyResult")


class TooLongError(Exception):
    """A call that took more of the processor's time than it may."""


class _OutOfTime(BaseException):
    """Raised in a process whose time is up: no library takes it for an error of its own."""


def half_of_memory() -> int:
    """Return half of the memory that there is, in bytes: no single file may take more."""
    return usable_memory() // 2


def read_in_worker(
    file: Path,
    read: Callable[..., AnyResult],
    *arguments: object,
    cpu_seconds: int | None = None,
) -> AnyResult:
    """Return `read(*arguments)`, which reads `file`, called in a process of its own.

    Raises what `read` raises, a RuntimeError in place of what cannot leave the process, and
    UserError when that process dies, takes too long or too much memory. `cpu_seconds` is how much
    of the processor's time it may take; None for a reader that only a damaged file keeps.
    """
    size = file.stat().st_size
    seconds = LEAST_SECONDS + size / SLOWEST_BYTES_PER_SECOND + 10 * (cpu_seconds or 0)
    most_bytes = min(max(LEAST_BYTES, BYTES_PER_BYTE * size), half_of_memory())
    with make_pool(1, "fork", _limit_cpu, cpu_seconds) as pool:
        worker = pool.submit(os.getpid).result()
        task = pool.submit(_read, read, arguments)
        try:
            is_small = _wait_while_small(task, worker, most_bytes, seconds)
        finally:
            # Also when we are interrupted: the pool would wait for it.
            was_done = task.done()
            if not was_done:
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)

        if not is_small:
            raise UserError(
                f"{file}: has {size:,} bytes, and reading it takes more than {most_bytes:,} of "
                "memory; if it is sound, read it on a machine with more, or name fewer columns"
            )
        if not was_done:
            raise UserError(f"{file}: was not read after {seconds:.0f} seconds; mend or remove it")
        try:
            return task.result()
        except _OutOfTime as error:
            raise UserError(
                f"{file}: has {size:,} bytes, and reading it takes more than {cpu_seconds} s of "
                "the processor's time; mend or remove it"
            ) from error
        except BrokenProcessPool as error:
            raise UserError(
                f"{file}: ends the process that reads it, or is too large for the memory; mend it"
            ) from error


def _wait_while_small(
    task: Future[AnyResult], worker: int, most_bytes: int, seconds: float
) -> bool:
    """Wait until a task is done, or time is up; return whether its process stayed small."""
    end = time.monotonic() + seconds
    before = _private_bytes(worker)
    while time.monotonic() < end:
        if wait([task], timeout=SECONDS_BETWEEN_LOOKS).done:
            return True
        if _private_bytes(worker) > before + most_bytes:
            return False
    return True


def _private_bytes(process: int) -> int:
    """Return the memory that a process has for itself, and not by mapping a file; 0 if unknown."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return (int(pages[1]) - int(pages[2])) * resource.getpagesize()


def _read(read: Callable[..., AnyResult], arguments: tuple[object, ...]) -> AnyResult:
    try:
        return read(*arguments)
    except Exception as error:
        # One that cannot be unpickled would break the pool, as if the process had died.
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            raise RuntimeError(f"{type(error).__name__}: {error}") from None
        raise


def call_within(cpu_seconds: int, call: Callable[..., AnyResult], *arguments: object) -> AnyResult:
    """Return `call(*arguments)`, made in a process that may use so much of the processor's time.

    Raises TooLongError when that does not suffice, and UserError when something else ends the
    process. How busy the machine is does not matter.
    """
    with make_pool(1, "fork", _limit_cpu, cpu_seconds) as pool:
        try:
            return pool.submit(call, *arguments).result()
        except _OutOfTime as error:
            raise TooLongError from error
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process was ended from outside, perhaps as the memory was full; run "
                "again, with more memory"
            ) from error


def _limit_cpu(seconds: int | None) -> None:
    if seconds is None:
        return
    signal.signal(signal.SIGXCPU, _stop)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    last = seconds + SECONDS_TO_STOP
    if most != resource.RLIM_INFINITY:
        seconds, last = min(seconds, most), min(last, most)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, last))


def _stop(*_: object) -> None:
    raise _OutOfTime
