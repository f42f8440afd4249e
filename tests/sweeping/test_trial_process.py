"""A training as a process of its own: its words, its end and what it has said."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from lens_hpc import config, settings
from lens_hpc.children import PARENT
from lens_hpc.sweeping import trial_process
from lens_hpc.sweeping.plan import PlannedRun
from lens_hpc.sweeping.trial_process import (
    OF_THE_SETTINGS,
    TrainCommand,
    is_for_the_user,
    log_file,
    reason_of,
)

PRETENDED = """
import os, signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(85))
print(" ".join(sys.argv[1:]), os.environ.get("LENS_HPC_STATUS"), flush=True)
print(os.environ["LENS_HPC_LAUNCHER"], os.getpgid(0) == os.getpid(), flush=True)
end = sys.argv[-1]
if "killed" in end:
    os.kill(os.getpid(), signal.SIGKILL)
if "waits" in end:
    time.sleep(600)
sys.exit(3)
"""


@pytest.fixture
def run(tmp_path: Path) -> PlannedRun:
    train = settings.load(config.Train, values={"run": tmp_path / "0007", "data.dataset": "d"})
    return PlannedRun(7, train)


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a small script stand for the interpreter with lens_hpc."""
    script = tmp_path / "python"
    (tmp_path / "pretended.py").write_text(PRETENDED)
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I "{tmp_path}/pretended.py" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(trial_process.sys, "executable", str(script))


@pytest.mark.usefixtures("pretended")
def test_it_is_started_apart_and_ends_with_its_status(
    run: PlannedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENS_HPC_STATUS", "/the/status/of/the/sweep")
    assert TrainCommand(2, ())(run, []) == 3
    assert TrainCommand(1, ("mine",))(run, []) == 3
    words = f"-m lens_hpc train {run.folder}.yaml"
    assert log_file(run).read_text().splitlines() == [
        f"{words} processes=2 None",
        f"{os.getpid()} True",
        f"{words} processes=1 code=[mine] None",
        f"{os.getpid()} True",
    ]
    assert PARENT not in os.environ


@pytest.mark.usefixtures("pretended")
def test_signals_are_passed_on(run: PlannedRun) -> None:
    signals: list[int] = []

    def send_when_it_listens() -> None:
        while not log_file(run).exists() or "True" not in log_file(run).read_text():
            time.sleep(0.02)
        signals.append(signal.SIGUSR1)

    sender = threading.Thread(target=send_when_it_listens)
    sender.start()
    assert TrainCommand(1, ("waits",))(run, signals) == 85
    sender.join()


@pytest.mark.usefixtures("pretended")
def test_a_training_that_is_killed_leaves_word(run: PlannedRun) -> None:
    assert TrainCommand(1, ("killed",))(run, []) == -signal.SIGKILL
    assert reason_of(run) == "ended by SIGKILL, as the system does where memory runs out"


def test_what_a_training_said_last(run: PlannedRun) -> None:
    cases = {
        "": "",
        "lens-hpc: train: no such file": "train: no such file",
        "epoch 1\nlens-hpc: train: 2 problems:\n  a\n  b\n": "train: 2 problems:\n  a\n  b",
        "lens-hpc: old\nTraceback (most recent call last):\n  x\nValueError: y": "ValueError: y",
        "epoch 1\nepoch 2": "epoch 2",
    }
    for said, reason in cases.items():
        log_file(run).write_text(said)
        assert reason_of(run) == reason
    log_file(run).unlink()
    assert reason_of(run) == ""


def test_what_other_settings_may_do_better() -> None:
    for part in OF_THE_SETTINGS:
        assert not is_for_the_user(2, f"train: {part} ...")
    assert is_for_the_user(2, "train: data.dataset: is not there")
    assert not is_for_the_user(1, "RuntimeError")


@pytest.mark.parametrize("part", OF_THE_SETTINGS)
def test_training_says_it_so(part: str) -> None:
    package = Path(trial_process.__file__).parents[1]
    rooms = package / "training", package / "scoring"
    sources = [file.read_text() for room in rooms for file in room.glob("*.py")]
    assert any(part in source for source in sources)
