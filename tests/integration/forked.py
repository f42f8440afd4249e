"""Commands in forks of one process that has imported torch already: many trials, at little cost.

python -m tests.integration.forked      reads a line for each command, [OUTPUT-FILE, WORDS]
                                        in JSON, and answers with its exit status
"""

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from lens_hpc import cli


class Forks:
    """The process that forks, seen from a test. As a context manager, it is ended at the end."""

    def __init__(self, environment: dict[str, str]) -> None:
        quiet = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.forked"],
            env=os.environ | quiet | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Forks":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, output: Path, *words: str) -> int:
        """Return the exit status of a command, or minus the signal; what it says is in `output`."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([str(output), words]) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def _serve() -> None:
    # What the verbs import, for all forks at once.
    import lens_hpc.grading.serving
    import lens_hpc.grading.vetted
    import lens_hpc.packing.packing
    import lens_hpc.predicting.prediction
    import lens_hpc.reporting.evaluation
    import lens_hpc.sky.mock_survey
    import lens_hpc.training.loop  # noqa: F401

    for line in sys.stdin:
        output, words = json.loads(line)
        child = os.fork()
        if not child:
            _become(output, words)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(output: str, words: list[str]) -> Any:
    """Run a command in this process, as the terminal does, and end."""
    os.setsid()
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["lens-hpc", *words]
    status = 1
    try:
        status = cli.main()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve()
