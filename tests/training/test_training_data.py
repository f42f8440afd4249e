import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lens_hpc import config
from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.errors import UserError
from lens_hpc.training.accelerator import accelerator_session
from lens_hpc.training.training_data import (
    check_labels,
    check_splits,
    open_splits,
    stage_shards,
    verify_shards,
    warn_of_leaks,
)
from tests.conftest import call


def open_all(dataset: Path, **settings: Any) -> Any:
    data = config.Data(dataset=dataset, **settings)
    training = config.Train(run=Path("r"), data=data, train=config.Loop(global_batch_size=8))
    with accelerator_session() as accelerator:
        return open_splits(training, read_manifest(dataset), accelerator)


def test_both_splits_are_opened(dataset: Path) -> None:
    splits = open_all(dataset)
    assert (splits.train.name, splits.validation.name) == ("train", "val")
    assert len(splits.train) == 28


@pytest.mark.parametrize("counts", [{"lenses": 0}, {"non_lenses": 0}, {"unlabelled": 2}])
def test_a_split_without_both_classes_and_all_labels_is_refused(
    dataset: Path, counts: dict[str, int]
) -> None:
    manifest = read_manifest(dataset)
    check_labels(dataset, manifest, "val")
    record = manifest.splits["val"].model_copy(update=counts)
    changed = manifest.model_copy(update={"splits": manifest.splits | {"val": record}})
    with pytest.raises(UserError, match=r"the split val has .* both classes are needed"):
        check_labels(dataset, changed, "val")
    with pytest.raises(UserError, match="has no split 'tset'; it has: train, val, test"):
        check_labels(dataset, manifest, "tset")


def test_a_split_that_cannot_choose_the_best_weights_is_refused(dataset: Path) -> None:
    """Before a shard is copied or read."""
    check_splits(dataset, read_manifest(dataset), "loss")
    with pytest.raises(UserError, match=r"train\.best = tpr10: needs 10 non-lenses .* has 3 there"):
        check_splits(dataset, read_manifest(dataset), "tpr10")


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-50] ^= 1
    file.write_bytes(data)


def test_every_byte_is_read_only_if_asked_for(dataset: Path) -> None:
    files = [dataset / split / "shard-00000.h5" for split in ("train", "val")]
    for file in files:
        flip_a_bit(file)
    open_all(dataset)
    with pytest.raises(UserError, match="2 shards are damaged") as error:
        open_all(dataset, verify="full")
    assert all(str(file) in str(error.value) for file in files)


@contextmanager
def without_others(_: Any, __: str) -> Iterator[Callable[[str], None]]:
    """Stand in for `waited_for` where there is no second process."""
    yield print


def test_each_process_verifies_its_share(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(
        "lens_hpc.training.training_data.find_damage",
        lambda folder, shard: read.append(shard.file) or "",
    )
    monkeypatch.setattr("lens_hpc.training.training_data.gather_object", lambda found: found)
    monkeypatch.setattr("lens_hpc.training.training_data.waited_for", without_others)
    splits = read_manifest(dataset).splits
    shards = [shard for record in splits.values() for shard in record.shards]
    for rank in (0, 1):
        two: Any = SimpleNamespace(process_index=rank, num_processes=2)
        verify_shards(dataset, shards, two)
    assert read == [shard.file for shard in [*shards[0::2], *shards[1::2]]]


def test_staged_shards_are_read_from_their_copies(dataset: Path, tmp_path: Path) -> None:
    splits = open_all(dataset, stage_to=str(tmp_path / "near"))
    for split in splits:
        assert all(file.is_relative_to(tmp_path / "near") for file in split.files)


def test_a_node_stages_about_its_share_of_the_training(
    many_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes of one process each; there is no split for validation here."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setattr("lens_hpc.training.training_data.SPLITS", ("train",))
    monkeypatch.setattr("lens_hpc.training.training_data.waited_for", without_others)
    manifest = read_manifest(many_shards)
    staged = []
    for rank in (0, 1):
        node: Any = SimpleNamespace(
            process_index=rank,
            local_process_index=0,
            num_processes=2,
            is_local_main_process=True,
        )
        folder = tmp_path / str(rank)
        staged.append(set(stage_shards(many_shards, manifest, folder, 1024, node)))
    first, second = staged
    assert len(first | second) == 20
    assert 10 <= len(first) < 14
    assert 10 <= len(second) < 14


def test_an_audit_is_missed_and_a_leak_is_told(
    dataset: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_leaks(dataset)
    assert "was never audited" in caplog.text
    caplog.clear()

    call("audit", dataset)
    file = dataset / "audit.json"
    file.write_text(file.read_text().replace('"verdict": "fine"', '"verdict": "leak"'))
    with caplog.at_level(logging.WARNING):
        warn_of_leaks(dataset)
    assert f"the audit of {dataset} found a leak" in caplog.text
