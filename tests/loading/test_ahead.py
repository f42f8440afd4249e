import itertools
import threading
from collections.abc import Iterator

import pytest

from lens_hpc.loading.ahead import made_ahead


def test_items_come_in_their_order_and_from_another_thread() -> None:
    def numbers() -> Iterator[tuple[int, int]]:
        for number in range(50):
            yield number, threading.get_ident()

    found = list(made_ahead(numbers(), 3))
    assert [number for number, _ in found] == list(range(50))
    assert threading.get_ident() not in {thread for _, thread in found}
    assert list(made_ahead([], 3)) == []


def test_no_more_are_made_ahead_than_was_asked_for() -> None:
    made: list[int] = []
    numbers = made_ahead((made.append(n) or n for n in itertools.count()), 4)
    for taken in range(1, 30):
        next(numbers)
        assert len(made) <= taken + 4
    numbers.close()


def test_an_error_comes_where_the_item_would_have_been() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError("on purpose")

    numbers = made_ahead(failing(), 5)
    assert next(numbers) == 1
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        next(numbers)


@pytest.mark.parametrize("taken", [0, 1, 5, None])
def test_the_thread_and_what_it_iterates_end_with_the_iterator(taken: int | None) -> None:
    ended: list[bool] = []

    def numbers() -> Iterator[int]:
        try:
            yield from range(20)
        finally:
            ended.append(True)

    before = set(threading.enumerate())
    ahead = made_ahead(numbers(), 3)
    list(itertools.islice(ahead, taken))
    ahead.close()
    del ahead
    assert set(threading.enumerate()) == before
    assert ended == ([] if taken == 0 else [True])
