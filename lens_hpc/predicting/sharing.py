"""How workers share the parts of a survey: the same way in every process, balanced by objects."""

import heapq
from collections.abc import Sequence


def share_out(objects: Sequence[int], workers: int) -> list[list[int]]:
    """Return the numbers of the parts of each worker, given the objects of each part.

    The largest part goes first, to whoever has the fewest objects (Graham 1969, SIAM J. Appl. Math.
    17, 416: no worker gets more than 4/3 of the best that is possible). Which parts are done
    already does not matter, so that all workers agree without a word.
    """
    shares: list[list[int]] = [[] for _ in range(workers)]
    loads = [(0, worker) for worker in range(workers)]
    for part in sorted(range(len(objects)), key=lambda part: (-objects[part], part)):
        load, worker = heapq.heappop(loads)
        shares[worker].append(part)
        heapq.heappush(loads, (load + objects[part], worker))
    return [sorted(share) for share in shares]
