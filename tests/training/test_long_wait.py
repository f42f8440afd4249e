"""Two real processes, of which one lets the other wait for longer than any collective would."""

import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lens_hpc.training.accelerator import accelerator_session
from lens_hpc.training.long_wait import waited_for

pytestmark = pytest.mark.slow

# Ranks are forked when everything is imported, and so meet well within the time-out.
TWO_RANKS = """
import logging, os, signal, sys, time, traceback
from pathlib import Path

from lens_hpc import config
from lens_hpc.dataset import staging
from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.errors import UserError
from lens_hpc.training import long_wait, training_data
from lens_hpc.training.accelerator import accelerator_session
from lens_hpc.training.long_wait import waited_for

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
long_wait.SECONDS_BETWEEN_LINES = 1.0
TIMEOUT_SECONDS = 3.0
train = {"timeout_minutes": TIMEOUT_SECONDS / 60, "trackers": ()}
settings = config.Train.model_validate({"run": "r", "data": {"dataset": "d"}, "train": train})

def work(rank, accelerator):
WORK

for rank in (0, 1):
    if os.fork() == 0:
        os.environ.update(RANK=str(rank), LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
        status = 0
        try:
            with accelerator_session(settings) as accelerator:
                work(rank, accelerator)
        except BaseException:
            traceback.print_exc(file=sys.stdout)
            status = 1
        sys.stdout.flush()
        os._exit(status)
for _ in (0, 1):
    print("status", os.waitstatus_to_exitcode(os.wait()[1]))
"""


def two_ranks(work: str, *arguments: object) -> str:
    """Run some lines in two ranks, and return what they printed and ended with."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    own = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    code = TWO_RANKS.replace("WORK", work)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(
        command, env=os.environ | world | own, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


SLOW_DATA = """
    def slow(function):
        def wrapped(*arguments):
            if rank == 1:
                time.sleep(1.5 * TIMEOUT_SECONDS)
            return function(*arguments)
        return wrapped

    staging.copy_shards = slow(staging.copy_shards)
    training_data.find_damage = slow(training_data.find_damage)
    training_data.Split = slow(training_data.Split)
    dataset = Path(sys.argv[1])
    for wish in ({"stage_to": sys.argv[2]}, {"verify": "full"}, {}):
        data = config.Data(dataset=dataset, **wish)
        splits = training_data.open_splits(data, read_manifest(dataset), 8, accelerator)
        print("rows", len(splits.train))
"""


def test_a_process_may_take_longer_than_the_time_out(dataset: Path, tmp_path: Path) -> None:
    """While it stages, verifies or opens the dataset; the first one tells whom it waits for."""
    output = two_ranks(SLOW_DATA, dataset, tmp_path / "near")
    assert output.count("rows 28") == 6, output
    assert output.count("status 0") == 2, output
    for task in ("data.stage_to", "data.verify", f"opening {dataset}"):
        assert f"{task}: waiting for rank 1 on {platform.node()}: " in output


FAILING = """
    long_wait.LONGEST_PAUSE_SECONDS = 0.1
    for kind in (UserError, OSError, ZeroDivisionError):
        for culprit in (0, 1):
            for busy in (True, False):
                try:
                    with waited_for(accelerator, "task") as tell:
                        if rank == culprit:
                            raise kind("what is wrong")
                        while busy:
                            time.sleep(0.05)
                            tell("on the way")
                except Exception as error:
                    case = kind.__name__, culprit, rank, busy, type(error).__name__, error
                    os.write(1, (" ".join(map(str, case)) + "\\n").encode())  # in one piece
"""


def test_what_goes_wrong_in_one_process_ends_the_wait_of_all() -> None:
    """Whatever the error is, whichever process has it, and whatever the other does meanwhile."""
    output = two_ranks(FAILING)
    for kind in ("UserError", "OSError", "ZeroDivisionError"):
        for culprit in (0, 1):
            for busy in (True, False):
                others = "UserError" if kind != "ZeroDivisionError" else "RuntimeError"
                told = f"task: rank {culprit} on {platform.node()}: what is wrong"
                case = f"{kind} {culprit} {1 - culprit} {busy} {others} {told}\n"
                assert case in output, f"{case}{output}"

                own = {"OSError": "UserError task: what is wrong"}.get(kind, f"{kind} what is")
                assert f"{kind} {culprit} {culprit} {busy} {own}" in output, output


WITHOUT_AGENT = """
    for number in range(3):
        with waited_for(accelerator, "task"):
            time.sleep(0.3 * rank)
    os.write(1, b"through\\n")
"""


def test_the_first_process_keeps_the_store_until_all_have_seen_the_end() -> None:
    """No launcher's agent keeps it here, and the first one has nothing more to do."""
    output = two_ranks(WITHOUT_AGENT)
    assert output.count("through") == 2, output
    assert output.count("status 0") == 2, output


DEAD = """
    with waited_for(accelerator, "task"):
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_was_killed_is_named_after_the_time_out() -> None:
    output = two_ranks(DEAD)
    assert "RuntimeError: task: no sign of life for " in output, output
    assert f"s: rank 1 on {platform.node()}: at work" in output


def test_a_process_alone_waits_for_nobody_and_keeps_its_error() -> None:
    with accelerator_session() as accelerator:
        with waited_for(accelerator, "task") as tell:
            tell("on the way")
        with (
            pytest.raises(ZeroDivisionError, match="mine"),
            waited_for(accelerator, "task"),
        ):
            raise ZeroDivisionError("mine")
