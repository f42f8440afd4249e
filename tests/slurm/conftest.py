"""A real Slurm cluster of three nodes on this machine, for the very scripts that users get."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLUSTER = Path(__file__).with_name("cluster")
SCRIPTS = ROOT / "slurm"
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")
ENDED = {
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "PREEMPTED",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
    "DEADLINE",
}
# Only what hangs takes so long, on a busy machine, too.
TOO_LONG_SECONDS = 600
HOW_TO = "apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"


def missing() -> list[str]:
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    return [name for name in NEEDED if shutil.which(name, path=path) is None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder are slow, need Slurm, and say so where it is not."""
    skip = pytest.mark.skip(reason=f"no {', '.join(missing())}: {HOW_TO}")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("slow")
            item.add_marker("slurm")
            if missing():
                item.add_marker(skip)


class Cluster:
    """The clients' side."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.disk = folder, folder / "small disk"
        self.environment = os.environ | {
            "SLURM_CLUSTER_DIR": str(folder),
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "ACCELERATE_USE_CPU": "true",
            "LENS_HPC_LOST_SECONDS": "90",
        }

    def __call__(
        self, *command: str, cwd: Path | None = None, check: bool = True, **variables: str
    ) -> str:
        """Standard output of a command of the cluster script or of Slurm."""
        program = [str(CLUSTER), *command[1:]] if command[0] == "cluster" else list(command)
        environment = self.environment | variables
        done = subprocess.run(
            program,
            env=environment,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done.stdout + (done.stderr if done.returncode else "")

    def submit(self, cwd: Path, *words: str, **variables: str) -> int:
        """sbatch options and script, as a user writes them: the number of the job."""
        return int(self("sbatch", "--parsable", *words, cwd=cwd, **variables))

    def facts(self, job: int | str) -> dict[str, str]:
        """What scontrol knows of a job, or of a task of an array, as in 12_0."""
        return dict(re.findall(r"(\w+)=(\S*)", self("scontrol", "-o", "show", "job", str(job))))

    def wait(self, job: int | str) -> str:
        """State and exit status of a job that has ended, as in "FAILED 2"."""
        self.wait_for(lambda: self.facts(job)["JobState"] in ENDED, f"job {job} to end")
        facts = self.facts(job)
        return f"{facts['JobState']} {facts['ExitCode'].split(':')[0]}"

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Until it holds."""
        until = time.monotonic() + TOO_LONG_SECONDS
        while not condition():
            assert time.monotonic() < until, (
                f"waited {TOO_LONG_SECONDS} s for {what}\n{self('squeue')}"
            )
            time.sleep(0.3)


def output(cwd: Path, job: int | str) -> str:
    """What the job has written so far, its nodes' logs, too."""
    files = [*cwd.glob(f"*-{job}.out"), *sorted(cwd.glob(f"logs/{job}/*.log"))]
    return "\n".join(file.read_text() for file in files)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Three nodes that claim 64 CPUs and 8 GPUs each."""
    folder = Path(f"/tmp/lens_hpc-{os.getpid()}")  # Slurm wants a short path
    made = Cluster(folder)
    made.disk.mkdir(parents=True)
    small = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(made.disk)]
    mounted = os.geteuid() == 0 and subprocess.run(small, check=False).returncode == 0
    made("cluster", "start", "-n", "3")
    yield made
    made("cluster", "stop")
    if mounted:
        subprocess.run(["umount", made.disk], check=True)
    shutil.rmtree(folder)
