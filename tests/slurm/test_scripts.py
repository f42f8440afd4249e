"""Scripts that can be read before they are trusted."""

import os
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


@pytest.mark.parametrize(
    ("work", "word", "ended_with", "status"),
    [
        ("launch train", "0", 137, 0),  # Slurm ended a launcher when the work was done
        ("launch train", "", 137, 137),
        ("launch train", "85", 143, 85),
        ("launch train", "2", 1, 2),
        ("launch train", "", 0, 1),  # srun says 0 when it is torn down with its node
        ("launch train", "0", 0, 0),
        ("work srun", "0", 137, 137),  # tasks that do not work together, such as those of pack
        ("work srun", "0", 0, 0),
    ],
)
def test_what_the_processes_say_counts_where_they_work_together(
    tmp_path: Path, work: str, word: str, ended_with: int, status: int
) -> None:
    srun = tmp_path / "srun"
    said = f'echo {word} >"$LENS_HPC_STATUS"' if word else ":"
    srun.write_text(f"#!/bin/sh\n{said}\nexit {ended_with}\n")
    srun.chmod(0o755)
    lines = f"""
        set -euo pipefail
        source "{SCRIPTS}/site.sh"
        source "{SCRIPTS}/job.sh"
        LOGS={tmp_path} WORLD_SIZE=2 MASTER_ADDR=node1 MASTER_PORT=20000
        {work} config.yaml
        echo "status $STATUS"
    """
    done = subprocess.run(
        ["bash", "-c", lines],
        env=os.environ
        | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "1"}
        | {"SLURM_JOB_NUM_NODES": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith(f"status {status}\n")


def test_they_are_short() -> None:
    for job in JOBS:
        assert len(job.read_text().splitlines()) < 40


def test_torchs_own_way_with_a_hang_of_nccl_is_kept() -> None:
    """Its default ends the process after the time-out; 1 would leave more to clean up."""
    assert not any("ASYNC_ERROR_HANDLING" in script.read_text() for script in SHELL)
