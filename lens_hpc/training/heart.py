"""Signs of life: each process shows the others that it lives, and ends when they do not answer.

The store by which the processes meet lives in the first of them, or in its launcher. A call into it
waits without a limit while that process is stopped, in C, where Python runs no signal handler. So a
thread of each process, its heart, writes there once a second where the process is, and reads what
went wrong in another one; a second thread, the watch, ends the process when the heart has had no
answer for longer than `train.timeout_minutes`.

What goes wrong in one process is written there before it leaves, and the first one leaves when all
who live have read it: so all say the same.
"""

import itertools
import math
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NoReturn

from torch import distributed

from lens_hpc.errors import UserError

SECONDS_BETWEEN_BEATS = 1.0
# An operation of torch that runs into the time-out can tell more than the watch.
SECONDS_OF_GRACE = 20.0
SECONDS_TO_ANSWER = 8.0
SECONDS_TO_SAY = 2.0
# A process that leaves does not wait for one that it has not seen for so long.
SECONDS_UNTIL_SILENT = 8.0
SECONDS_ALIVE = 3.0  # a heart may be late by as much
SECONDS_BETWEEN_LOOKS = 0.05
SHOWN_RANKS = 8

# All processes enter the same sessions, in the same order.
_session_numbers = itertools.count()
_beating: "Heart | None" = None


@contextmanager
def heart_beating(limit_seconds: float) -> Iterator["Heart"]:
    """Show the others that this process lives, and end it when they are silent for too long.

    All processes that the launcher started must enter it, before they meet. An error that leaves
    it is told to all. A RuntimeError that came of another one's UserError or OSError is raised as
    a UserError with its words; any other one has a note of who was last seen when.
    """
    global _beating
    before = _beating
    _beating = heart = Heart(limit_seconds)
    try:
        heart.start()
        with _failing_together(heart):
            yield heart
    finally:
        heart.stop()
        _beating = before


@contextmanager
def _failing_together(heart: "Heart") -> Iterator[None]:
    try:
        yield
    except Exception as error:
        heart.compare_failures(error)
        heart.say_farewell()
        if isinstance(error, RuntimeError):
            heart.raise_failure(UserError)
        raise
    heart.say_farewell()


def present() -> "Heart":
    """Return the heart that beats; outside of a session, that of a process alone."""
    return _beating or Heart(0.0, alone=True)


def leave(message: str) -> NoReturn:
    """End this process from any of its threads, whatever its main thread waits for."""
    said = threading.Thread(
        target=lambda: print(f"lens-hpc: {message}", file=sys.stderr, flush=True), daemon=True
    )
    said.start()
    said.join(SECONDS_TO_SAY)  # a terminal may be gone, or stopped
    os._exit(1)


