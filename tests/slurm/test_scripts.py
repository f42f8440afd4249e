"""Scripts that can be read before they are trusted."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.slurm.conftest import CLUSTER, SCRIPTS, Cluster

JOBS = sorted(SCRIPTS.glob("*.sbatch"))
SHELL = [*JOBS, *sorted(SCRIPTS.glob("*.sh")), CLUSTER]


@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.name)
def test_bash_and_shellcheck_have_no_complaint(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck: apt-get install shellcheck")
    command = ["shellcheck", "--external-sources", "--source-path", str(SCRIPTS), str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", JOBS, ids=lambda path: path.name)
def test_a_site_with_64_cpus_and_8_gpus_a_node_takes_them_as_they_are(
    cluster: Cluster, script: Path
) -> None:
    for options in ((), ("--nodes=3",), ("--account=", "--time=10")):
        cluster("sbatch", "--test-only", *options, str(script), "x")


def test_they_are_short() -> None:
    for job in JOBS:
        assert len(job.read_text().splitlines()) < 40


def test_torchs_own_way_with_a_hang_of_nccl_is_kept() -> None:
    """Its default ends the process after the time-out; 1 would leave more to clean up."""
    assert not any("ASYNC_ERROR_HANDLING" in script.read_text() for script in SHELL)
