"""Messages of any source, amid bars of any state, on a terminal that pyte rebuilds."""

import logging
import os
import pty
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl
from struct import pack
from termios import TIOCSWINSZ
from typing import TextIO

import pyte
import pytest

from lens_hpc import logs, status_line
from lens_hpc.progress import Progress

ROWS = 2000
"""So many that nothing scrolls away."""


class Terminal:
    """A pseudo terminal, and what its screen shows of what was written to it."""

    def __init__(self, columns: int) -> None:
        self.reader, self.writer = pty.openpty()
        self.resize(columns)
        self.screen = pyte.Screen(columns, ROWS)
        self._stream = pyte.ByteStream(self.screen)

    def resize(self, columns: int) -> None:
        ioctl(self.writer, TIOCSWINSZ, pack("HHHH", ROWS, columns, 0, 0))

    def read(self) -> None:
        """Show what was written; the pseudo terminal itself holds only a few kB."""
        os.set_blocking(self.reader, False)
        try:
            while content := os.read(self.reader, 1 << 16):
                self._stream.feed(content)
        except BlockingIOError:
            pass

    def lines(self) -> list[str]:
        self.read()
        return [line.rstrip() for line in self.screen.display]

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, columns: int = 80) -> Iterator[Terminal]:
    """Stderr is a terminal meanwhile, and log lines go there as on the command line."""
    shown = Terminal(columns)
    handlers = logging.root.handlers
    monkeypatch.setenv("TERM", "xterm")
    with monkeypatch.context() as patch, logs.Output(shown.writer) as stderr:
        patch.setattr(sys, "stderr", stderr)
        logging.root.handlers = []
        try:
            with logs.shown():
                yield shown
        finally:
            logging.root.handlers = handlers
            status_line.erase()
    shown.close()


# ---- who may write ----


def log(message: str, stderr: TextIO) -> None:
    logs.logger.info(message)


def warn(message: str, stderr: TextIO) -> None:
    """As Python's warnings and the prints of a library do."""
    print(message, file=stderr)


def write_in_c(message: str, stderr: TextIO) -> None:
    """As a library in C does, past all of Python's streams."""
    os.write(stderr.fileno(), f"{message}\n".encode())


def raise_error(message: str, stderr: TextIO) -> None:
    """As the command line shows one, after it has left all contexts."""
    status_line.erase()
    print(message, file=stderr, flush=True)


def in_a_thread(message: str, stderr: TextIO) -> None:
    thread = threading.Thread(target=print, args=[message], kwargs={"file": stderr, "flush": True})
    thread.start()
    thread.join()


def by_another_rank(message: str, stderr: TextIO) -> None:
    """A process that knows nothing of the line that this one has drawn."""
    child = os.fork()
    if child == 0:
        os.environ["RANK"] = "1"
        logs.logger.warning(message)
        os._exit(0)
    os.waitpid(child, 0)


SOURCES = (log, warn, write_in_c, raise_error, in_a_thread, by_another_rank)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_each_message_has_a_line_of_its_own(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wrote it, whatever the bar, and however wide the terminal."""
    draw = random.Random(seed)
    columns = draw.choice([20, 39, 80, 200])
    messages = []
    with terminal(monkeypatch, columns) as shown:
        progress: Progress | None = None
        for number in range(60):
            event = draw.choice(["begin", "update", "close", "message", "message"])
            if event == "begin" or progress is None:
                progress = random_progress(draw)
            elif event == "update":
                progress.display.last_shown = 0.0
                progress.update(draw.choice([0, 1, 7, 1000]), **{draw.choice(NAMES): "é 0.5"})
            elif event == "close":
                progress.close()
                progress = None
            else:
                message = f"<{number}:{draw.choice('abc')}>"
                messages.append(message)
                draw.choice(SOURCES)(message, sys.stderr)
            shown.read()
        lines = shown.lines()

    for message in messages:
        assert [line for line in lines if message in line] == [message]


NAMES = ("loss", "now:", "val AUC", "a" * 90)


def random_progress(draw: random.Random) -> Progress:
    title = draw.choice(["train", "epoch 1/3", "新しい", "t" * 300, "two\nlines\x1b[2J"])
    return Progress(draw.choice([0, 1, 1000, 10**12]), title, "cutouts")


def test_a_bar_is_gone_at_the_end_and_below_a_log_line_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = threading.enumerate()
    with terminal(monkeypatch) as shown:
        with Progress(10, "pack", "rows") as progress:
            progress.display.last_shown = 0.0
            progress.update(5)
            logs.logger.info("a line")
            message, bar, *rest = shown.lines()
            assert message == "a line"
            assert bar.startswith("pack  5/10 rows")
            assert not any(rest)
            assert threading.enumerate() == threads
        assert [line for line in shown.lines() if line] == ["a line"]


def test_half_of_the_line_is_reversed_where_half_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as shown:
        status_line.draw_line("pack", 0.5)
        shown.read()
        cells = [shown.screen.buffer[0][column].reverse for column in range(80)]
    assert cells == [True] * 40 + [False] * 40


def test_a_log_line_of_another_rank_takes_the_place_of_the_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with terminal(monkeypatch) as shown:
        status_line.draw_line("pack", 0.5)
        by_another_rank("from rank 1", sys.stderr)
        status_line.draw_line("pack", 0.6)
        assert shown.lines()[:3] == ["from rank 1", "pack", ""]


def test_the_bar_is_as_wide_as_the_terminal_has_become(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch, columns=30) as shown:
        status_line.draw_line("x" * 100, 0.5)
        assert shown.lines()[:2] == ["x" * 30, ""]
        shown.resize(0)  # some do not know
        status_line.draw_line("", 0.5)
        assert status_line._columns() == status_line.USUAL_COLUMNS


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_where_a_line_cannot_be_drawn_again_none_is(
    term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminal(monkeypatch) as shown:
        monkeypatch.setenv("TERM", term)
        Progress(10, "pack", "rows")
        assert bool(shown.lines()[0]) == (term != "dumb")
