import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_hpc import UserError
from lens_hpc.config import Augment
from lens_hpc.data import loader as loader_module
from lens_hpc.data.augment import Augmentation
from lens_hpc.data.loader import Loader, Samples
from lens_hpc.data.order import Order, Share
from lens_hpc.data.reader import Split
from tests.conftest import pack_survey, write_survey

CPU = torch.device("cpu")


def normalised(images: np.ndarray, maximum: float | None) -> np.ndarray:
    tensor = torch.from_numpy(images.copy())
    loader_module.normalise_images(tensor, maximum)
    return tensor.numpy()


def test_images_are_divided_by_the_cutouts_or_the_splits_maximum() -> None:
    images = np.array([[[[1, 2], [3, 4]]], [[[0, -1], [8, 2]]]], dtype=np.float32)
    own = normalised(images, None)
    assert own.max(axis=(1, 2, 3)).tolist() == [1, 1]
    assert own[1, 0, 0, 1] == -0.125
    np.testing.assert_array_equal(normalised(images, 16.0), images / 16)


def test_a_cutout_without_light_is_left_alone() -> None:
    dark = np.full((1, 1, 2, 2), -1, dtype=np.float32)
    np.testing.assert_array_equal(normalised(dark, None), dark)


def test_features_are_scaled_and_filled_with_trainings_statistics(dataset: Path) -> None:
    manifest = Split(dataset, "train").manifest
    statistics = manifest.statistics
    assert statistics is not None
    raw = np.array([statistics.feature_min, statistics.feature_max, [np.nan, np.nan]], dtype=np.float32)
    scaled = loader_module.normalise_features(raw, manifest)
    np.testing.assert_allclose(scaled[:2], [[0, 0], [1, 1]])
    low, high, median = (
        np.array(values) for values in (statistics.feature_min, statistics.feature_max, statistics.feature_median)
    )
    np.testing.assert_allclose(scaled[2], (median - low) / (high - low), rtol=1e-5)


def test_statistics_are_those_of_the_training_split(dataset: Path) -> None:
    split = Split(dataset, "train")
    features = split.take("features", np.arange(len(split)))
    statistics = split.manifest.statistics
    assert statistics is not None
    np.testing.assert_allclose(statistics.feature_median, np.nanmedian(features, axis=0))
    np.testing.assert_allclose(statistics.feature_max, np.nanmax(features, axis=0))
    assert statistics.image_max == split.take("images", np.arange(len(split))).max()


def shares_of(*batches: list[int]) -> list[Share]:
    return [Share(np.array(rows), np.ones(len(rows), np.float32), np.empty(0, np.int64)) for rows in batches]


def collect(loader: Loader, epoch: int, shares: Iterable[Share]) -> list[tuple[np.ndarray, ...]]:
    """Copies of all batches: a batch is only valid until the next."""
    return [(*(tensor.numpy().copy() for tensor in batch[:4]), batch.draws) for batch in loader(epoch, shares)]


