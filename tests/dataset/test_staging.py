import errno
import fcntl
import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from lens_hpc.dataset import staging
from lens_hpc.dataset.manifest import ShardRecord
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError


def parts(dataset: Path) -> tuple[Split, list[ShardRecord]]:
    split = Split(dataset, "train")
    return split, list(split.record.shards)


def test_copies_are_read_instead_of_the_originals(many_shards: Path, tmp_path: Path) -> None:
    split, records = parts(many_shards)
    folder = staging.staging_folder(split.manifest, tmp_path / "near")
    staging.copy_shards(many_shards, records[:5], folder, print)
    near = Split(many_shards, "train", staging.staged_copies(records, folder))
    assert [file.is_relative_to(folder) for file in near.files] == [True] * 5 + [False] * (
        len(records) - 5
    )
    rows = np.arange(len(split))
    np.testing.assert_array_equal(near.take("images", rows), split.take("images", rows))


@pytest.mark.parametrize(
    "name", ["DES/Y3", "", ".", "..", "../../escape", "/tmp/escape", "a\0b", "a\nb", "星" * 300]
)
def test_any_name_of_a_dataset_gives_a_folder_within(
    dataset: Path, tmp_path: Path, name: str
) -> None:
    manifest = Split(dataset, "train").manifest
    folder = staging.staging_folder(manifest.model_copy(update={"name": name}), tmp_path)
    assert folder.parent == tmp_path
    assert not folder.name.startswith(".")
    folder.mkdir()
    assert staging.staging_folder(manifest, tmp_path).name.startswith(f"{manifest.name}-")


def test_staging_goes_on_from_a_half_copied_state(many_shards: Path, tmp_path: Path) -> None:
    _, records = parts(many_shards)
    folder = tmp_path / "near"
    staging.copy_shards(many_shards, records[:2], folder, print)
    (folder / (records[2].file + ".partial-node7-4711")).write_bytes(b"half")
    times = {file: file.stat().st_mtime_ns for file in folder.rglob("*.h5")}
    staging.copy_shards(many_shards, records, folder, print)
    assert {file: file.stat().st_mtime_ns for file in times} == times
    assert len(staging.staged_copies(records, folder)) == len(records)
    assert not list(folder.rglob("*.partial*"))


def test_it_is_told_how_far_staging_is(many_shards: Path, tmp_path: Path) -> None:
    _, records = parts(many_shards)
    told: list[str] = []
    staging.copy_shards(many_shards, records, tmp_path / "near", told.append)
    assert [text.split(" shards")[0] for text in told] == [
        f"{number} of {len(records)}" for number in range(1, len(records) + 1)
    ]
    assert told[-1].endswith(f" of {sum(record.bytes for record in records) / 1e9:.1f} GB")


def test_it_is_told_that_another_job_stages_the_same(many_shards: Path, tmp_path: Path) -> None:
    _, records = parts(many_shards)
    folder = tmp_path / "near"
    folder.mkdir()
    told: list[str] = []
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        other = threading.Timer(0.5, fcntl.flock, (lock, fcntl.LOCK_UN))
        other.start()
        staging.copy_shards(many_shards, records[:1], folder, told.append)
        other.join()
    assert told[0] == "another job on this node copies the same shards"


