"""Wait for the other processes, however long their work takes, and tell how far they are.

A process that waits in a collective operation ends after `train.timeout_minutes`. To copy shards to
a node, or to read every byte of a dataset or a checkpoint, may take much longer. Such waits go
through the store by which the processes met: each writes there how far it is, and looks again and
again whether all are done.
"""

import itertools
import math
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from accelerate import Accelerator
from torch import distributed

from lens_hpc.errors import UserError
from lens_hpc.logs import SECONDS_BETWEEN_LINES, logger

SHORTEST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 0.5
SHARE_PAUSED = 0.1  # of the time waited so far: nobody is late by more
SECONDS_BETWEEN_BEATS = 1.0
LONGEST_FAREWELL_SECONDS = 3.0
SHOWN_RANKS = 4

# All processes wait for the same things, in the same order.
_wait_numbers = itertools.count()


@contextmanager
def waited_for(accelerator: Accelerator, task: str) -> Iterator[Callable[[str], None]]:
    """Let this process do its part of a task meanwhile, and then wait for all others.

    Yields a function by which this process tells how far it is; the first one logs what it and the
    others told. All processes must enter it. The first UserError or OSError of any process ends the
    wait of all as a UserError, and any other error, in the other processes, as a RuntimeError; so
    does a process that is dead or stopped, after the time-out of the process group.
    """
    notices = _Notices(accelerator, task)
    with notices.heart_beating():
        try:
            yield notices.tell
        except OSError as error:
            notices.fail(UserError, error)
            raise UserError(f"{task}: {error}") from error
        except UserError as error:
            notices.fail(UserError, error)
            raise
        except Exception as error:
            notices.fail(RuntimeError, error)
            raise
        notices.wait()


class _Notices:
    """What the processes tell each other about a task."""

    def __init__(self, accelerator: Accelerator, task: str) -> None:
        self.task = task
        self.is_first = accelerator.is_main_process
        self.rank = accelerator.process_index
        self.world_size = accelerator.num_processes
        self.name = f"rank {self.rank} on {platform.node()}"
        self.last_line = time.monotonic()
        self.last_look = time.monotonic()
        handler = accelerator.init_handler
        timeout = handler.timeout if handler else None
        self.longest_silence = timeout.total_seconds() if timeout else math.inf
        self.beats: dict[int, tuple[int, float]] = {}
        """Of other processes: the last count that was seen, and since when."""

        number = next(_wait_numbers)
        self.store: Any = distributed.HashStore()  # type: ignore[attr-defined]
        if self.world_size > 1:
            shared = distributed.distributed_c10d._get_default_store()
            prefix = f"lens_hpc/wait/{number}"
            self.store = distributed.PrefixStore(prefix, shared)  # type: ignore[attr-defined]
        self.store.set(f"told/{self.rank}", f"{self.name}: at work")

    @contextmanager
    def heart_beating(self) -> Iterator[None]:
        """Show the others that this process is alive, whatever it does meanwhile."""
        over = threading.Event()

        def beat() -> None:
            # The store may be gone with the process that kept it.
            with suppress(RuntimeError):
                while not over.wait(SECONDS_BETWEEN_BEATS):
                    self.store.add(f"beat/{self.rank}", 1)

        heart = threading.Thread(target=beat, name="heart", daemon=True)
        if self.world_size > 1:
            heart.start()
        try:
            yield
        finally:
            over.set()
            if self.world_size > 1:
                heart.join()

    # ---- while this process works ----

    def tell(self, how_far: str) -> None:
        """Say how far this process is. Raises the error of another process that failed."""
        self.store.set(f"told/{self.rank}", f"{self.name}: {how_far}")
        self._raise_failure()
        if self._is_line_due():
            logger.info("%s: %s", self.task, how_far)

    def fail(self, kind: type[UserError | RuntimeError], error: Exception) -> None:
        """End the wait of all processes, with the first error that occurred in any of them."""
        told = f"{kind.__name__} {self.task}: {self.name}: {error}"
        # Without the store nobody can be told, and this error is what counts.
        with suppress(RuntimeError):
            self.store.compare_set("failure", "", told)
            self.store.set("over", "")
            self._leave()

    # ---- when it is done ----

    def wait(self) -> None:
        """Return when all processes are done, or raise the error of the one that failed."""
        self.store.set(f"done/{self.rank}", "")
        if self.store.add("done", 1) == self.world_size:
            self.store.set("over", "")

        began = time.monotonic()
        while not self.store.check(["over"]):
            self._watch()
            if self._is_line_due():
                logger.info("%s: waiting for %s", self.task, self._describe(self._missing()))
            pause = SHARE_PAUSED * (time.monotonic() - began)
            time.sleep(min(max(pause, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS))
        self._raise_failure()
        self._leave()

    def _raise_failure(self) -> None:
        if not self.store.check(["failure"]):
            return
        kind, _, failure = self.store.get("failure").decode().partition(" ")
        self._leave()
        raise UserError(failure) if kind == UserError.__name__ else RuntimeError(failure)

    def _leave(self) -> None:
        """Let the first process, which may keep the store, be the last to go."""
        self.store.add("left", 1)
        until = time.monotonic() + LONGEST_FAREWELL_SECONDS
        while self.is_first and time.monotonic() < until:
            if self.store.add("left", 0) >= self.world_size:
                return
            time.sleep(SHORTEST_PAUSE_SECONDS)

    def _missing(self) -> list[int]:
        """Return the processes that are not done."""
        ranks = range(self.world_size)
        return [rank for rank in ranks if not self.store.check([f"done/{rank}"])]

    def _watch(self) -> None:
        """Raise RuntimeError when a process does not show any more that it lives.

        The first one watches those that are not done, the others watch the first.
        """
        now = time.monotonic()
        if now - self.last_look < SECONDS_BETWEEN_BEATS:
            return
        self.last_look = now

        for rank in self._missing() if self.is_first else [0]:
            count = self.store.add(f"beat/{rank}", 0)
            last_count, since = self.beats.get(rank, (-1, now))
            if count != last_count:
                self.beats[rank] = (count, now)
            elif now - since > self.longest_silence:
                silence = f"no sign of life for {now - since:.0f} s"
                error = RuntimeError(f"{self.task}: {silence}: {self._describe([rank])}")
                self.fail(RuntimeError, error)
                raise error

    def _describe(self, missing: list[int]) -> str:
        """Say which processes these are, and how far they are."""
        told = [f"told/{rank}" for rank in missing[:SHOWN_RANKS]]

        # A process that has not even begun has told nothing.
        shown = [self.store.get(key).decode() for key in told if self.store.check([key])]
        more = len(missing) - len(shown)
        return "; ".join([*shown, f"and {more} more"] if more else shown)

    def _is_line_due(self) -> bool:
        now = time.monotonic()
        if not self.is_first or now - self.last_line < SECONDS_BETWEEN_LINES:
            return False
        self.last_line = now
        return True
