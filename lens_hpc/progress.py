"""How far a command is: a bar on a terminal, elsewhere a plain line now and then."""

import time
from typing import Self

from lens_hpc import status_line
from lens_hpc.logs import logger

SECONDS_BETWEEN_BARS = 0.25
SECONDS_BETWEEN_LINES = 10.0


class Display:
    """A text that changes: the last line of a terminal; elsewhere a plain line now and then.

    It is silent unless `shown`. Call `close` at the end.
    """

    def __init__(self, shown: bool = True) -> None:
        self.is_bar = shown and status_line.can_be_drawn()
        self.writes_lines = shown and not self.is_bar
        self.last_shown = time.monotonic()

    def is_due(self) -> bool:
        """Whether the text may be shown again."""
        pause = SECONDS_BETWEEN_BARS if self.is_bar else SECONDS_BETWEEN_LINES
        return time.monotonic() - self.last_shown >= pause

    def show(self, text: str, fraction: float = 0.0) -> None:
        """Show a text, and on a terminal that a fraction (0 to 1) is done."""
        self.last_shown = time.monotonic()
        if self.is_bar:
            status_line.draw_line(text, fraction)
        elif self.writes_lines:
            logger.info(text)

    def close(self) -> None:
        """Take the text from the terminal."""
        if self.is_bar:
            status_line.erase()


class Progress:
    """How much of some work is done, and when all of it will be.

    It is silent unless `shown`. Call `close` at the end, or use it as a context manager.
    """

    def __init__(self, total: float, title: str, unit: str, shown: bool = True) -> None:
        self.total = total
        self.title = title
        self.unit = unit
        self.done = 0.0
        self.facts: dict[str, str] = {}
        self.began = time.monotonic()
        self.display = Display(shown)
        self._show_bar()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, count: float, **facts: str) -> None:
        """Count `count` more units as done; `facts` join or replace those shown beside them."""
        self.done += count
        self.facts |= facts
        if self.display.is_due():
            self.display.show(self.line(), self.fraction())

    def begin(self, task: str) -> None:
        """Show what is done next, at once where that costs nobody a line."""
        self.facts = {"now:": task}
        self._show_bar()

    def close(self) -> None:
        """Take the bar away."""
        self.display.close()

    def rate(self) -> float:
        """Return the units a second since the start."""
        seconds = time.monotonic() - self.began
        return self.done / max(seconds, 1e-9)

    def time_left(self) -> str:
        """Say when this will be done; empty as long as nobody knows."""
        if not self.done:
            return ""
        seconds = (self.total - self.done) / self.rate()
        return f"{duration_text(seconds)} left"

    def line(self) -> str:
        """Say all that is known, the most important first."""
        parts = [
            self.title,
            f"{self.done:,.0f}/{self.total:,.0f} {self.unit}",
            f"{self.rate():,.0f} {self.unit}/s",
            self.time_left(),
        ]
        parts += [f"{name} {value}" for name, value in self.facts.items()]
        return "  ".join(part for part in parts if part)

    def fraction(self) -> float:
        """Return how much is done, from 0 to 1."""
        return self.done / self.total if self.total else 0.0

    def _show_bar(self) -> None:
        if self.display.is_bar:
            self.display.show(self.line(), self.fraction())


def duration_text(seconds: float) -> str:
    """Say how long something takes, in the two largest units that matter."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{max(seconds, 0):.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
