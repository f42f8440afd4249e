"""Reading a file of which a damaged one may end its reader, or keep it for ever."""

import os
import pickle
import signal
from collections.abc import Callable
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from lens_hpc.errors import UserError
from lens_hpc.workers import make_pool

LEAST_SECONDS = 300
SLOWEST_BYTES_PER_SECOND = 1_000_000
"""Nothing that is sound is read more slowly, on a busy file system of a cluster either."""

AnyResult = TypeVar("AnyResult")


def read_in_worker(file: Path, read: Callable[..., AnyResult], *arguments: object) -> AnyResult:
    """Return `read(*arguments)`, which reads `file`, called in a process of its own.

    Raises what `read` raises, a RuntimeError in place of what cannot leave the process, and
    UserError when that process dies or takes too long.
    """
    seconds = LEAST_SECONDS + file.stat().st_size / SLOWEST_BYTES_PER_SECOND
    with make_pool(1, "fork") as pool:
        worker = pool.submit(os.getpid).result()
        task = pool.submit(_read, read, arguments)
        try:
            finished = wait([task], timeout=seconds).done
        finally:
            # Also when we are interrupted: the pool would wait for it.
            if not task.done():
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)

        if not finished:
            raise UserError(f"{file}: was not read after {seconds:.0f} seconds; mend or remove it")
        try:
            return task.result()
        except BrokenProcessPool as error:
            raise UserError(
                f"{file}: ends the process that reads it, or is too large for the memory; mend it"
            ) from error


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
