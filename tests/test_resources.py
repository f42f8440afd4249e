import os
from pathlib import Path

import pytest

from lens_hpc import resources
from lens_hpc.packing.guarded import half_of_memory
from lens_hpc.resources import usable_cpus, usable_memory


def test_cores_are_those_of_this_process() -> None:
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """64 cores, and control groups that limit nothing; `own` is what a process reads of them."""
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(resources, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(resources, "OWN_CGROUPS", tmp_path / "own")
    return tmp_path


def limit(group: Path, version: int, quota: str) -> None:
    group.mkdir(parents=True, exist_ok=True)
    if version == 2:
        (group / "cpu.max").write_text(f"{quota.replace('-1', 'max')} 100000\n")
    else:
        (group / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (group / "cpu.cfs_period_us").write_text("100000\n")


OWN = {
    2: "0::/slurm/job/step\n",
    1: "5:memory:/elsewhere\n4:cpu,cpuacct:/slurm/job/step\n0::/ignored\n",
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("limits", "cores"),
    [
        ({}, 64),
        ({"slurm": "-1", "slurm/job/step": "-1"}, 64),
        ({"slurm/job/step": "400000"}, 4),
        ({"slurm/job": "250000"}, 2),
        ({"": "800000", "slurm/job": "-1"}, 8),
        ({"slurm": "300000", "slurm/job/step": "1200000"}, 3),
        ({"slurm/job/step": "50000"}, 1),
        ({"slurm/job/step": "9900000"}, 64),
        ({"another": "100000"}, 64),
    ],
)
def test_control_groups_limit_the_cores(
    machine: Path, version: int, limits: dict[str, str], cores: int
) -> None:
    (machine / "own").write_text(OWN[version])
    root = machine / "cgroup" / ("cpu" if version == 1 else "")
    for group, quota in limits.items():
        limit(root / group, version, quota)
    assert usable_cpus() == cores


def test_a_container_may_not_see_where_its_group_lies(machine: Path) -> None:
    """The path is the host's, and what is mounted begins at the group itself."""
    (machine / "own").write_text("4:cpu,cpuacct:/docker/0123\n")
    limit(machine / "cgroup" / "cpu", 1, "600000")
    assert usable_cpus() == 6


def test_the_processes_of_a_node_share_its_cores(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for processes, cores in (("1", 64), ("4", 16), ("3", 21), ("100", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        assert usable_cpus() == cores


def test_affinity_limits_the_cores(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 6, 9}, raising=False)
    assert usable_cpus() == 3


# ---- memory ----


def test_memory_is_that_of_this_machine() -> None:
    assert 1 << 28 < usable_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("limits", "megabytes"),
    [
        ({}, 1 << 20),
        ({"slurm/job/step": "max"}, 1 << 20),
        ({"slurm/job": "4096"}, 4096),
        ({"slurm/job": "4096", "slurm/job/step": "2048"}, 2048),
        ({"slurm": "1024", "slurm/job/step": "2048"}, 1024),
        ({"another": "16"}, 1 << 20),
    ],
)
def test_control_groups_limit_the_memory(
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: int,
    limits: dict[str, str],
    megabytes: int,
) -> None:
    """A job of 4 GB on a machine of 1 TB is killed when it takes more."""
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1 << 28, "SC_PAGE_SIZE": 4096}.get)
    own = OWN[2] if version == 2 else "5:memory:/slurm/job/step\n4:cpu,cpuacct:/elsewhere\n"
    (machine / "own").write_text(own)
    for group, limit_in_megabytes in limits.items():
        folder = machine / "cgroup" / ("memory" if version == 1 else "") / group
        folder.mkdir(parents=True, exist_ok=True)
        if limit_in_megabytes == "max":
            # What version 1 says where nothing is limited.
            text = "max" if version == 2 else str((1 << 63) - 4096)
        else:
            text = str(int(limit_in_megabytes) << 20)
        (folder / ("memory.max" if version == 2 else "memory.limit_in_bytes")).write_text(text)
    assert usable_memory() == megabytes << 20
    assert half_of_memory() == megabytes << 19
