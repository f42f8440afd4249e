"""One process at a time writes what others read."""

import fcntl
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lens_hpc import holding
from lens_hpc.errors import UserError
from lens_hpc.holding import held

HOLD = """
import sys, time
from pathlib import Path
from lens_hpc.holding import held
with held(Path(sys.argv[1]), share=sys.argv[2]):
    print("held", flush=True)
    time.sleep(1000)
"""


class Process:
    """Another process that holds a target until it is killed."""

    def __init__(self, target: Path, share: str = "", **environment: str) -> None:
        command = [sys.executable, "-c", HOLD, str(target), share]
        own = os.environ | environment
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=own)
        assert self.process.stdout
        assert self.process.stdout.readline() == "held\n"

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_a_second_process_is_told_who_holds_it(tmp_path: Path) -> None:
    target = tmp_path / "dataset"
    with Process(target) as other:
        told = rf"dataset: is being written by process {other.process.pid} on .*, since 20"
        with pytest.raises(UserError, match=told), held(target):
            pass


def test_a_lock_survives_nothing_but_its_process(tmp_path: Path) -> None:
    target = tmp_path / "dataset"
    with Process(target):
        pass
    assert (tmp_path / ".dataset.lock").exists()  # what a killed process leaves
    with held(target, wait_minutes=0):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_forked_child_does_not_keep_it(tmp_path: Path) -> None:
    target = tmp_path / "dataset"
    with held(target):
        child = os.fork()
        if not child:
            time.sleep(1000)
    try:
        with held(target, wait_minutes=0):
            pass
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_two_threads_of_one_process_do_not_share_it(tmp_path: Path) -> None:
    run, told = tmp_path / "run", f"process {os.getpid()}"
    with held(run), pytest.raises(UserError, match=told), held(run, wait_minutes=0):
        pass


def test_tasks_of_one_packing_hold_it_together(tmp_path: Path) -> None:
    target = tmp_path / "dataset"
    with Process(target, "recipe"), held(target, share="recipe", wait_minutes=0):
        pass
    with Process(target, "recipe"):
        for share in ("another", ""):
            with pytest.raises(UserError, match="being written"), held(target, share=share):
                pass
    with Process(target), pytest.raises(UserError), held(target, share="recipe"):
        pass


def test_a_requeued_job_waits_for_its_predecessor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It would be refused at once if it were another job."""
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    target = tmp_path / "run"
    with Process(target, SLURM_JOB_ID="17") as other:
        look = holding._Lock._look
        looks: list[float] = []

        def ends_the_other_at_last(lock: holding._Lock) -> None:
            look(lock)
            looks.append(time.monotonic())
            if lock.lives:
                other.process.kill()

        monkeypatch.setattr(holding._Lock, "_look", ends_the_other_at_last)
        with held(target):
            assert looks
    assert "waiting for process" in caplog.text


@pytest.mark.slow
def test_one_that_gives_no_sign_of_life_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that has gone keeps its lock until the file server finds out."""
    target = tmp_path / "run"
    with Process(target) as other:
        other.process.send_signal(19)
        monkeypatch.setattr(platform, "node", lambda: "another")
        began = time.monotonic()
        with pytest.raises(UserError, match="being written"), held(target, wait_minutes=0.05):
            pass
        assert time.monotonic() - began > 3


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(holding, "SECONDS_OF_SILENCE", 1.0)
    monkeypatch.setattr(holding, "SECONDS_OF_DOUBT", 0.1)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_living_holder_is_seen_by_its_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "SECONDS_BETWEEN_BEATS", 0.2)
    target = tmp_path / "run"
    with held(target), pytest.raises(UserError, match="being written"), held(target):
        pass
    assert "this file system has no locks" in caplog.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_dead_holder_is_followed(tmp_path: Path) -> None:
    file = tmp_path / ".run.lock"
    record = {"host": "gone", "pid": 1, "since": "2026-01-01", "job": "", "share": ""}
    file.write_text(json.dumps(record))
    with held(tmp_path / "run"):
        pass
    assert not file.exists()


@pytest.mark.parametrize("content", [b"", b"null", b"[1]", b"\xff\xfe", b'{"host": 1}'])
def test_any_content_of_a_free_file_is_overwritten(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".run.lock").write_bytes(content)
    with held(tmp_path / "run", wait_minutes=0):
        pass


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write anywhere, so the system's refusal is made here."""
    really_open: Callable[..., int] = os.open

    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).endswith(".lock"):
            raise PermissionError(13, "Permission denied", str(path))
        return really_open(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    told = r"\.run\.lock: cannot be written: Permission denied"
    with pytest.raises(UserError, match=told), held(tmp_path / "run"):
        pass


# ---- what may go wrong while it is taken ----


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"garbled"])
def test_a_holder_without_a_record_is_not_waited_for_without_a_limit(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / ".run.lock"
    file.write_bytes(content)
    with file.open() as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        told = r"run: is being written by another process \(its lock: .*\.run\.lock\)"
        with pytest.raises(UserError, match=told), held(tmp_path / "run", wait_minutes=0.01):
            pass


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
def test_a_failed_start_does_not_keep_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises((UserError, KeyboardInterrupt)), held(tmp_path / "run"):
        pass
    monkeypatch.undo()
    with held(tmp_path / "run", wait_minutes=0):
        pass


@pytest.mark.slow
def test_where_locks_are_for_one_node_alone_another_node_is_seen_by_its_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Process(tmp_path / "run"):
        monkeypatch.setattr(fcntl, "flock", lambda *_: None)
        monkeypatch.setattr(platform, "node", lambda: "another")
        with pytest.raises(UserError, match="being written"), held(tmp_path / "run"):
            pass


def test_a_file_that_nfs_has_lost_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_lock = fcntl.flock
    failures = [OSError(116, "Stale file handle"), FileNotFoundError(2, "No such file")]

    def lock(descriptor: int, kind: int) -> None:
        if failures:
            raise failures.pop()
        really_lock(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", lock)
    with held(tmp_path / "run", wait_minutes=0.1):
        assert not failures


def test_where_no_such_file_can_be_made_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does /proc refuse any name."""
    really_open: Callable[..., int] = os.open

    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).endswith(".lock"):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return really_open(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    told = r"\.run\.lock: cannot be made: No such file"
    with pytest.raises(UserError, match=told), held(tmp_path / "run", wait_minutes=0.05):
        pass


def test_a_folder_that_goes_meanwhile_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that could not be begun takes its empty folder away just when the next one comes."""
    folder = tmp_path / "run"
    really_open: Callable[..., int] = os.open
    removals = [1, 2]

    def open_too_late(path: Any, *arguments: Any, **options: Any) -> int:
        if removals and str(path).endswith(".lock"):
            removals.pop()
            folder.rmdir()
        return really_open(path, *arguments, **options)

    monkeypatch.setattr(os, "open", open_too_late)
    with held(folder, folder / ".lock", wait_minutes=0.1):
        assert not removals
        assert folder.is_dir()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_the_first_task_to_end_leaves_the_file_to_the_others(tmp_path: Path) -> None:
    with held(tmp_path / "d", share="recipe"):
        with held(tmp_path / "d", share="recipe"):
            pass
        assert (tmp_path / ".d.lock").exists()


def test_the_working_folder_is_held_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "grading" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "grading")
    with held(Path()):
        assert (tmp_path / ".grading.lock").is_file()
    monkeypatch.chdir("below")
    with held(Path("..")):
        assert (tmp_path / ".grading.lock").is_file()
    with pytest.raises(UserError, match="/: is a mount point"), held(Path("/")):
        pass