@pytest.mark.parametrize(
    ("engine", "compression"),
    [
        ("torch", "none"),
        pytest.param("albumentations", "none", marks=pytest.mark.slow),  # processes take seconds to start
        pytest.param("torch", "lzf", marks=pytest.mark.slow),
    ],
)
def test_workers_change_nothing(tmp_path: Path, survey: Path, engine: str, compression: str) -> None:
    split = Split(pack_survey(survey, tmp_path / "d", f"compression={compression}"), "train")
    samples = Samples(split, split.manifest, "cutout", Augmentation(Augment(engine=engine), 0))
    order = Order(len(split), 6, 1, keep_last=True)
    reference = None
    for workers in (0, 2) if samples.need_processes else (0, 1, 2, 4):
        loader = Loader(samples, 6, workers, CPU)
        batches = [batch for epoch in (0, 1) for batch in collect(loader, epoch, order.shares(epoch, 0, 1))]
        loader.close()
        reference = reference or batches
        assert len(batches) == 2 * order.steps
        for batch, expected in zip(batches, reference, strict=True):
            for ours, theirs in zip(batch, expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(2, 300), share=st.integers(1, 6), parts=st.integers(1, 3), world_size=st.integers(1, 16),
    workers=st.integers(0, 4), blocks=st.booleans(), keep_last=st.booleans(), data=st.data(),
)  # fmt: skip
def test_any_processes_workers_and_resume_point_read_the_same_epoch(
    many_shards: Path, rows: int, share: int, parts: int, world_size: int, workers: int, blocks: bool, keep_last: bool,
    data: st.DataObject,
) -> None:  # fmt: skip
    split = Split(many_shards, "train")
    order = Order(rows, share * parts * world_size, 7, blocks, keep_last)
    if rows < order.global_batch_size and not keep_last:
        return
    first, epoch = data.draw(st.integers(0, order.steps - 1)), data.draw(st.integers(0, 3))
    expected = np.concatenate([order.step(order.sequence(epoch), step) for step in range(first, order.steps)])
    seen: list[list[int]] = [[] for _ in range(first, order.steps)]
    for rank in range(world_size):
        loader = Loader(Samples(split, split.manifest, "split"), share, workers, CPU)
        micro_batches = (part for whole in order.shares(epoch, rank, world_size, first) for part in whole.split(parts))
        for number, (images, _, labels, weights, draws) in enumerate(collect(loader, epoch, micro_batches)):
            seen[number // parts] += draws[weights == 1].tolist()
            assert labels.tolist() == split.take("labels", draws).tolist()
            np.testing.assert_array_equal(
                images, split.take("images", draws) / np.float32(loader.samples.image_maximum)
            )
        loader.close()
    np.testing.assert_array_equal(np.concatenate(seen), expected)
    if first == 0 and keep_last:
        assert sorted(expected) == list(range(rows))


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_a_batch_holds_the_normalised_rows_that_were_asked_for(tmp_path: Path, dtype: str) -> None:
    survey = write_survey(tmp_path / "s", rows=40)
    for file in survey.glob("*.npy"):
        np.save(file, np.load(file).round().clip(0, 200))
    split = Split(pack_survey(survey, tmp_path / "d", f"dtype={dtype}"), "train")
    loader = Loader(Samples(split, split.manifest, "cutout"), 4, 2, CPU)
    rows = [[5, 1, 2, 2], [0, 7]]
    for (images, features, labels, weights, draws), asked in zip(
        collect(loader, 0, shares_of(*rows)), rows, strict=True
    ):
        raw = split.take("images", np.array(asked)).astype(np.float32)
        np.testing.assert_array_equal(images, raw / np.maximum(raw.max(axis=(1, 2, 3), keepdims=True), 1))
        np.testing.assert_array_equal(
            features, loader_module.normalise_features(split.take("features", np.array(asked)), split.manifest)
        )
        assert labels.tolist() == split.take("labels", np.array(asked)).tolist()
        assert weights.tolist() == [1] * len(asked)
        assert draws.tolist() == asked
    loader.close()


def test_a_copy_of_a_sample_is_augmented_anew(dataset: Path) -> None:
    split = Split(dataset, "train")
    samples = Samples(split, split.manifest, "cutout", Augmentation(Augment(engine="torch", noise=1.0), 0))
    ((images, _, labels, _, _),) = collect(Loader(samples, 2, 0, CPU), 0, shares_of([3, 3 + len(split)]))
    assert not np.array_equal(images[0], images[1])
    assert labels[0] == labels[1]


class Failing(Samples):
    def prepare(self, images: torch.Tensor, epoch: int, draws: np.ndarray) -> None:
        if 7 in draws:
            raise ZeroDivisionError("on purpose")


class Dying(Samples):
    need_processes = True

    def prepare(self, images: torch.Tensor, epoch: int, draws: np.ndarray) -> None:
        if 7 in draws:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failure_keeps_its_traceback_and_tells_rows_and_shard(dataset: Path, workers: int) -> None:
    split = Split(dataset, "train")
    loader = Loader(Failing(split, split.manifest, "cutout"), 2, workers, CPU)
    with pytest.raises(ZeroDivisionError, match="on purpose") as caught:
        collect(loader, 0, shares_of([1, 2], [7, 3], [4, 5]))
    assert any("rows 7, 3 of train, from" in note and "shard-00000.h5" in note for note in caught.value.__notes__)
    assert "prepare" in [entry.name for entry in caught.traceback]
    loader.close()


@pytest.mark.slow
def test_a_killed_worker_is_told_within_seconds(dataset: Path) -> None:
    split = Split(dataset, "train")
    loader = Loader(Dying(split, split.manifest, "cutout"), 2, 2, CPU)
    began = time.monotonic()
    with pytest.raises(RuntimeError, match=r"loader process was killed while loading rows .* of train, from .*shard-0"):
        collect(loader, 0, shares_of(*[[n, n + 1] for n in range(0, 20, 2)]))
    assert time.monotonic() - began < 30  # most of it is the start of the processes
    loader.close()


def test_an_epoch_may_be_left_in_the_middle(dataset: Path) -> None:
    split = Split(dataset, "train")
    loader = Loader(Samples(split, split.manifest, "cutout"), 2, 2, CPU)
    for _ in range(20):
        batches = loader(0, shares_of([0, 1], [2, 3], [4, 5], [6, 7]))
        next(batches)
        batches.close()
    expected = split.take("labels", np.array([8, 9])).tolist()
    assert collect(loader, 0, shares_of([8, 9]))[0][2].tolist() == expected
    loader.close()


def test_a_dataset_of_another_kind_is_refused(tmp_path: Path, dataset: Path) -> None:
    other = Split(pack_survey(write_survey(tmp_path / "s2", size=9), tmp_path / "d2"), "test")
    with pytest.raises(UserError, match="height are 9, but the run was trained with 8"):
        Samples(other, Split(dataset, "train").manifest, "cutout")
