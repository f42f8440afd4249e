"""The last line of a terminal, drawn again and again: no message glues to it.

It is as long as the terminal is wide. A terminal then begins a new line for whatever is written
next, be it by another thread, another process or a library in C. Only what this package logs takes
the place of the line, which is drawn anew below.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lens_hpc.texts import printable

ERASE = "\r\x1b[K"
"""To the first column, and erase from there to the end."""
REVERSED, NORMAL = "\x1b[7m", "\x1b[0m"
USUAL_COLUMNS = 80

_lock = threading.RLock()
_drawn: tuple[str, float] | None = None


def can_be_drawn() -> bool:
    """Whether stderr is a terminal that can draw a line again."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def draw_line(text: str, done: float) -> None:
    """Draw a text as the line, the first `done` (0 to 1) of its columns reversed: a bar.

    Characters beyond printable ASCII are escaped: how wide they are, only the terminal knows.
    """
    global _drawn
    columns = _columns()
    plain = printable(text, kept="").encode("ascii", "backslashreplace").decode()
    line = plain[:columns].ljust(columns)
    reversed_columns = round(min(max(done, 0.0), 1.0) * columns)
    with _lock:
        _drawn = text, done
        _write(ERASE + REVERSED + line[:reversed_columns] + NORMAL + line[reversed_columns:])


def erase() -> None:
    """Take the line away."""
    global _drawn
    with _lock:
        if _drawn:
            _drawn = None
            _write(ERASE)


@contextmanager
def set_aside() -> Iterator[None]:
    """Take the line away meanwhile, for a message."""
    with _lock:
        if _drawn or _may_be_of_another_process():
            _write(ERASE)
        yield
        if _drawn:
            draw_line(*_drawn)


def _may_be_of_another_process() -> bool:
    """Whether the first process of this job may have drawn a line on the same terminal."""
    return os.environ.get("RANK", "0") != "0" and can_be_drawn()


def _columns() -> int:
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        columns = 0
    return columns or USUAL_COLUMNS  # some terminals do not know


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _forget() -> None:
    """Begin anew in a child that was forked, perhaps while another thread drew."""
    global _lock, _drawn
    _lock = threading.RLock()
    _drawn = None


os.register_at_fork(after_in_child=_forget)
