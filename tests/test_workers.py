import os
import signal
import subprocess
import sys
import time

import pytest

from lens_hpc.workers import make_pool, signals_blocked, usable_cpus

ENDED = """
import os, time
from lens_hpc.workers import make_pool

pool = make_pool(1, "fork")
print(pool.submit(os.getpid).result(), flush=True)
time.sleep(60)
"""

_given = 0


def keep(number: int) -> None:
    global _given
    _given = number


def given() -> int:
    return _given


def signals_ignored() -> bool:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    return all(signal.getsignal(number) == signal.SIG_IGN for number in numbers)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_are_initialised_and_ignore_what_asks_to_stop(method: str) -> None:
    with make_pool(1, method, keep, 7) as pool:
        assert pool.submit(given).result() == 7
        assert pool.submit(signals_ignored).result()
    assert not signals_ignored()
    assert given() == 0


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_end_when_their_parent_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENDED], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert is_running(worker)
        parent.kill()
    end = time.monotonic() + 10
    while is_running(worker) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_running(worker)


def test_signals_arrive_when_they_are_no_longer_blocked() -> None:
    arrived: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: arrived.append(number))
    try:
        with signals_blocked():
            # To this thread: other threads of a test run do not block it.
            signal.raise_signal(signal.SIGUSR1)
            time.sleep(0.05)
            assert not arrived
        assert arrived == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_cores_are_those_of_this_process() -> None:
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)
