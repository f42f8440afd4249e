import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lens_hpc import workers
from lens_hpc.workers import make_pool, signals_blocked, usable_cpus
from tests.conftest import pack_survey, write_survey
from tests.kills import files_of

ENDED = """
import os, time
from lens_hpc.workers import make_pool

pool = make_pool(1, "fork")
print(pool.submit(os.getpid).result(), flush=True)
time.sleep(60)
"""

_given = 0


def keep(number: int) -> None:
    global _given
    _given = number


def given() -> int:
    return _given


def signals_ignored() -> bool:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    return all(signal.getsignal(number) == signal.SIG_IGN for number in numbers)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_are_initialised_and_ignore_what_asks_to_stop(method: str) -> None:
    with make_pool(1, method, keep, 7) as pool:
        assert pool.submit(given).result() == 7
        assert pool.submit(signals_ignored).result()
    assert not signals_ignored()
    assert given() == 0


NOHUP = """
import signal
from lens_hpc.workers import make_pool, signals_blocked

with signals_blocked(), make_pool(1, "fork") as pool:
    assert pool.submit(signal.getsignal, signal.SIGHUP).result() == signal.SIG_IGN
signal.raise_signal(signal.SIGHUP)
print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)
"""


def test_what_nohup_has_started_ignores_that_its_terminal_is_closed() -> None:
    started = ["nohup", sys.executable, "-c", NOHUP]
    done = subprocess.run(started, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_packing_whose_terminal_is_closed_leaves_nothing_half_and_goes_on(
    number: signal.Signals, tmp_path: Path
) -> None:
    survey = write_survey(tmp_path / "s", rows=3000, size=16)
    options = "shard_mib=1", "processes=2"
    expected = files_of(pack_survey(survey, tmp_path / "expected", *options))

    output = tmp_path / "d"
    words = ["pack", f"{survey}/recipe.yaml", f"source={survey}", f"output={output}", *options]
    line = [sys.executable, "-m", "lens_hpc", *words]
    with subprocess.Popen(line, start_new_session=True, stderr=subprocess.DEVNULL) as packing:
        # All processes of a terminal are told, when it is closed.
        while not (group := members_of(packing.pid)) - {packing.pid}:
            time.sleep(0.01)
        os.killpg(packing.pid, number)
    assert packing.returncode == -number
    end = time.monotonic() + 10
    while any(map(is_running, group)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(is_running, group))
    assert not output.exists()

    subprocess.run(line, check=True, capture_output=True)
    assert files_of(output) == expected


def members_of(group: int) -> set[int]:
    """The processes of a process group."""
    told = subprocess.run(["pgrep", "-g", str(group)], capture_output=True, text=True, check=False)
    return {int(number) for number in told.stdout.split()}


def test_workers_end_when_their_parent_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENDED], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert is_running(worker)
        parent.kill()
    end = time.monotonic() + 10
    while is_running(worker) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_running(worker)


def test_signals_arrive_when_they_are_no_longer_blocked() -> None:
    arrived: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: arrived.append(number))
    try:
        with signals_blocked():
            # To this thread: other threads of a test run do not block it.
            signal.raise_signal(signal.SIGUSR1)
            time.sleep(0.05)
            assert not arrived
        assert arrived == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_cores_are_those_of_this_process() -> None:
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """64 cores, and control groups that limit nothing; `own` is what a process reads of them."""
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(workers, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(workers, "OWN_CGROUPS", tmp_path / "own")
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