class Heart:
    """What this process shows the others, and what it has seen of them."""

    def __init__(self, limit_seconds: float, alone: bool = False) -> None:
        self.limit_seconds = limit_seconds
        self.rank, self.world_size = (0, 1) if alone else _own_world()
        self.name = f"rank {self.rank} on {platform.node()}"
        self.failure = ""
        """Kind and words of the first error of any process, as soon as this one knows of it."""
        self.store: Any = distributed.HashStore()  # type: ignore[attr-defined]

        self._where = "its start"
        self._there_since = time.time()
        self._unanswered = 0.0
        self._seen: dict[int, tuple[str, float]] = {}
        self._answers = True
        self._over = threading.Event()

    # ---- beating ----

    def note(self, where: str) -> str:
        """Remember where this process is, for the others to read. Returns where it was."""
        before, self._where = self._where, where
        self._there_since = time.time()
        return before

    def start(self) -> None:
        """Begin to beat. Raises RuntimeError when the first process cannot be reached."""
        if self.world_size == 1:
            return
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        prefix = f"lens_hpc/session/{attempt}/{next(_session_numbers)}"
        shared = _open_store(self.rank, self.world_size, self.limit_seconds)
        self.store = distributed.PrefixStore(prefix, shared)  # type: ignore[attr-defined]
        self._beat()
        threading.Thread(target=self._keep_beating, name="heart", daemon=True).start()

    def stop(self) -> None:
        """Let heart and watch end. They are not waited for: the store may never answer."""
        self._over.set()

    def _keep_beating(self) -> None:
        # The store may be gone with the process that kept it; what waits for that one then fails.
        with suppress(RuntimeError):
            while not self._over.wait(SECONDS_BETWEEN_BEATS):
                self._beat()
        self._over.set()

    def _beat(self) -> None:
        """Show where this process is, and look for what went wrong in another one."""
        told = f"{time.time()} {self._there_since} {self.name}: {self._where}"
        self.store.set(f"life/{self.rank}", told)
        if self.store.check(["failure"]):
            self.failure = self.store.get("failure").decode()
            self.store.set(f"left/{self.rank}", "")
        self._unanswered = 0.0

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._over.wait(SECONDS_BETWEEN_BEATS):
            # One that was stopped itself has not waited for so long.
            now = time.monotonic()
            self._unanswered += min(now - last, 2 * SECONDS_BETWEEN_BEATS)
            last = now
            if self._unanswered > self.limit_seconds + SECONDS_OF_GRACE:
                leave(f"{self.name}, at {self._where}: {self._first_is_silent()}")

    # ---- seeing ----

    def told(self, rank: int) -> str:
        """Return who a process is and where, as it told; nothing before it came."""
        record = self._record(rank)
        return record.split(" ", 2)[2] if record else ""

    def silence(self, rank: int) -> float:
        """Return for how many seconds a process gave no sign of life, since this was first asked.

        It must be asked every few seconds.
        """
        now = time.monotonic()
        record = self._record(rank)
        last, since = self._seen.get(rank, (None, now))
        if record != last:
            since = now
        self._seen[rank] = record, since
        return now - since

    def last_seen(self) -> str:
        """Describe where each process was last, those that are silent first."""
        sightings = []
        now = time.time()
        for rank in range(self.world_size):
            record = self._record(rank)
            if not record:
                sightings.append((math.inf, 0.0, f"rank {rank} never came"))
                continue
            seen_at, there_since, told = record.split(" ", 2)
            age, stay = now - float(seen_at), now - float(there_since)
            name, _, where = told.partition(": ")
            words = f"{name} was last seen {age:.0f} s ago, at {where}, for {stay:.0f} s"
            sightings.append((age // SECONDS_ALIVE, stay, words))

        sightings.sort(reverse=True)
        shown = [words for _, _, words in sightings[:SHOWN_RANKS]]
        more = len(sightings) - len(shown)
        return "; ".join([*shown, f"and {more} more"] if more else shown)

    def _record(self, rank: int) -> str:
        key = f"life/{rank}"
        return self.store.get(key).decode() if self.store.check([key]) else ""

    def _first_is_silent(self) -> str:
        return (
            "rank 0, which keeps the record of where all are, is gone, stopped or cannot be "
            f"reached: it has not answered for {self._unanswered:.0f} s"
        )

    # ---- failing together ----

    def fail(self, kind: type[Exception], words: str) -> None:
        """Tell all processes of an error, unless another one was told before."""
        own = f"{kind.__name__} {words}"
        # Without the store nobody can be told, and this error is what counts.
        with suppress(RuntimeError):
            self.failure = self.store.compare_set("failure", "", own).decode()

    def raise_failure(self, *kinds: type[Exception]) -> None:
        """Raise what first went wrong in any process, if it is of one of these kinds."""
        kind, _, words = self.failure.partition(" ")
        for each in kinds:
            if each.__name__ == kind:
                raise each(words)

    def compare_failures(self, error: Exception) -> None:
        """Tell the others of an error, and note with it what they tell."""
        if self.world_size == 1:
            return
        kind = UserError if isinstance(error, UserError | OSError) else RuntimeError
        may_be_anothers = isinstance(error, RuntimeError)
        words = f"{self.name}: {error}"

        def compare() -> str:
            seen = self.last_seen() if may_be_anothers else ""
            self.fail(kind, f"{words}; {seen}" if seen else words)
            return seen

        seen = self._answer_of(compare)
        if may_be_anothers:
            error.add_note(self._first_is_silent() if seen is None else seen)
            if self.failure and words not in self.failure:
                error.add_note(f"what went wrong first: {self.failure}")

    def say_farewell(self) -> None:
        """Let the first process, which may keep the store, go when no other needs it any more."""
        if self.world_size == 1 or not self._answers:
            return
        with suppress(RuntimeError):
            self.note("its end")
            self._beat()
            self.store.set(f"left/{self.rank}", "")
            until = time.monotonic() + self.limit_seconds
            while self.rank == 0 and self._is_needed() and time.monotonic() < until:
                time.sleep(SECONDS_BETWEEN_LOOKS)

    def _is_needed(self) -> bool:
        """Whether a process lives that neither is at its end nor knows of the failure."""
        others = range(1, self.world_size)
        staying = [rank for rank in others if not self.store.check([f"left/{rank}"])]
        return any(self.silence(rank) < SECONDS_UNTIL_SILENT for rank in staying)

    def _answer_of(self, ask: Callable[[], str]) -> str | None:
        """Return what the store answers; None when it does not in time, or is gone."""
        answers: list[str] = []

        def wait_for_it() -> None:
            with suppress(RuntimeError):
                answers.append(ask())

        asking = threading.Thread(target=wait_for_it, name="asking", daemon=True)
        asking.start()
        asking.join(SECONDS_TO_ANSWER)
        self._answers = bool(answers)
        return answers[0] if answers else None


def _own_world() -> tuple[int, int]:
    """Return the rank of this process and the number of all, as they have met or will meet."""
    if distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    if {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return 0, 1


def _open_store(rank: int, world_size: int, limit_seconds: float) -> Any:
    """Return the store of the processes, before they meet or afterwards."""
    if distributed.is_initialized():
        return distributed.distributed_c10d._get_default_store()

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    keeps_it = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        # With multi_tenant, the process group will use the same one.
        return distributed.TCPStore(  # type: ignore[attr-defined]
            address,
            port,
            world_size,
            is_master=keeps_it,
            timeout=timedelta(seconds=limit_seconds),
            wait_for_workers=False,
            multi_tenant=True,
        )
    except RuntimeError as error:
        if not keeps_it:
            error.add_note(f"rank 0 was waited for at {address}:{port}, and did not answer")
        raise
