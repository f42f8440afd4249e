"""Kill a command at random instants and start it again.

A test uses this with few rounds, a benchmark with many.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

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

    `command` writes the folder `output`, and `undisturbed` one beside it that is called
    UNDISTURBED. Each kill ends all processes of the command. Whenever it comes to its end, its
    output must be, byte for byte, that of the undisturbed run; it is then removed, so that the next
    start begins from nothing. Return how often it came to its end.
    """
    rng = random.Random(seed)
    began = time.monotonic()
    subprocess.run(undisturbed, check=True, capture_output=True)
    seconds = time.monotonic() - began
    expected = files_of(output.with_name(UNDISTURBED))

    ends = 0
    while True:
        began = time.monotonic()
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        patience = rng.uniform(0.3, 1.02) * seconds if kills else None
        try:
            _, errors = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills -= 1
            continue

        assert process.returncode == 0, errors.decode()
        assert files_of(output) == expected, "the bytes differ from those of an undisturbed run"
        assert not output.with_name(output.name + ".partial").exists()
        ends += 1
        if not kills:
            return ends

        # The machine may have become faster or slower.
        seconds = time.monotonic() - began
        shutil.rmtree(output)


def kill_and_restart_pack(
    survey: Path, output: Path, overrides: Sequence[str], kills: int, seed: int
) -> int:
    """Do that to a `pack`, and return how often it came to its end."""
    undisturbed = _pack(survey, output.with_name(UNDISTURBED), overrides)
    return kill_and_restart(undisturbed, _pack(survey, output, overrides), output, kills, seed)


def _pack(survey: Path, output: Path, overrides: Sequence[str]) -> list[str]:
    program = [sys.executable, "-m", "lens_hpc", "pack", str(survey / "recipe.yaml")]
    return [*program, f"source={survey}", f"output={output}", *overrides]
