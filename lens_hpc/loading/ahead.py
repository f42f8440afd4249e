"""What is made ahead, so that nobody waits for it."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def made_ahead(items: Iterable[Item], count: int) -> Generator[Item, None, None]:
    """Yield items that a thread of its own makes, at most `count` ahead.

    The thread ends with this iterator. An error is raised where the item would have been.
    """
    made = iter(items)
    end = object()
    with ThreadPoolExecutor(1, "ahead") as pool:
        ahead = deque(pool.submit(next, made, end) for _ in range(count))
        try:
            while (item := ahead.popleft().result()) is not end:
                ahead.append(pool.submit(next, made, end))
                yield item  # type: ignore[misc]
        finally:
            for future in ahead:
                future.cancel()
