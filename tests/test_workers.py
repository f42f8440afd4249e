import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lens_hpc.workers import make_pool, signals_blocked
from tests.conftest import pack_survey, write_survey
from tests.kills import files_of

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
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    return all(signal.getsignal(number) == signal.SIG_IGN for number in numbers)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_are_initialised_and_ignore_what_asks_to_stop(method: str) -> None:
    with make_pool(1, method, keep, 7) as pool:
        assert pool.submit(given).result() == 7
        assert pool.submit(signals_ignored).result()
    assert not signals_ignored()
    assert given() == 0


NOHUP = """
import signal
from lens_hpc.workers import make_pool, signals_blocked

with signals_blocked(), make_pool(1, "fork") as pool:
    assert pool.submit(signal.getsignal, signal.SIGHUP).result() == signal.SIG_IGN
signal.raise_signal(signal.SIGHUP)
print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)
"""


def test_what_nohup_has_started_ignores_that_its_terminal_is_closed() -> None:
    started = ["nohup", sys.executable, "-c", NOHUP]
    done = subprocess.run(started, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_packing_whose_terminal_is_closed_leaves_nothing_half_and_goes_on(
    number: signal.Signals, tmp_path: Path
) -> None:
    survey = write_survey(tmp_path / "s", rows=3000, size=16)
    options = "shard_mib=1", "processes=2"
    expected = files_of(pack_survey(survey, tmp_path / "expected", *options))

    output = tmp_path / "d"
    words = ["pack", f"{survey}/recipe.yaml", f"source={survey}", f"output={output}", *options]
    line = [sys.executable, "-m", "lens_hpc", *words]
    with subprocess.Popen(line, start_new_session=True, stderr=subprocess.DEVNULL) as packing:
        # All processes of a terminal are told, when it is closed.
        while not (group := members_of(packing.pid)) - {packing.pid}:
            time.sleep(0.01)
        os.killpg(packing.pid, number)
    assert packing.returncode == -number
    end = time.monotonic() + 10
    while any(map(is_running, group)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(is_running, group))
    assert not output.exists()

    subprocess.run(line, check=True, capture_output=True)
    assert files_of(output) == expected


def members_of(group: int) -> set[int]:
    """The processes of a process group."""
    told = subprocess.run(["pgrep", "-g", str(group)], capture_output=True, text=True, check=False)
    return {int(number) for number in told.stdout.split()}


@pytest.mark.slow
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
