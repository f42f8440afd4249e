import errno
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lens_hpc.dataset import shards
from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.packing import writing
from lens_hpc.packing.plan import make_plan
from lens_hpc.packing.recipe import PackSettings
from lens_hpc.settings import load
from tests.conftest import call, pack_survey, write_survey
from tests.kills import files_of, kill_and_restart_pack

LARGE = ("shard_mib=1", "splits={train: 0.8, test: 0.2}")
ONE_SHARD = ("shard_mib=1", "splits={train: 1.0}")


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A survey of 900 rows, whose training split makes several shards of 1 MiB."""
    return write_survey(tmp_path / "large", rows=900, size=16)


def test_pixels_are_stored_as_asked(tmp_path: Path, survey: Path) -> None:
    dataset = pack_survey(survey, tmp_path / "d", "dtype=float16")
    assert Split(dataset, "train").take("images", np.array([0])).dtype == np.float16


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["lzf", "gzip"])
def test_compressed_shards_are_read_alike(
    tmp_path: Path, survey: Path, dataset: Path, compression: str
) -> None:
    squeezed = Split(pack_survey(survey, tmp_path / "z", f"compression={compression}"), "train")
    rows = np.array([7, 0, 3, 3])
    plain = Split(dataset, "train")
    for column in ("images", "features", "labels", "ids"):
        np.testing.assert_array_equal(squeezed.take(column, rows), plain.take(column, rows))
    call("verify", tmp_path / "z")


@pytest.mark.slow
def test_tasks_share_the_shards_and_the_last_one_finishes(tmp_path: Path, large: Path) -> None:
    alone = files_of(pack_survey(large, tmp_path / "alone", *LARGE, "processes=1"))
    together = files_of(pack_survey(large, tmp_path / "together", *LARGE, "processes=3"))
    assert len([name for name in alone if name.startswith("train/")]) > 1
    assert together == alone
    for task in (1, 2, 0):
        assert not (tmp_path / "tasks").exists()
        pack_survey(large, tmp_path / "tasks", *LARGE, f"task={task}", "tasks=3")
    assert files_of(tmp_path / "tasks") == alone


@pytest.mark.slow
def test_tasks_at_the_same_time_make_one_dataset(tmp_path: Path, large: Path) -> None:
    alone = files_of(pack_survey(large, tmp_path / "alone", *LARGE))
    for attempt in range(3):
        output = tmp_path / f"together{attempt}"
        command = [
            sys.executable,
            "-m",
            "lens_hpc",
            "pack",
            str(large / "recipe.yaml"),
            f"source={large}",
        ]
        command += [f"output={output}", *LARGE, "tasks=4", "processes=1"]
        tasks = [
            subprocess.Popen(
                [*command, f"task={task}"],
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
            )
            for task in range(4)
        ]
        for task in tasks:
            assert task.communicate()[1].count("Traceback") == 0
            assert task.returncode == 0
        assert files_of(output) == alone


def test_shards_of_the_same_recipe_and_source_are_kept(
    tmp_path: Path, large: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = files_of(pack_survey(large, tmp_path / "whole", *LARGE))
    pack_survey(large, tmp_path / "d", *LARGE, "task=0", "tasks=2")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "d.partial").rglob("*.h5")}
    assert kept
    pack_survey(large, tmp_path / "d", *LARGE)
    assert files_of(tmp_path / "d") == whole
    for path, when in kept.items():
        assert (
            tmp_path / "d" / path.relative_to(tmp_path / "d.partial")
        ).stat().st_mtime_ns == when
    assert f"{len(kept)} shards are there already" in caplog.text


@pytest.mark.slow
def test_shards_of_another_recipe_or_a_changed_source_are_made_anew(
    tmp_path: Path, large: Path
) -> None:
    pack_survey(large, tmp_path / "d", *LARGE, "seed=7", "task=0", "tasks=2")
    np.save(
        large / "obj5.npy", np.random.default_rng(9).normal(size=(2, 16, 16)).astype(np.float32)
    )
    pack_survey(large, tmp_path / "d", *LARGE)
    assert files_of(tmp_path / "d") == files_of(pack_survey(large, tmp_path / "e", *LARGE))


@pytest.mark.slow
def test_killed_at_any_instant_it_ends_with_the_same_bytes(tmp_path: Path, large: Path) -> None:
    assert kill_and_restart_pack(large, tmp_path / "d", LARGE, kills=10, seed=0) >= 1


def test_a_shard_without_a_good_row_is_left_out(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=600, size=23)  # 256 rows a shard of 1 MiB
    order = make_plan(
        load(PackSettings, survey / "recipe.yaml", [f"source={survey}", "output=d", *ONE_SHARD])
    )
    for row in order.shards[1].rows:
        (survey / f"obj{row}.npy").write_bytes(b"junk")
    dataset = pack_survey(survey, tmp_path / "d", *ONE_SHARD, "on_bad=skip")
    split = Split(dataset, "train")
    assert [shard.rows for shard in split.record.shards] == [256, 88]
    assert read_manifest(dataset).rejected == 256
    assert len(split.ids()) == 344
    call("verify", dataset)
    assert sorted(path.name for path in (dataset / "train").iterdir()) == [
        "shard-00000.h5",
        "shard-00002.h5",
    ]


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=6000, size=16)
    command = [
        sys.executable,
        "-m",
        "lens_hpc",
        "pack",
        str(survey / "recipe.yaml"),
        f"source={survey}",
    ]
    command += [f"output={tmp_path / 'd'}", "shard_mib=1", "processes=3"]
    parent = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 30
    while len(members := group_of(parent.pid)) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(members) >= 4, "the workers never came"
    parent.kill()
    parent.wait()
    time.sleep(2)
    assert group_of(parent.pid) == []
    pack_survey(survey, tmp_path / "d", "shard_mib=1")
    call("verify", tmp_path / "d")


def group_of(group: int) -> list[int]:
    """Live processes of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it ended meanwhile
            continue
        found += [int(stat.parent.name)] * (int(of_group) == group and state != "Z")
    return found


