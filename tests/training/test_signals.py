import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from lens_hpc.training import heart, signals


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


SAVED = 85


def status_of_fork(child: Callable[[], None]) -> int:
    """Call a function in a forked process; return its exit status, 0 if the function returns."""
    pid = os.fork()
    if pid == 0:
        try:
            child()
            os._exit(0)
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_as_program(code: str) -> int:
    """Run code in a process that ends with its command; return its exit status, -N for signal N."""
    start = """
import os, signal
from lens_hpc import process
from lens_hpc.training import signals
process.ends_with_command = True
"""
    return subprocess.run([sys.executable, "-c", start + code], check=False).returncode


@pytest.mark.slow
def test_a_second_interrupt_of_a_command_is_obeyed_at_once() -> None:
    twice = """
with signals.StopRequest():
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
"""
    assert run_as_program(twice) == -signal.SIGINT


@pytest.mark.slow
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

    def child() -> None:
        with signals.StopRequest():
            signal.raise_signal(signal.SIGTERM)
            time.sleep(30)

    assert status_of_fork(child) == 1


def test_sigterm_that_was_seen_lets_the_process_save(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "SECONDS_TO_ANSWER", 0.1)

    def child() -> None:
        with signals.StopRequest() as request:
            signal.raise_signal(signal.SIGTERM)
            request.obeyed()
            time.sleep(0.5)
            os._exit(SAVED)

    assert status_of_fork(child) == SAVED


def test_a_sigterm_that_nobody_looked_at_ends_nothing_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The training has ended in the step in which the signal came."""
    monkeypatch.setattr(signals, "SECONDS_TO_ANSWER", 0.1)

    def child() -> None:
        with signals.StopRequest():
            signal.raise_signal(signal.SIGTERM)
        time.sleep(0.5)
        os._exit(SAVED)

    assert status_of_fork(child) == SAVED


def test_sigterm_ends_a_process_whose_main_thread_runs_no_python(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one that asks a store whose owner is stopped: no handler runs there."""
    monkeypatch.setattr(signals, "SECONDS_TO_ANSWER", 0.1)

    def child() -> None:
        with signals.StopRequest():
            killer = threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGTERM])
            killer.start()
            libc = ctypes.CDLL(None)
            mutex = ctypes.create_string_buffer(64)
            libc.pthread_mutex_lock(mutex)
            libc.pthread_mutex_lock(mutex)  # which waits for ever, and goes on after a signal

    assert status_of_fork(child) == 1


@pytest.mark.slow
def test_sigterm_that_comes_again_later_ends_also_one_that_saves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Twice in a row, as Slurm sends it, is once."""
    monkeypatch.setattr(signals, "SECONDS_TO_ANSWER", 0.5)

    def child() -> None:
        with signals.StopRequest() as request:
            signal.raise_signal(signal.SIGTERM)
            request.obeyed()
            signal.raise_signal(signal.SIGTERM)
            time.sleep(1.5)
            print("twice is once", flush=True)
            signal.raise_signal(signal.SIGTERM)
            time.sleep(30)

    assert status_of_fork(child) == 1


@pytest.mark.slow
def test_sigterm_ends_a_command_that_does_not_end_though_its_work_is_done() -> None:
    stuck = """
signals.SECONDS_TO_ANSWER = 0.1
with signals.StopRequest():
    pass
signal.raise_signal(signal.SIGTERM)
import time
time.sleep(30)
"""
    assert run_as_program(stuck) == 1


@pytest.mark.slow
def test_under_nohup_sighup_stays_ignored() -> None:
    ignored = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with signals.StopRequest() as request:
    signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    raise SystemExit(85 if not request.requested else 1)
"""
    assert run_as_program(ignored) == SAVED


def test_what_a_notebook_does_with_signals_comes_back() -> None:
    with socket.socket() as own:
        own.setblocking(False)
        before = signal.set_wakeup_fd(own.fileno())
        try:
            threads = threading.active_count()
            with signals.StopRequest():
                assert threading.active_count() == threads + 1
            assert signal.set_wakeup_fd(own.fileno()) == own.fileno()
        finally:
            signal.set_wakeup_fd(before)
    listening = [thread for thread in threading.enumerate() if thread.name == "signals"]
    for thread in listening:
        thread.join(10)
        assert not thread.is_alive()


def test_a_stopped_terminal_keeps_no_process_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """The main thread waits within a write to it, and holds the stream."""
    monkeypatch.setattr(signals, "SECONDS_TO_ANSWER", 0.1)
    monkeypatch.setattr(heart, "SECONDS_TO_SAY", 0.1)
    reader, writer = os.pipe()

    def child() -> None:
        os.dup2(writer, 2)
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        with signals.StopRequest():
            threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGTERM]).start()
            sys.stderr.write("x" * 1_000_000)
            sys.stderr.flush()

    assert status_of_fork(child) == 1
    os.close(reader)
    os.close(writer)


def test_a_signal_to_a_forked_child_ends_the_child_alone() -> None:
    with signals.StopRequest() as request:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1000)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        assert not request.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.requested
        request.obeyed()
