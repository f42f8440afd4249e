"""One process at a time writes a dataset, a survey, a run or an evaluation.

It holds a lock on a file beside what it writes, .NAME.lock, which the system releases when the
process ends, however it ends; over NFS, too. Within the file stands who it is, and the file's time
shows every few seconds that it lives.

A file system without locks (Lustre without its option flock, NFS without its lock service) promises
less: the second process finds the file and watches its time. Two that start in the same second are
told apart; one that was stopped for longer than the watch, and then goes on, is not kept out. Where
locks are for one node alone (Lustre's localflock), the time of the file is watched for a moment.
"""

import errno
import fcntl
import json
import math
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from lens_hpc import files
from lens_hpc.errors import UserError
from lens_hpc.logs import logger
from lens_hpc.refusals import refusals_named

SECONDS_BETWEEN_BEATS = 2.0
SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_OF_SILENCE = 30.0
"""Without locks, a holder whose file has not changed for so long is taken for dead."""
SECONDS_TO_SEE_A_BEAT = 3 * SECONDS_BETWEEN_BEATS
SECONDS_OF_DOUBT = 1.0
"""Without locks, two that take the same file at the same time have done so within this time."""
WAIT_MINUTES = 10.0
LONGEST_RECORD = 10_000

NO_LOCKS = files.NOT_SUPPORTED | {errno.ENOLCK, errno.EPERM}
# Another process has removed the file meanwhile; NFS says so by ESTALE.
GONE = {errno.ENOENT, errno.ESTALE}

# Locks belong to open files, which a forked process inherits: it lets go of them at once.
_descriptors: set[int] = set()


def _forget_locks() -> None:
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()


os.register_at_fork(after_in_child=_forget_locks)


class HeldByAnotherError(UserError):
    """Another process writes what this one wants to write."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as its file tells."""

    host: str
    pid: int
    since: str
    job: str
    """Slurm's number of the job, or nothing."""
    share: str
    """Tasks with the same words here hold the lock together; nothing: one process alone."""

    def __str__(self) -> str:
        job = f" of job {self.job}" if self.job else ""
        return f"process {self.pid}{job} on {self.host}, since {self.since}"

    def is_seen(self) -> bool:
        """Say whether this node has such a process."""
        if self.host != platform.node():
            return False
        try:
            os.kill(self.pid, 0)
        except PermissionError:  # of another user
            return True
        except (ProcessLookupError, OverflowError, TypeError):
            return False
        return True


@contextmanager
def held(
    target: Path,
    file: Path | None = None,
    share: str = "",
    wait_minutes: float = WAIT_MINUTES,
    patient: bool = False,
) -> Iterator[None]:
    """Hold what is written to `target`, as long as the context lasts.

    `file` is that of the lock. Raises UserError with the holder's name where another process holds
    it: as soon as that one shows that it lives, or after `wait_minutes`. One of the same Slurm job
    is waited for, as it is the end of a job that was requeued. With `patient`, any that lives is
    waited for, without a limit: it does what this process would do.
    """
    if target.name in {"", ".."}:
        target = files.final_name(target)  # of the folder that `.` is
    file = file or target.with_name(f".{target.name}.lock")
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    own = Holder(platform.node(), os.getpid(), now, os.environ.get("SLURM_JOB_ID", ""), share)

    lock = _Lock(target, file, own)
    lock.take(math.inf if patient else time.monotonic() + 60 * wait_minutes, patient)
    try:
        with lock.heart_beating():
            yield
    finally:
        lock.release()