def test_after_a_failure_no_other_copy_is_begun(
    many_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, records = parts(many_shards)
    begun: list[str] = []

    def fail(_: Path, record: ShardRecord, __: Path) -> None:
        begun.append(record.file)
        time.sleep(0.1)
        raise OSError(errno.EIO, "bad disk")

    monkeypatch.setattr(staging, "_copy", fail)
    with pytest.raises(OSError, match="bad disk"):
        staging.copy_shards(many_shards, records, tmp_path / "near", print)
    assert len(begun) <= 2 * staging.COPIES_AT_ONCE < len(records)


def test_a_damaged_shard_is_not_staged(many_shards: Path, tmp_path: Path) -> None:
    _, records = parts(many_shards)
    dataset = tmp_path / "d"
    shutil.copytree(many_shards, dataset)
    file = dataset / records[3].file
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(
        UserError, match=r"shard-00003\.h5: is damaged: its checksum is not the manifest's"
    ):
        staging.copy_shards(dataset, records, tmp_path / "near", print)
    assert records[3].file not in staging.staged_copies(records, tmp_path / "near")


class Usage(NamedTuple):
    free: int


def test_what_does_not_fit_stays_where_it_is(
    many_shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, records = parts(many_shards)
    room = staging.KEPT_FREE_BYTES + records[0].bytes + records[1].bytes + 5
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(room))
    staging.copy_shards(many_shards, records, tmp_path / "near", print)
    assert list(staging.staged_copies(records, tmp_path / "near")) == [
        records[0].file,
        records[1].file,
    ]
    assert (
        f"has room for 2 of {len(records)} shards; the others are read from {many_shards}"
        in caplog.text
    )


def test_a_node_needs_the_shards_of_its_part(many_shards: Path) -> None:
    split, records = parts(many_shards)
    assert staging.shards_needed(split.manifest, "train", -0.1, 1.1) == records
    half = staging.shards_needed(split.manifest, "train", 0.5, 1.0)
    assert half == records[-len(half) :]
    assert abs(sum(record.rows for record in half) - len(split) / 2) <= records[0].rows


def test_a_folder_is_told_by_a_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEAR", str(tmp_path))
    assert staging.expand_folder("$NEAR/shards") == tmp_path / "shards"
    monkeypatch.delenv("NEAR")
    with pytest.raises(UserError, match=r"\$NEAR: the variable is not set"):
        staging.expand_folder("$NEAR")


@pytest.mark.parametrize(
    "code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM]
)
def test_staging_goes_on_without_locks_and_says_what_is_not_promised(
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
) -> None:
    def refuse(_: int, __: int) -> None:
        raise OSError(code, os.strerror(code))

    _, records = parts(dataset)
    near = tmp_path / "near"
    of_another = near / (records[0].file + ".partial-node7-4711")
    of_another.parent.mkdir(parents=True)
    of_another.write_bytes(b"half")
    monkeypatch.setattr(fcntl, "flock", refuse)
    staging.copy_shards(dataset, records, near, print)
    assert f"the file system of {near} has no locks ({os.strerror(code)})" in caplog.text
    assert len(staging.staged_copies(records, near)) == len(records)
    # It may be another job's, which is at work.
    assert of_another.exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_by_its_folder(
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
) -> None:
    def fill(_: Path, target: Path) -> str:
        target.write_bytes(b"half")
        raise OSError(code, os.strerror(code))

    _, records = parts(dataset)
    monkeypatch.setattr(staging, "_copy_bytes", fill)
    near = tmp_path / "near"
    staging.copy_shards(dataset, records, near, print)
    assert f"{near} is full; {dataset / records[0].file} is read from where it is" in caplog.text
    assert not staging.staged_copies(records, near)
    assert not list(near.rglob("*.partial*"))


def test_a_shard_that_cannot_be_read_is_named(dataset: Path, tmp_path: Path) -> None:
    _, records = parts(dataset)
    file = dataset / records[0].file
    file.unlink()
    with pytest.raises(UserError, match=rf"{file}: cannot be read: No such file"):
        staging.copy_shards(dataset, records, tmp_path / "near", print)
    assert not list((tmp_path / "near").rglob("*.h5*"))


def test_a_disk_that_fails_is_named(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path, __: Path) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    _, records = parts(dataset)
    monkeypatch.setattr(staging, "_copy_bytes", fail)
    with pytest.raises(UserError, match=r"near/train/shard-00000\.h5: cannot be written: Input"):
        staging.copy_shards(dataset, records, tmp_path / "near", print)


def test_nothing_is_staged_outside_of_its_folder(dataset: Path) -> None:
    tree = json.loads((dataset / "manifest.json").read_text())
    tree["splits"]["train"]["shards"][0]["file"] = "../../.bashrc"
    (dataset / "manifest.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match=r"manifest\.json: is damaged"):
        Split(dataset, "train")
