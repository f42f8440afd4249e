"""Commands in forks of one process that has imported torch already: many, at little cost.

To import what a training needs takes longer than most trainings of the tests. A fork is a process
like any other, with a group, an environment and a folder of its own.

python -m tests.integration.forked      reads a request a line, in JSON, and answers it with a line
"""

import atexit
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

PROGRAM = ("-m", "lens_hpc")
SECONDS_BETWEEN_LOOKS = 0.01


class Forked:
    """A command that was started, to be used as a Popen is."""

    def __init__(self, forks: "Forks", pid: int) -> None:
        self._forks = forks
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, or minus the signal; None while it runs."""
        if self.returncode is None:
            self.returncode = self._forks.ask(ended=self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status; raises TimeoutExpired."""
        until = time.monotonic() + (float("inf") if timeout is None else timeout)
        while (status := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired(f"fork {self.pid}", timeout or 0)
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forks:
    """The process that forks, seen from a test; it ends with the tests' own, or as a context."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = {"OMP_NUM_THREADS": "1", **environment}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.forked"],
            cwd=Path(__file__).parents[2],
            env=os.environ | self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.ask(is_ready=True)

    def __enter__(self) -> "Forks":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the process that forks has ended; what it said stands above"
        return json.loads(answer)

    def start(
        self,
        *words: str,
        output: Path,
        errors: Path | None = None,
        cwd: Path | None = None,
        environment: dict[str, str],
        program: tuple[str, ...] = PROGRAM,
    ) -> Forked:
        """Start `python PROGRAM WORDS`; what it says is in files, `errors` in one of its own.

        They are there, and empty, when this returns.
        """
        errors = errors or output
        for file in (output, errors):
            file.write_bytes(b"")
        pid = self.ask(
            line=[*program, *words],
            output=str(output),
            errors=str(errors),
            cwd=str(cwd or Path.cwd()),
            environment=os.environ | self._environment | environment,
        )
        return Forked(self, pid)


_of_all_tests: list[Forks] = []


def forks() -> Forks:
    """Return the process of all tests that want no other.

    It is begun anew where it has ended: a launcher that a test has called in its own process passes
    its signals on to all children.
    """
    if not _of_all_tests or not _of_all_tests[-1].is_alive():
        _of_all_tests.append(Forks({}))
    return _of_all_tests[-1]


# ---- the process that forks ----


def _serve() -> None:
    # What the verbs import, for all forks at once.
    import lens_hpc.grading.serving
    import lens_hpc.grading.vetted
    import lens_hpc.packing.packing
    import lens_hpc.predicting.prediction
    import lens_hpc.reporting.evaluation
    import lens_hpc.training.loop  # noqa: F401
    from lens_hpc import workers
    from lens_hpc.selection import painted
    from lens_hpc.sky import mock_survey

    # Workers that paint would import torch again; where it has done nothing yet, they may fork.
    for module in (mock_survey, painted):
        module.make_pool = lambda count, _, *start: workers.make_pool(count, "fork", *start)

    for line in sys.stdin:
        request = json.loads(line)
        match request:
            case {"is_ready": _}:
                answer = True
            case {"ended": pid}:
                answer = _has_ended(pid)
            case _:
                answer = _fork(request)
        print(json.dumps(answer), flush=True)


def _has_ended(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _fork(request: dict[str, Any]) -> int:
    pid = os.fork()
    # Here and there, as a test may kill the group at once.
    os.setpgid(pid, pid)
    if not pid:
        _become(**request)
    return pid


def _become(
    line: list[str], output: str, errors: str, cwd: str, environment: dict[str, str]
) -> None:
    """Be `python LINE` in this process, and end."""
    _redirect(output, errors)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)

    is_module = line[0] == "-m"
    program, *words = line[1:] if is_module else line
    sys.argv = [program, *words]
    sys.path[0] = cwd if is_module else str(Path(program).resolve().parent)
    status: Any = 1
    try:
        if is_module:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(program, run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
    _end(status)


def _end(status: Any) -> None:
    """End as the interpreter does, but do not take all modules apart: that copies their memory."""
    if not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _redirect(output: str, errors: str) -> None:
    files = {0: os.open(os.devnull, os.O_RDONLY)}
    for stream, name in ((1, output), (2, errors)):
        files[stream] = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    if errors == output:
        files[2] = files[1]
    for stream, file in files.items():
        os.dup2(file, stream)


if __name__ == "__main__":
    _serve()
