"""Wait for the other processes, however long their work takes, and tell how far they are.

A process that waits in a collective operation ends after `train.timeout_minutes`. To copy shards to
a node, or to read every byte of a dataset or a checkpoint, may take much longer. Such waits go
through the store by which the processes met: each writes there how far it is, and looks again and
again whether all are done.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from accelerate import Accelerator
from torch import distributed

from lens_hpc.errors import UserError
from lens_hpc.progress import Display
from lens_hpc.training import heart

SHORTEST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 0.5
SHARE_PAUSED = 0.1  # of the time waited so far: nobody is late by more
SHOWN_RANKS = 4

# All processes wait for the same things, in the same order.
_wait_numbers = itertools.count()


@contextmanager
def waited_for(
    accelerator: Accelerator, task: str, shows_progress: bool = False
) -> Iterator[Callable[[str], None]]:
    """Let this process do its part of a task meanwhile, and then wait for all others.

    Yields a function by which this process tells how far it is; the first one shows what it and the
    others told, but for its own part where it shows that in another way. All processes must enter
    it. The first UserError or OSError of any process ends the wait of all as a UserError, and any
    other error, in the other processes, as a RuntimeError; so does a process that is dead or
    stopped, after the time-out of the process group.
    """
    notices = _Notices(accelerator, task, shows_progress)
    before = heart.present().note(f"{task}: at work")
    with closing(notices.display):
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
    heart.present().note(before)


class _Notices:
    """What the processes tell each other about a task."""

    def __init__(self, accelerator: Accelerator, task: str, shows_progress: bool) -> None:
        self.task = task
        self.shows_progress = shows_progress
        self.is_first = accelerator.is_main_process
        self.rank = accelerator.process_index
        self.world_size = accelerator.num_processes
        self.display = Display(self.is_first)
        self.last_look = time.monotonic()
        self.heart = heart.present()
        assert self.world_size == self.heart.world_size
        number = next(_wait_numbers)
        self.store: Any = distributed.PrefixStore(  # type: ignore[attr-defined]
            f"wait/{number}", self.heart.store
        )

    # ---- while this process works ----

    def tell(self, how_far: str) -> None:
        """Say how far this process is. Raises the error of another process that failed."""
        self.heart.note(f"{self.task}: {how_far}")
        self.heart.raise_failure(UserError, RuntimeError)
        if not self.shows_progress and self.display.is_due():
            self.display.show(f"{self.task}: {how_far}")

    def fail(self, kind: type[UserError | RuntimeError], error: Exception) -> None:
        """End the wait of all processes, with the first error that occurred in any of them."""
        self.heart.fail(kind, f"{self.task}: {self.heart.name}: {error}")

    # ---- when it is done ----

    def wait(self) -> None:
        """Return when all processes are done, or raise the error of the one that failed."""
        self.heart.note(f"{self.task}: done")
        self.store.set(f"done/{self.rank}", "")
        if self.store.add("done", 1) == self.world_size:
            self.store.set("over", "")

        began = time.monotonic()
        while not self.store.check(["over"]):
            self.heart.raise_failure(UserError, RuntimeError)
            self._watch()
            if self.display.is_due():
                self.display.show(f"{self.task}: waiting for {self._describe(self._missing())}")
            pause = SHARE_PAUSED * (time.monotonic() - began)
            time.sleep(min(max(pause, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS))

    def _missing(self) -> list[int]:
        """Return the processes that are not done."""
        ranks = range(self.world_size)
        return [rank for rank in ranks if not self.store.check([f"done/{rank}"])]

    def _watch(self) -> None:
        """Raise RuntimeError when a process does not show any more that it lives.

        The first one watches those that are not done, the others watch the first.
        """
        now = time.monotonic()
        if now - self.last_look < heart.SECONDS_BETWEEN_BEATS:
            return
        self.last_look = now

        for rank in self._missing() if self.is_first else [0]:
            silence = self.heart.silence(rank)
            if silence > self.heart.limit_seconds:
                words = f"no sign of life for {silence:.0f} s: {self._describe([rank])}"
                error = RuntimeError(f"{self.task}: {words}")
                self.fail(RuntimeError, error)
                raise error

    def _describe(self, missing: list[int]) -> str:
        """Say which processes these are, and how far they are."""
        shown = [self.heart.told(rank) or f"rank {rank}" for rank in missing[:SHOWN_RANKS]]
        more = len(missing) - len(shown)
        return "; ".join([*shown, f"and {more} more"] if more else shown)
