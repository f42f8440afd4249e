"""What the user sees while a command works: log lines, and progress."""

import logging
import os
import sys
import time

from tqdm import tqdm

logger = logging.getLogger("lens_hpc")
SECONDS_BETWEEN_LINES = 10.0


def setup(rank: int = 0) -> None:
    """Send log lines to stderr: all of rank 0's, warnings of the others with their rank."""
    prefix = f"[rank {rank}] " if rank else ""
    logging.basicConfig(format=f"{prefix}%(message)s", level=logging.WARNING, stream=sys.stderr, force=True)
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)


def launched_rank() -> int:
    """Rank that the launcher gave to this process; 0 without a launcher."""
    return int(os.environ.get("RANK", "0"))


class Progress:
    """A bar on a terminal, gone at the end; elsewhere a plain line now and then. Silent unless `shown`."""

    def __init__(self, total: int, title: str, unit: str, shown: bool = True) -> None:
        self.total, self.title, self.unit = total, title, unit
        self.done, self.facts, self.began = 0, dict[str, str](), time.monotonic()
        self.spoke = self.began
        on_terminal = sys.stderr.isatty()
        self.bar = tqdm(total=total, desc=title, unit=f" {unit}", disable=not (shown and on_terminal), leave=False)
        self.lines = shown and not on_terminal

    def update(self, count: int, **facts: str) -> None:
        """`count` units more are done; `facts` join or replace those shown beside them."""
        self.done += count
        self.facts |= facts
        self.bar.set_postfix(self.facts, refresh=False)
        self.bar.update(count)
        if self.lines and time.monotonic() - self.spoke >= SECONDS_BETWEEN_LINES:
            self.spoke = time.monotonic()
            logger.info(self._line())

    def close(self) -> None:
        """Take the bar away."""
        self.bar.close()

    def rate(self) -> float:
        """Units a second since the start."""
        return self.done / max(time.monotonic() - self.began, 1e-9)

    def _line(self) -> str:
        facts = "".join(f"  {name} {value}" for name, value in self.facts.items())
        left = (self.total - self.done) / max(self.rate(), 1e-9)
        counts = f"{self.done:,}/{self.total:,} {self.unit}  {self.rate():,.0f} {self.unit}/s"
        return f"{self.title}  {counts}  {left:,.0f} s left{facts}"
