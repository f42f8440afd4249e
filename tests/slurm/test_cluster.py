"""The cluster that the other tests run on: it comes up, forgets nothing that it should keep, and
leaves nothing."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.conftest import Cluster


@pytest.fixture
def small() -> Iterator[Cluster]:
    made = Cluster(Path(f"/tmp/lens_hpc-{os.getpid()}-b"))
    yield made
    made("cluster", "stop")
    shutil.rmtree(made.folder)


def processes(folder: Path) -> list[str]:
    """Command lines that name the cluster's folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if f"{folder}/" in command:
            found.append(command)
    return found


def test_it_starts_runs_a_job_on_two_nodes_and_leaves_nothing(
    small: Cluster, tmp_path: Path
) -> None:
    assert small("cluster", "start", "-n", "2", "-c", "4").startswith("up in")
    assert small("srun", "-N", "2", "hostname", cwd=tmp_path).split() in (
        ["node1", "node2"],
        ["node2", "node1"],
    )
    job = small.submit(tmp_path, "-N", "2", "--wrap", f"srun sleep 600; : {small.folder}/x")
    small.wait_for(lambda: small.facts(job)["JobState"] == "RUNNING", "the job to run")
    assert processes(small.folder)
    small("cluster", "stop")
    assert processes(small.folder) == []
    assert "not up" in small("cluster", "status", check=False)


def test_a_crashed_node_is_gone_at_once_and_boots_again(small: Cluster) -> None:
    small("cluster", "start", "-n", "2", "-c", "4")
    before = len(processes(small.folder))
    small("cluster", "crash", "node2")
    assert len(processes(small.folder)) < before
    small("cluster", "boot", "node2")
    small.wait_for(
        lambda: "idle" in small("sinfo", "-h", "-n", "node2", "-o", "%t"), "node2 to be back"
    )
