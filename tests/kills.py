"""Kill `pack` at random instants and start it again: used by a test with few rounds, and by a benchmark with many."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything below a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def kill_and_restart(survey: Path, output: Path, overrides: Sequence[str], kills: int, seed: int) -> int:
    """Start the same `pack` again and again, with `kills` SIGKILLs of all its processes at random instants.

    Whenever it comes to its end, its output must be, byte for byte, that of an undisturbed run; it is then removed,
    so that the next start begins anew. Returns how often it came to its end.
    """
    rng = random.Random(seed)
    command = [sys.executable, "-m", "lens_hpc", "pack", str(survey / "recipe.yaml"), f"source={survey}"]
    began = time.monotonic()
    undisturbed = output.with_name("undisturbed")
    subprocess.run([*command, f"output={undisturbed}", *overrides], check=True, capture_output=True)
    seconds, expected = time.monotonic() - began, files_of(undisturbed)
    ends = 0
    while True:
        began = time.monotonic()
        process = subprocess.Popen(
            [*command, f"output={output}", *overrides], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        try:
            _, errors = process.communicate(timeout=rng.uniform(0.5, 1.02) * seconds if kills else None)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills -= 1
            continue
        assert process.returncode == 0, errors.decode()
        assert files_of(output) == expected, "the bytes differ from those of an undisturbed run"
        assert not output.with_name(output.name + ".partial").exists()
        ends, seconds = ends + 1, time.monotonic() - began  # the machine may have become faster or slower
        if not kills:
            return ends
        shutil.rmtree(output)