def test_a_full_disk_keeps_what_is_complete(
    tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = shards.write_shard, []

    def fails_at_the_third(*arguments: object) -> tuple[str, ...]:
        calls.append(1)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(shards, "write_shard", fails_at_the_third)
    with pytest.raises(
        UserError,
        match=r"No space left on device .*; shards that are complete are kept, and all need",
    ):
        pack_survey(large, tmp_path / "d", *LARGE, "processes=1")
    assert not (tmp_path / "d").exists()
    assert len(list((tmp_path / "d.partial" / ".notes").iterdir())) == 2
    monkeypatch.undo()
    pack_survey(large, tmp_path / "d", *LARGE)
    assert files_of(tmp_path / "d") == files_of(pack_survey(large, tmp_path / "e", *LARGE))


@pytest.mark.slow
def test_one_process_packs_one_survey_after_the_other(tmp_path: Path, large: Path) -> None:
    other = write_survey(tmp_path / "other", rows=600, size=20)
    for survey in (large, other, large):
        output = tmp_path / "d"
        dataset = pack_survey(survey, output, *LARGE, "processes=2")
        rows = sum(split.rows for split in read_manifest(dataset).splits.values())
        assert rows == len(list(survey.glob("*.npy")))
        assert writing._work is None
        output.rename(output.with_name(f"d{time.monotonic_ns()}"))


def test_a_task_whose_folder_another_one_took_away_says_so(
    tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That other task found bad rows."""

    def take_away(plan: object, *_: object) -> None:
        shutil.rmtree(plan.folder)  # type: ignore[attr-defined]
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(writing, "_write_all", take_away)
    with pytest.raises(UserError, match=r"d\.partial: is gone: another task has found bad rows"):
        pack_survey(large, tmp_path / "d", *LARGE)