class _Lock:
    """The lock on one file, to be taken and released once."""

    def __init__(self, target: Path, file: Path, own: Holder) -> None:
        self.target = target
        self.file = file
        self.own = own
        self.descriptor = -1
        self.has_locks = True

        # What was last seen of another holder.
        self.holder: Holder | None = None
        self.lives = False
        self.beat = 0
        self.beat_seen_at = 0.0

    # ---- taking ----

    def take(self, until: float, patient: bool = False) -> None:
        """Return when the lock is held. Raises UserError when another process keeps it.

        The `patient` wait for one that lives, as for one of the same job.
        """
        told: Holder | None = None
        while not self._try():
            holder = self.holder
            is_of_this_job = holder is not None and holder.job == self.own.job != ""
            is_awaited = patient or is_of_this_job
            if (self.lives and not is_awaited) or time.monotonic() > until:
                raise HeldByAnotherError(
                    f"{self.target}: is being written by {holder or 'another process'} (its lock: "
                    f"{self.file}); wait until it has ended, or end it"
                )
            if is_awaited and holder != told:
                done = "to end" if is_of_this_job else "to be done with it"
                logger.warning("%s: waiting for %s %s", self.target, holder, done)
                told = holder
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _try(self) -> bool:
        """Take the lock if it is free, or if those who hold it are of the same share."""
        files.make_folder(self.file.parent)
        with refusals_named(self.file):
            try:
                # Opened anew each time: only so does NFS tell a time that is not an old one.
                self.descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError as error:
                if self.file.parent.is_dir():
                    raise UserError(
                        f"{self.file}: cannot be made: {error.strerror}; choose a folder that you "
                        "may write to"
                    ) from error
                return False  # another process has removed the folder, as it could not begin
            _descriptors.add(self.descriptor)
            taken = False
            try:
                taken = self._try_with_or_without_locks()
            except OSError as error:
                if error.errno not in GONE:
                    raise
            finally:
                if not taken:
                    self._close()
        return taken

    def _try_with_or_without_locks(self) -> bool:
        # Whoever may write to this folder may be its next holder.
        with suppress(OSError):
            os.fchmod(self.descriptor, 0o666)
        try:
            taken = self._try_alone() or self._try_together()
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            taken = self._try_without_locks()
        if not taken:
            self._look()
        return taken

    def _try_alone(self) -> bool:
        if not self._lock(fcntl.LOCK_EX) or not self._is_still_there():
            return False
        if self._is_held_on_another_node():
            return False
        self._write()
        if not self.own.share:
            return True
        # There is an instant without a lock in between, so the file is looked at once more.
        return self._lock(fcntl.LOCK_SH) and self._is_shared()

    def _is_held_on_another_node(self) -> bool:
        """Say whether a holder elsewhere lives: some file systems have locks for one node alone."""
        holder = self._read()
        if holder is None or holder.host == self.own.host:
            return False
        until = time.monotonic() + SECONDS_TO_SEE_A_BEAT
        while not self.lives and time.monotonic() < until:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            self._look()
        return self.lives

    def _try_together(self) -> bool:
        return self.own.share != "" and self._lock(fcntl.LOCK_SH) and self._is_shared()

    def _try_without_locks(self) -> bool:
        """Take a file that has no holder, or one whose holder has been silent for long."""
        if self.has_locks:
            self.has_locks = False
            logger.warning(
                "%s: this file system has no locks: two processes that write the same are told "
                "apart by the time of this file alone",
                self.file,
            )
        self._look()
        if self._is_shared():
            return True
        silent_for = time.monotonic() - self.beat_seen_at
        if self.holder is not None and silent_for < SECONDS_OF_SILENCE:
            return False

        # Of two that do this at the same time, the one that writes last has it.
        self._write()
        time.sleep(SECONDS_OF_DOUBT)
        return self._is_still_there() and self._read() == self.own

    def _lock(self, kind: int) -> bool:
        try:
            fcntl.flock(self.descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    # ---- the file ----

    def _look(self) -> None:
        """Note who holds the lock, and whether that one shows that it lives."""
        self.holder = self._read()
        if self.has_locks and self.holder is not None and self.holder.is_seen():
            self.lives = True
        beat = os.fstat(self.descriptor).st_mtime_ns
        if beat != self.beat:
            self.lives |= self.beat != 0
            self.beat, self.beat_seen_at = beat, time.monotonic()

    def _is_still_there(self) -> bool:
        """Say whether this file has not been removed since it was opened."""
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self.descriptor), self.file.stat())
        return False

    def _is_shared(self) -> bool:
        holder = self._read()
        same = holder is not None and holder.share == self.own.share != ""
        return same and self._is_still_there()

    def _read(self) -> Holder | None:
        """Return who wrote the file; None while it is empty or half written."""
        try:
            return Holder(**json.loads(os.pread(self.descriptor, LONGEST_RECORD, 0)))
        except (ValueError, TypeError):
            return None

    def _write(self) -> None:
        record = json.dumps(asdict(self.own)).encode()
        with refusals_named(self.file):
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, record, 0)

    @contextmanager
    def heart_beating(self) -> Iterator[None]:
        """Change the file's time again and again meanwhile."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(SECONDS_BETWEEN_BEATS):
                # A file system that does not answer for a while is not what the work depends on.
                with suppress(OSError):
                    os.utime(self.descriptor)

        heart = threading.Thread(target=beat, name="lock", daemon=True)
        heart.start()
        try:
            yield
        finally:
            over.set()
            heart.join(SECONDS_BETWEEN_BEATS)

    # ---- releasing ----

    def release(self) -> None:
        """Let go of the lock; the last who holds it removes its file."""
        with suppress(OSError):
            if self.has_locks:
                is_last = not self.own.share or self._lock(fcntl.LOCK_EX)
            else:
                is_last = not self.own.share and self._read() == self.own
            if is_last and self._is_still_there():
                self.file.unlink()
        self._close()

    def _close(self) -> None:
        _descriptors.discard(self.descriptor)
        os.close(self.descriptor)
        self.descriptor = -1
