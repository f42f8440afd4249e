import os
import platform
import threading
import time
from typing import Any

import pytest
from torch import distributed

from lens_hpc.errors import UserError
from lens_hpc.training import heart as room
from lens_hpc.training.heart import Heart, heart_beating
from tests.training.two_ranks import two_ranks

NODE = platform.node()


def hearts(*ranks: int, limit_seconds: float = 1.0) -> list[Any]:
    """Of several processes, in this one; none of them beats by itself."""
    store = distributed.HashStore()  # type: ignore[attr-defined]
    made = []
    for rank in ranks:
        one = Heart(limit_seconds)
        one.rank, one.world_size, one.store = rank, 3, store
        one.name = f"rank {rank} on node-{rank}"
        made.append(one)
    return made


def test_a_process_alone_has_no_threads_and_keeps_its_error() -> None:
    threads = threading.active_count()
    with pytest.raises(RuntimeError, match="mine") as raised, heart_beating(1.0) as heart:
        assert room.present() is heart
        assert threading.active_count() == threads
        raise RuntimeError("mine")
    assert not hasattr(raised.value, "__notes__")
    assert room.present().world_size == 1


def test_the_silent_are_named_first_and_then_those_that_lag(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, silent, _ = hearts(0, 1, 2)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 64)
    silent.note("step 7")
    silent._beat()
    first.note("step 8")
    monkeypatch.setattr(time, "time", lambda: now)
    first._beat()
    never, one, other = first.last_seen().split("; ")
    assert never == "rank 2 never came"
    assert one == "rank 1 on node-1 was last seen 64 s ago, at step 7, for 64 s"
    assert other == "rank 0 on node-0 was last seen 0 s ago, at step 8, for 64 s"


def test_silence_lasts_until_the_next_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = hearts(0, 1)
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    other._beat()
    assert first.silence(1) == 0
    clock[0] += 5
    assert first.silence(1) == 5
    time.sleep(0.01)
    other._beat()
    assert first.silence(1) == 0


def test_the_first_error_of_all_is_kept() -> None:
    first, second, third = hearts(0, 1, 2)
    second.fail(UserError, "what is wrong")
    third.fail(RuntimeError, "and this, too")
    first._beat()
    for each in (first, second, third):
        with pytest.raises(UserError, match=r"^what is wrong$"):
            each.raise_failure(UserError, RuntimeError)
        each.raise_failure(RuntimeError)


@pytest.mark.slow
def test_the_first_process_stays_until_those_that_live_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second takes its time, the third never came."""
    monkeypatch.setattr(room, "SECONDS_UNTIL_SILENT", 0.5)
    first, second = hearts(0, 1, limit_seconds=20.0)
    first.fail(UserError, "what is wrong")
    heard = threading.Event()

    def beat() -> None:
        for _ in range(5):
            second.store.set("life/1", str(time.time()))
            time.sleep(0.2)
        heard.set()
        second._beat()

    thread = threading.Thread(target=beat)
    thread.start()
    first.say_farewell()
    assert heard.is_set()
    thread.join()


class StoppedStore:
    """Never answers."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def answer(self) -> None:
        self.over.wait(20)
        raise RuntimeError("its owner is gone")

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.answer()


def test_a_first_process_that_is_stopped_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps the record of where each is, and never answers."""
    monkeypatch.setattr(room, "SECONDS_TO_ANSWER", 0.1)
    (heart,) = hearts(1, limit_seconds=20.0)
    heart.store = StoppedStore()
    error = RuntimeError("timed out")
    began = time.monotonic()
    heart.compare_failures(error)
    heart.say_farewell()
    assert time.monotonic() - began < 10
    assert "rank 0, which keeps the record of where all are, is gone, stopped" in str(
        error.__notes__
    )
    heart.store.over.set()


def test_the_watch_ends_a_process_that_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SECONDS_OF_GRACE", 0.2)
    monkeypatch.setattr(room, "SECONDS_BETWEEN_BEATS", 0.05)
    pid = os.fork()
    if pid == 0:
        (heart,) = hearts(1, limit_seconds=0.2)
        threading.Thread(target=heart._watch, daemon=True).start()
        StoppedStore().over.wait(30)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


# ---- two real processes ----

ALONE_TO_FAIL = """
    from accelerate.utils import gather_object
    culprit, kind = int(sys.argv[1]), {"user": UserError, "ours": ZeroDivisionError}[sys.argv[2]]
    if rank == culprit:
        raise kind("what is wrong")
    gather_object([rank])
"""


@pytest.mark.slow
@pytest.mark.parametrize(("culprit", "kind"), [(0, "user"), (1, "user"), (1, "ours")])
def test_what_one_finds_outside_of_any_wait_all_say(culprit: int, kind: str) -> None:
    """The other one waits in a collective operation."""
    output = two_ranks(ALONE_TO_FAIL, culprit, kind)
    words = f"rank {culprit} on {NODE}: what is wrong"
    if kind == "user":
        assert f"UserError: {words}" in output, output
        assert "UserError: what is wrong" in output
    else:
        assert f"what went wrong first: RuntimeError {words}" in output, output
        assert "ZeroDivisionError: what is wrong" in output


LATE = """
    time.sleep(6.0 * rank)
    with waited_for(accelerator, "opening"):
        raise UserError("the shard is damaged")
"""


@pytest.mark.slow
def test_two_ranks_that_find_the_same_both_say_it() -> None:
    """One of them much later, as on a busy machine."""
    output = two_ranks(LATE)
    assert output.count("errors.UserError: the shard is damaged") == 2, output
