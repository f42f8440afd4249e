"""Two real processes, of which one lets the other wait for longer than any collective would."""

import platform
from pathlib import Path

import pytest

from lens_hpc.training.accelerator import accelerator_session
from lens_hpc.training.long_wait import waited_for
from tests.training.two_ranks import two_ranks

pytestmark = pytest.mark.slow

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
        wished = settings.model_copy(update={"data": data})
        splits = training_data.open_splits(wished, read_manifest(dataset), accelerator)
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
                    with (
                        accelerator_session(settings) as accelerator,
                        waited_for(accelerator, "task") as tell,
                    ):
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
    assert f"s: rank 1 on {platform.node()}: " in output


def test_a_process_alone_waits_for_nobody_and_keeps_its_error() -> None:
    with accelerator_session() as accelerator:
        with waited_for(accelerator, "task") as tell:
            tell("on the way")
        with (
            pytest.raises(ZeroDivisionError, match="mine"),
            waited_for(accelerator, "task"),
        ):
            raise ZeroDivisionError("mine")
