import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from lens_hpc.training import signals


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_a_signal_is_noted_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in signals.SIGNALS}
    with signals.StopRequest() as request:
        assert not request.requested
        os.kill(os.getpid(), number)
        assert request.requested
        assert request.reason == number.name
    assert {each: signal.getsignal(each) for each in signals.SIGNALS} == before


def test_handlers_come_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), signals.StopRequest():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) == before


def test_another_thread_installs_none() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def enter() -> None:
        with signals.StopRequest() as request:
            seen.append((signal.getsignal(signal.SIGINT), request.requested))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


def run_as_program(code: str) -> int:
    """Run code in a process that ends with its command; return its exit status, -N for signal N."""
    start = """
import os, signal
from lens_hpc import process
from lens_hpc.training import signals
process.ends_with_command = True
"""
    return subprocess.run([sys.executable, "-c", start + code], check=False).returncode


def test_a_second_interrupt_of_a_command_is_obeyed_at_once() -> None:
    twice = """
with signals.StopRequest():
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
"""
    assert run_as_program(twice) == -signal.SIGINT


def test_a_second_sigterm_does_not_change_how_a_command_ends() -> None:
    late = """
with signals.StopRequest():
    signal.raise_signal(signal.SIGTERM)
signal.raise_signal(signal.SIGTERM)
raise SystemExit(85)
"""
    assert run_as_program(late) == 85


def test_a_second_interrupt_does_not_end_a_notebook() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), signals.StopRequest():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


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
        with signals.StopRequest():
            signal.raise_signal(signal.SIGTERM)
            time.sleep(30)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


SAVED = 85


def test_sigterm_that_was_seen_lets_the_process_save(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "SECONDS_TO_ANSWER", 0.1)
    pid = os.fork()
    if pid == 0:
        with signals.StopRequest() as request:
            signal.raise_signal(signal.SIGTERM)
            assert request.requested
            time.sleep(0.5)
            os._exit(SAVED)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == SAVED


def test_a_sigterm_that_nobody_looked_at_ends_nothing_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The training has ended in the step in which the signal came."""
    monkeypatch.setattr(signals, "SECONDS_TO_ANSWER", 0.1)
    pid = os.fork()
    if pid == 0:
        with signals.StopRequest():
            signal.raise_signal(signal.SIGTERM)
        time.sleep(0.5)
        os._exit(SAVED)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == SAVED


def test_a_first_process_that_is_stopped_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps the record of where each was, and never answers."""
    monkeypatch.setattr(signals, "SECONDS_TO_ANSWER", 0.1)
    alone: Any = SimpleNamespace(process_index=0, num_processes=1)
    agreement = signals.Agreement(alone, 1.0)
    assert agreement.last_seen() == ""

    asked_in_vain = threading.Event()

    def get(_: str) -> bytes:
        asked_in_vain.wait(20)
        return b"0 nowhere"

    agreement._group = object()
    agreement._store = SimpleNamespace(get=get)
    began = time.monotonic()
    assert "the first one, which keeps the record, is gone or stopped" in agreement.last_seen()
    assert time.monotonic() - began < 10
    asked_in_vain.set()
