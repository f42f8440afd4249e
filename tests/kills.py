"""Kill a command at random instants and start it again.

A test uses this with few rounds, a benchmark with many.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.integration.forked import Forked, forks

UNDISTURBED = "undisturbed"
"""Name of the folder of a run that is not killed."""


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, by relative name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def kill_and_restart(
    undisturbed: Sequence[str], command: Sequence[str], output: Path, kills: int, seed: int
) -> int:
    """Start the same command again and again, with `kills` SIGKILLs at random instants.

    `command` are the words behind `lens-hpc`. It writes the folder `output`, and `undisturbed` one
    beside it that is called UNDISTURBED; what they say is in the file `log` there. Each kill ends
    all processes of the command. Whenever it comes to its end, its output must be, byte for byte,
    that of the undisturbed run; it is then removed, so that the next start begins from nothing.
    Return how often it came to its end.
    """
    rng = random.Random(seed)
    log = output.with_name("log")
    seconds = _seconds_to_its_end(_start(undisturbed, log), log)
    expected = files_of(output.with_name(UNDISTURBED))

    ends = 0
    while True:
        process = _start(command, log)
        try:
            # The machine may have become faster or slower.
            patience = rng.uniform(0, 1.02) * seconds if kills else None
            seconds = _seconds_to_its_end(process, log, patience)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills -= 1
            continue

        assert files_of(output) == expected, "the bytes differ from those of an undisturbed run"
        assert not output.with_name(output.name + ".partial").exists()
        ends += 1
        if not kills:
            return ends
        shutil.rmtree(output)


def kill_and_restart_pack(
    survey: Path, output: Path, overrides: Sequence[str], kills: int, seed: int
) -> int:
    """Do that to a `pack`, and return how often it came to its end."""
    undisturbed = _pack(survey, output.with_name(UNDISTURBED), overrides)
    return kill_and_restart(undisturbed, _pack(survey, output, overrides), output, kills, seed)


def _pack(survey: Path, output: Path, overrides: Sequence[str]) -> list[str]:
    words = ["pack", str(survey / "recipe.yaml"), f"source={survey}", f"output={output}"]
    return [*words, *overrides]


def _start(command: Sequence[str], log: Path) -> Forked:
    return forks().start(*command, output=log, environment={})


def _seconds_to_its_end(process: Forked, log: Path, patience: float | None = None) -> float:
    """Wait for a command that must succeed; raises TimeoutExpired."""
    began = time.monotonic()
    assert process.wait(patience) == 0, log.read_text()
    return time.monotonic() - began
