import os
import signal
import time
from collections.abc import Iterator

import pytest

from lens_hpc.engine import signals


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_a_signal_leaves_a_note(number: signal.Signals) -> None:
    request = signals.StopRequest()
    assert not request.came()
    os.kill(os.getpid(), number)
    assert request.came()
    assert request.reason == number.name


def test_a_second_interrupt_is_obeyed_at_once() -> None:
    signals.StopRequest()
    signal.raise_signal(signal.SIGINT)
    pid = os.fork()
    if pid == 0:
        signal.raise_signal(signal.SIGINT)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGINT


def test_the_deadline_comes_from_the_setting_or_from_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    assert signals.deadline(None) == float("inf")
    assert signals.deadline(2.0) == pytest.approx(time.time() + 120, abs=1)
    monkeypatch.setenv("SLURM_JOB_END_TIME", "2000")
    assert signals.deadline(None) == 2000 - signals.SECONDS_BEFORE_JOB_END
    assert signals.deadline(2.0) > 2000


def test_sigterm_ends_a_process_whose_step_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank that waits for a dead one, before the launcher kills it without a word."""
    monkeypatch.setattr(signals, "SECONDS_TO_ANSWER", 0.1)
    pid = os.fork()
    if pid == 0:
        signals.StopRequest()
        signal.raise_signal(signal.SIGTERM)
        time.sleep(30)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def test_sigterm_that_was_seen_lets_the_process_save(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "SECONDS_TO_ANSWER", 0.1)
    pid = os.fork()
    if pid == 0:
        request = signals.StopRequest()
        signal.raise_signal(signal.SIGTERM)
        assert request.came()
        time.sleep(0.5)
        os._exit(signals.STOPPED)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == signals.STOPPED
