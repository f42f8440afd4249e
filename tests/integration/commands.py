"""Real commands in real processes: `lens_hpc` from the terminal on, all others as forks."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.integration.forked import PROGRAM, Forked, forks

# Only what hangs takes so long, on a busy machine, too.
TOO_LONG_SECONDS = 600


def lens_hpc(
    *arguments: str,
    processes: int = 1,
    cwd: Path | None = None,
    program: tuple[str, ...] = PROGRAM,
) -> subprocess.CompletedProcess[str]:
    """Run `lens-hpc ARGUMENTS` on the CPU, under `accelerate launch` if with several processes."""
    launcher = [
        "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes),
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
        "--main_process_port", "0",
    ]  # fmt: skip
    command = [sys.executable, *(launcher if processes > 1 else []), *program, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(
        command,
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=TOO_LONG_SECONDS,
        check=False,
    )


def forked(
    *arguments: str, processes: int = 1, cwd: Path | None = None, program: tuple[str, ...] = PROGRAM
) -> subprocess.CompletedProcess[str]:
    """Run a command or the ranks of one, as forks: what the first prints, and all others tell."""
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder), *arguments, processes=processes, cwd=cwd, program=program)
        status = next(filter(None, job.wait()), 0)
        errors = "".join(file.read_text() for file in job.errors)
        return subprocess.CompletedProcess(arguments, status, job.outputs[0].read_text(), errors)


def done(*arguments: str, processes: int = 1, cwd: Path | None = None) -> str:
    """The standard output of a forked command that must succeed."""
    result = forked(*arguments, processes=processes, cwd=cwd)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


class Job:
    """The ranks of one command, without a launcher: each can be signalled, and has a status."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        processes: int = 1,
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
        program: tuple[str, ...] = PROGRAM,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.outputs = [folder / f"output-{rank}" for rank in range(processes)]
        self.errors = [folder / f"errors-{rank}" for rank in range(processes)]
        self.ranks: list[Forked] = []
        for rank, (output, errors) in enumerate(zip(self.outputs, self.errors, strict=True)):
            own = dict(environment or {"ACCELERATE_USE_CPU": "true"})
            if processes > 1 or environment:
                own |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
                own |= {
                    "LOCAL_WORLD_SIZE": str(processes),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                }
            self.ranks.append(
                forks().start(
                    *arguments,
                    output=output,
                    errors=errors,
                    cwd=cwd,
                    environment=own,
                    program=program,
                )
            )

    def wait(self, seconds: float = TOO_LONG_SECONDS) -> list[int]:
        """Exit status of each rank."""
        until = time.monotonic() + seconds
        try:
            return [rank.wait(max(0.01, until - time.monotonic())) for rank in self.ranks]
        finally:
            self.kill()

    def kill(self) -> None:
        for rank in self.ranks:
            rank.kill()
            rank.wait()

    def output(self, rank: int = 0) -> str:
        """What a rank has said: the log, and then the result."""
        return self.errors[rank].read_text() + self.outputs[rank].read_text()

    def is_training(self) -> bool:
        """Whether the first step is near."""
        return "training rows" in self.output()

    def wait_for(self, condition: Callable[[], bool], seconds: float = TOO_LONG_SECONDS) -> None:
        """Until it holds; an error when a rank ends before."""
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, self.output()
            assert all(rank.poll() is None for rank in self.ranks), self.output()
            time.sleep(0.02)
