"""Real commands in real processes."""

import os
import subprocess
import sys
from pathlib import Path

TOO_LONG_SECONDS = 300


PROGRAM = ("-m", "lens_hpc")


def lens_hpc(
    *arguments: str, processes: int = 1, cwd: Path | None = None, program: tuple[str, ...] = PROGRAM
) -> subprocess.CompletedProcess[str]:
    """`lens-hpc ARGUMENTS`, under `accelerate launch` when there are several processes, on the CPU."""
    launcher = [
        "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes), "--num_machines", "1",
        "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
    ]  # fmt: skip
    command = [sys.executable, *(launcher if processes > 1 else []), *program, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({"ACCELERATE_USE_CPU": "true"} if program == PROGRAM else {})
    return subprocess.run(
        command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=TOO_LONG_SECONDS, check=False
    )


def done(*arguments: str, processes: int = 1, cwd: Path | None = None) -> str:
    """The standard output of a command that must succeed."""
    result = lens_hpc(*arguments, processes=processes, cwd=cwd)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout
