import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import lens_hpc
from lens_hpc import cli, launching, verbs
from lens_hpc.errors import UserError
from lens_hpc.resources import usable_cpus
from lens_hpc.training import devices
from lens_hpc.workers import STOP_SIGNALS

# What a launched process does in these tests: it shows what it was given, and then as it is told.
RANK = """
import os, signal, sys, time
from pathlib import Path
from lens_hpc import launching

def stop(number, _):
    (folder / f"stopped-{rank}").write_text(str(number))
    sys.exit(85)

launching.end_with_launcher()
rank, folder = int(os.environ["RANK"]), Path(sys.argv[1])
end = sys.argv[2 + rank]
names = "WORLD_SIZE", "LOCAL_RANK", "OMP_NUM_THREADS", "ACCELERATE_USE_CPU"
given = [os.environ.get(name) for name in names]
if end == "wait":
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, stop)
(folder / f"aside-{rank}").write_text(f"{os.getpid()} {given} {os.getcwd() in sys.path}")
(folder / f"aside-{rank}").rename(folder / f"began-{rank}")
if end in {"wait", "import"}:  # while a process imports, a signal ends it
    time.sleep(600)
if int(end) < 0:
    os.kill(os.getpid(), -int(end))
sys.exit(int(end))
"""
LAUNCHER = """
import sys
from lens_hpc import launching

launching.PROGRAM = "a_rank"
sys.exit(launching.launch(sys.argv[1:], 2))
"""
TOO_LONG_SECONDS = 120


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """For the processes; their program is the one above."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "a_rank.py").write_text(RANK)
    root = Path(lens_hpc.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'path'}:{root}")
    monkeypatch.setattr(launching, "PROGRAM", "a_rank")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    return tmp_path


def wait_for_both(folder: Path) -> list[str]:
    """What both processes were given, once they work."""
    files = [folder / f"began-{rank}" for rank in range(2)]
    until = time.monotonic() + TOO_LONG_SECONDS
    while not all(file.exists() for file in files):
        assert time.monotonic() < until
        time.sleep(0.02)
    return [file.read_text() for file in files]


# ---- the word ----


def test_the_word_is_taken_out_of_the_settings() -> None:
    assert launching.split_processes("train", ["run=r", "processes=3"]) == (3, ["run=r"])
    assert launching.split_processes("predict", ["processes=2", "processes=1"]) == (1, [])
    assert launching.split_processes("evaluate", ["split=val"]) == (1, ["split=val"])


@pytest.mark.parametrize("verb", sorted({"pack", "inject", "completeness", "verify", "simulate"}))
def test_where_it_means_workers_it_stays_a_setting(verb: str) -> None:
    assert launching.split_processes(verb, ["processes=3"]) == (1, ["processes=3"])


def test_no_verb_has_it_in_both_meanings() -> None:
    launched = {name for name in verbs.names() if verbs.header(name).processes}
    with_setting = {
        name for name in verbs.names() if "processes" in verbs.module(name).Settings.model_fields
    }
    assert launched == {"train", "evaluate", "predict", "bench"}
    assert not launched & with_setting


@pytest.mark.parametrize("number", ["0", "-1", "two", "1.5", ""])
def test_what_is_no_number_of_processes_is_refused(
    number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "config.yaml", f"processes={number}"]) == 2
    told = f"lens-hpc: train: processes = {number}: must be a whole number of at least 1\n"
    assert capsys.readouterr().err == told


def test_a_process_that_a_launcher_started_starts_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "0")
    assert launching.split_processes("train", ["processes=1"]) == (1, [])
    with pytest.raises(UserError, match="processes = 2: a launcher has started this one"):
        launching.split_processes("train", ["processes=2"])


def test_a_mistake_in_the_settings_is_told_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: {dataset: d}\nrun: r\n")
    code = (
        "import sys; from lens_hpc import cli;"
        "status = cli.main(['train', 'config.yaml', 'train.epoch=2', 'processes=2']);"
        "print(status, {'torch', 'accelerate', 'numpy'} & set(sys.modules))"
    )
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "2 set()\n"
    assert done.stderr.count("did you mean train.epochs?") == 1


def test_help_tells_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--help"]) == 0
    assert "processes = 1\n" in capsys.readouterr().out


def test_python_is_told_that_it_has_started_one_already() -> None:
    with pytest.raises(UserError, match=r"lens_hpc\.train: processes is for the command line"):
        lens_hpc.train("config.yaml", processes=2)


# ---- devices ----


def test_each_process_needs_a_gpu_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_gpu", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    launching._choose_devices(2)
    assert "ACCELERATE_USE_CPU" not in os.environ
    with pytest.raises(UserError, match=r"processes = 3: each .* PyTorch sees 2 here; .*=2, or"):
        launching._choose_devices(3)


def test_more_processes_than_the_cores_can_bear_are_not_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "has_gpu", lambda: False)
    monkeypatch.setattr(devices, "has_device_files", lambda: False)
    monkeypatch.setattr(launching, "usable_cpus", lambda: 2)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")  # it is set, and undone behind the test

    launching._choose_devices(8)

    told = "processes = 1000: too many for the cores here, .* 2 can be used; .* processes=8"
    with pytest.raises(UserError, match=told):
        launching._choose_devices(1000)


def test_a_gpu_that_pytorch_cannot_use_is_not_passed_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process says why, and names the way to the CPU."""
    monkeypatch.setattr(devices, "DEVICE_FILES", folder)
    (folder / "nvidia0").touch()
    launching._choose_devices(2)
    assert "ACCELERATE_USE_CPU" not in os.environ


# ---- the launch ----


@pytest.mark.parametrize(
    ("ends", "status"),
    [(("0", "0"), 0), (("85", "85"), 85), (("wait", "2"), 2), (("3", "wait"), 3)],
)
def test_it_ends_as_its_processes_do_and_says_nothing(
    folder: Path, ends: tuple[str, str], status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert launching.launch([str(folder), *ends], 2) == status
    assert capfd.readouterr() == ("", "")


def test_a_process_that_was_killed_is_named(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert launching.launch([str(folder), "wait", f"-{signal.SIGKILL:d}"], 2) == 137
    told = "lens-hpc: rank 1 was ended by SIGKILL, as the system does where memory runs out\n"
    assert capfd.readouterr() == ("", told)


def test_the_processes_share_the_cores_and_nothing_else_is_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they work is no place to import from, as for the command itself."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in {"", str(folder)}])
    before = dict(os.environ), [signal.getsignal(number) for number in STOP_SIGNALS]
    assert launching.launch([str(folder), "0", "0"], 2) == 0

    after = dict(os.environ), [signal.getsignal(number) for number in STOP_SIGNALS]
    assert after == before
    assert logging.root.manager.disable == logging.NOTSET
    threads = str(max(1, usable_cpus() // 2))
    for rank, told in enumerate(wait_for_both(folder)):
        given = ["2", str(rank), threads, "true"]
        assert told.partition(" ")[2] == f"{given} False"


def status_after(number: signal.Signals, folder: Path, *ends: str) -> int:
    """Of a launch that is sent a signal when both processes work."""

    def send() -> None:
        wait_for_both(folder)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    status = launching.launch([str(folder), *ends], 2)
    sender.join()
    return status


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_reaches_all_processes_once(
    folder: Path, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    assert status_after(number, folder, "wait", "wait") == 85
    stopped = [(folder / f"stopped-{rank}").read_text() for rank in range(2)]
    assert stopped == [str(int(number))] * 2
    assert capfd.readouterr() == ("", "")


def test_who_ends_it_by_a_signal_is_not_told_of_it(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert status_after(signal.SIGTERM, folder, "import", "import") == 128 + signal.SIGTERM
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_processes_end_when_what_started_them_is_killed(folder: Path) -> None:
    words = [sys.executable, "-c", LAUNCHER, str(folder), "wait", "wait"]
    with subprocess.Popen(words) as launcher:
        ranks = [int(told.partition(" ")[0]) for told in wait_for_both(folder)]
        launcher.kill()
    until = time.monotonic() + TOO_LONG_SECONDS
    while any(Path(f"/proc/{rank}").exists() for rank in ranks):
        assert time.monotonic() < until
        time.sleep(0.05)
