"""What the user sees while a command works: log lines, and streams that never fail."""

import io
import logging
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lens_hpc import status_line
from lens_hpc.texts import printable

logger = logging.getLogger("lens_hpc")


# ---- streams ----


class Output(io.TextIOWrapper):
    """A stream to which to write never fails: what cannot be written is lost.

    The work goes on when its terminal is closed, or when nobody reads a pipe any more. `file` is a
    path to append to, or a descriptor, which stays open.
    """

    def __init__(self, file: str | int, encoding: str = "utf-8") -> None:
        of_path = isinstance(file, str)
        self._raw = _LossyFile(file, "a" if of_path else "w", closefd=of_path)
        super().__init__(
            io.BufferedWriter(self._raw), encoding, errors="backslashreplace", line_buffering=True
        )

    @property
    def failure(self) -> OSError | None:
        """Why something was lost; None where nothing was."""
        return self._raw.failure


class _LossyFile(io.FileIO):
    """A file that keeps the error of writing to it, in place of raising it."""

    failure: OSError | None = None

    def write(self, content: Any, /) -> int:
        try:
            written = super().write(content)
            if written is None:
                # Somebody made the terminal refuse to wait for its reader: so we do.
                select.select([], [self], [])
            return written or 0
        except OSError as error:
            self.failure = error
            return len(content)


def make_streams_last() -> None:
    """Let nothing that becomes of stdin, stdout and stderr end this process.

    For the command line alone, and before it opens anything: where a stream is closed, the next
    file would get its number, and the log lines with it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest number that is free: this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)

    sys.stdout = Output(1, getattr(sys.stdout, "encoding", "utf-8"))
    sys.stderr = Output(2, getattr(sys.stderr, "encoding", "utf-8"))


# ---- log lines ----


def setup(rank: int = 0) -> None:
    """Send log lines to stderr: all of rank 0's, warnings of the others with their rank.

    This replaces whatever logging the process had, so it is for the command line alone. Code that
    runs in somebody else's process uses `shown`.
    """
    handler = _Lines(sys.stderr)
    handler.setFormatter(_LineFormatter(_line_format(rank)))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logger.setLevel(_level(rank))


@contextmanager
def shown(rank: int = 0) -> Iterator[None]:
    """Send log lines to stderr meanwhile, unless the process has configured logging itself.

    Handlers and level of the logger are as before at the end.
    """
    if logger.hasHandlers():
        yield
        return

    handler = _Lines(sys.stderr)
    handler.setFormatter(_LineFormatter(_line_format(rank)))
    with _handler_added(handler), _level_set(logger, _level(rank)):
        yield


@contextmanager
def to_file(path: Path) -> Iterator[None]:
    """Append log lines to a file meanwhile, each with its time. The folder must be there.

    The file gets all of them, also where the process has configured logging to show fewer.
    """
    handler = _LogFile(path)
    handler.setFormatter(_LineFormatter("%(asctime)s %(message)s"))
    shown_level = logger.getEffectiveLevel()
    with (
        _handler_added(handler),
        _level_set(logger, min(shown_level, logging.INFO)),
        _propagated_from(shown_level),
    ):
        yield


@contextmanager
def quieted(logger_name: str) -> Iterator[None]:
    """Hide all but the errors that the logger of another library reports meanwhile."""
    other = logging.getLogger(logger_name)

    def is_error(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    # A library that is imported meanwhile may set its level itself.
    other.addFilter(is_error)
    try:
        with _level_set(other, logging.ERROR):
            yield
    finally:
        other.removeFilter(is_error)


def launched_rank() -> int:
    """Return the rank that the launcher gave to this process; 0 without a launcher."""
    return int(os.environ.get("RANK", "0"))


class _LineFormatter(logging.Formatter):
    """Shows what an id or a file name has for a terminal to obey, as in \\x1b."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _Lines(logging.StreamHandler):
    """Log lines on a stream, where progress may be drawn as well."""

    def emit(self, record: logging.LogRecord) -> None:
        with status_line.set_aside():
            super().emit(record)


class _LogFile(logging.FileHandler):
    """A file of log lines; a full disk ends no work, but loses lines."""

    def _open(self) -> Output:
        return Output(self.baseFilename)


def _line_format(rank: int) -> str:
    if rank:
        return f"[rank {rank}] %(message)s"
    return "%(message)s"


def _level(rank: int) -> int:
    return logging.WARNING if rank else logging.INFO


@contextmanager
def _handler_added(handler: logging.Handler) -> Iterator[None]:
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


class _Relay(logging.Handler):
    """Hands records on to the handlers of the root logger."""

    def emit(self, record: logging.LogRecord) -> None:
        # Without any, it would show the record as its last resort, a second time.
        if logging.root.handlers:
            logging.root.handle(record)


@contextmanager
def _propagated_from(level: int) -> Iterator[None]:
    """Let the handlers of the root logger see records of this level or above meanwhile."""
    before = logger.propagate
    logger.propagate = False
    try:
        with _handler_added(_Relay(level if before else logging.CRITICAL + 1)):
            yield
    finally:
        logger.propagate = before


@contextmanager
def _level_set(some_logger: logging.Logger, level: int) -> Iterator[None]:
    before = some_logger.level
    some_logger.setLevel(level)
    try:
        yield
    finally:
        some_logger.setLevel(before)
