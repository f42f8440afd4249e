"""A run of a sweep: `lens-hpc train` as a process of its own, and why one has failed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lens_hpc.children import PARENT
from lens_hpc.errors import USER_ERROR_STATUS
from lens_hpc.refusals import refusals_named
from lens_hpc.sweeping.plan import PlannedRun

SECONDS_BETWEEN_LOOKS = 0.1
SPOKEN_BY_US = "lens-hpc: "
OF_THE_SETTINGS = ("the memory of the device is not enough", "the loss became", "became NaN or inf")
"""What training says where it ends with status 2 for what other settings may do better."""
LONGEST_LOG = 1 << 16

Train = Callable[[PlannedRun, list[int]], int]
"""Trains a run, or goes on with it, and returns its exit status. Signals that come meanwhile are
added to the list."""


@dataclass(frozen=True)
class TrainCommand:
    """Trains by `lens-hpc train`."""

    processes: int
    code: Sequence[str]

    def __call__(self, run: PlannedRun, signals: list[int]) -> int:
        """Train a run, or go on with it; what it says is appended to its log."""
        words = ["train", str(run_settings_file(run)), f"processes={self.processes}"]
        words += [f"code=[{','.join(self.code)}]"] * bool(self.code)
        log = log_file(run)
        with refusals_named(log), log.open("ab") as output:
            # In a session of its own, so that an interrupt from the keyboard comes by us alone.
            child = subprocess.Popen(
                [sys.executable, "-m", "lens_hpc", *words],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            status = _wait(child, signals)
        finally:
            child.terminate()
            child.wait()
        if status < 0:
            with log.open("a", encoding="utf-8") as output:
                output.write(f"\n{SPOKEN_BY_US}{_said_of_signal(-status)}\n")
        return status


def _environment() -> dict[str, str]:
    """Return the environment of a training: not its word, but the sweep's, tells a job its end."""
    environment = os.environ | {PARENT: str(os.getpid())}
    environment.pop("LENS_HPC_STATUS", None)
    if str(Path.cwd()) not in sys.path:
        environment["PYTHONSAFEPATH"] = "1"
    return environment


def _wait(child: subprocess.Popen, signals: list[int]) -> int:
    """Pass signals on to a process until it ends, and return its status."""
    passed = 0
    while child.poll() is None:
        for number in signals[passed:]:
            child.send_signal(number)
            passed += 1
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return child.returncode


def _said_of_signal(number: int) -> str:
    name = signal.Signals(number).name
    reason = ", as the system does where memory runs out" if name == "SIGKILL" else ""
    return f"ended by {name}{reason}"


# ---- what is beside a run ----


def run_settings_file(run: PlannedRun) -> Path:
    """Return the file of a run's settings."""
    return run.folder.with_name(f"{run.name}.yaml")


def log_file(run: PlannedRun) -> Path:
    """Return the file with what a run's training has said."""
    return run.folder.with_name(f"{run.name}.log")


def is_for_the_user(status: int, reason: str) -> bool:
    """Whether a training has ended for what no other settings within the ranges would mend."""
    return status == USER_ERROR_STATUS and not any(part in reason for part in OF_THE_SETTINGS)


def reason_of(run: PlannedRun) -> str:
    """Return what a run's training has said last: our message, or the end of a traceback."""
    log = log_file(run)
    if not log.is_file():
        return ""
    said = log.read_bytes()[-LONGEST_LOG:].decode(errors="replace").strip()
    _, ours, message = f"\n{said}".rpartition(f"\n{SPOKEN_BY_US}")
    is_message = ours and "Traceback (most recent" not in message
    return message if is_message else said.rpartition("\n")[2]
