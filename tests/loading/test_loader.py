import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_hpc.config import Augment, Model
from lens_hpc.dataset.feature_scaling import FeatureScaler
from lens_hpc.dataset.split import Split
from lens_hpc.loading.augmentation import make_augmentation
from lens_hpc.loading.loader import Loader
from lens_hpc.loading.order import Order, Share
from lens_hpc.loading.samples import Samples
from tests.conftest import pack_survey, write_survey
from tests.loading.test_native_threads import torch_threads_in_a_fresh_thread

CPU = torch.device("cpu")
ENGINES_AND_COMPRESSIONS = [
    ("torch", "none"),
    pytest.param("albumentations", "none", marks=pytest.mark.slow),  # processes start in seconds
    pytest.param("torch", "lzf", marks=pytest.mark.slow),
]


def shares_of(*batches: list[int]) -> list[Share]:
    nothing = np.empty(0, np.int64)
    return [Share(np.array(rows), np.ones(len(rows), np.float32), nothing) for rows in batches]


def collect(loader: Loader, epoch: int, shares: Iterable[Share]) -> list[tuple[np.ndarray, ...]]:
    """Return copies of all batches: a batch is only valid until the next."""
    return [
        (*(tensor.numpy().copy() for tensor in batch[:4]), batch.draws)
        for batch in loader(epoch, shares)
    ]


@pytest.mark.parametrize(("engine", "compression"), ENGINES_AND_COMPRESSIONS)
def test_workers_change_nothing(
    tmp_path: Path, survey: Path, engine: str, compression: str
) -> None:
    split = Split(pack_survey(survey, tmp_path / "d", f"compression={compression}"), "train")
    augmentation = make_augmentation(Augment(engine=engine), 0)
    samples = Samples(split, split.manifest, "cutout", augmentation)
    order = Order(len(split), 6, 1, keep_last=True)

    reference = None
    for workers in (0, 2) if samples.need_processes else (0, 1, 2, 4):
        batches = []
        with Loader(samples, 6, workers, CPU) as loader:
            for epoch in (0, 1):
                batches += collect(loader, epoch, order.shares(epoch, 0, 1))

        assert len(batches) == 2 * order.steps
        reference = reference or batches
        for batch, expected in zip(batches, reference, strict=True):
            for ours, theirs in zip(batch, expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(2, 300),
    share=st.integers(1, 6),
    parts=st.integers(1, 3),
    world_size=st.integers(1, 16),
    workers=st.integers(0, 4),
    blocks=st.booleans(),
    keep_last=st.booleans(),
    data=st.data(),
)
def test_any_processes_workers_and_resume_point_read_the_same_epoch(
    many_shards: Path,
    rows: int,
    share: int,
    parts: int,
    world_size: int,
    workers: int,
    blocks: bool,
    keep_last: bool,
    data: st.DataObject,
) -> None:
    split = Split(many_shards, "train")
    order = Order(rows, share * parts * world_size, 7, blocks, keep_last)
    if rows < order.global_batch_size and not keep_last:
        return
    first = data.draw(st.integers(0, order.steps - 1))
    epoch = data.draw(st.integers(0, 3))
    sequence = order.sequence(epoch)
    expected = np.concatenate([order.step(sequence, step) for step in range(first, order.steps)])

    seen: list[list[int]] = [[] for _ in range(first, order.steps)]
    for rank in range(world_size):
        shares = order.shares(epoch, rank, world_size, first)
        micro_batches = (part for share in shares for part in share.split(parts))
        with Loader(Samples(split, split.manifest, "split"), share, workers, CPU) as loader:
            batches = collect(loader, epoch, micro_batches)
            maximum = np.float32(loader.samples.statistics.image_max)

        for number, (images, _, labels, weights, draws) in enumerate(batches):
            seen[number // parts] += draws[weights == 1].tolist()
            assert labels.tolist() == split.take("labels", draws).tolist()
            np.testing.assert_array_equal(images, split.take("images", draws) / maximum)

    np.testing.assert_array_equal(np.concatenate(seen), expected)
    if first == 0 and keep_last:
        assert sorted(expected) == list(range(rows))


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_a_batch_holds_the_normalised_rows_that_were_asked_for(tmp_path: Path, dtype: str) -> None:
    survey = write_survey(tmp_path / "s", rows=40)
    for file in survey.glob("*.npy"):
        np.save(file, np.load(file).round().clip(0, 200))
    split = Split(pack_survey(survey, tmp_path / "d", f"dtype={dtype}"), "train")

    asked = [[5, 1, 2, 2], [0, 7]]
    with Loader(Samples(split, split.manifest, "cutout"), 4, 2, CPU) as loader:
        batches = collect(loader, 0, shares_of(*asked))

    for (images, features, labels, weights, draws), rows in zip(batches, asked, strict=True):
        raw = split.take("images", np.array(rows)).astype(np.float32)
        brightest = np.maximum(raw.max(axis=(1, 2, 3), keepdims=True), 1)
        np.testing.assert_array_equal(images, raw / brightest)

        raw_features = split.take("features", np.array(rows))
        scale = FeatureScaler(Model(), split.manifest)
        np.testing.assert_array_equal(features, scale(raw_features))

        assert labels.tolist() == split.take("labels", np.array(rows)).tolist()
        assert weights.tolist() == [1] * len(rows)
        assert draws.tolist() == rows


def test_a_copy_of_a_sample_is_augmented_anew(dataset: Path) -> None:
    split = Split(dataset, "train")
    augmentation = make_augmentation(Augment(engine="torch", noise=1.0), 0)
    samples = Samples(split, split.manifest, "cutout", augmentation)
    with Loader(samples, 2, 0, CPU) as loader:
        ((images, _, labels, _, _),) = collect(loader, 0, shares_of([3, 3 + len(split)]))
    assert not np.array_equal(images[0], images[1])
    assert labels[0] == labels[1]


@pytest.mark.parametrize("kind", ["cpu", "meta", "mps", "xpu", "hpu"])
def test_workers_prepare_for_every_device_but_a_cuda_gpu(dataset: Path, kind: str) -> None:
    split = Split(dataset, "train")
    augmentation = make_augmentation(Augment(engine="torch", blur=1), 0)
    samples = Samples(split, split.manifest, "cutout", augmentation)
    with Loader(samples, 4, 0, CPU) as loader:
        ((expected, *_),) = collect(loader, 0, shares_of([3, 1, 2, 5]))

    with Loader(samples, 4, 0, torch.device(kind)) as loader:
        loader.fill(0, 0, shares_of([3, 1, 2, 5])[0])
        np.testing.assert_array_equal(loader.buffers[0].images, expected)
        if kind == "meta":
            (batch,) = loader(0, shares_of([3, 1, 2, 5]))
            assert {tensor.device.type for tensor in batch[:4]} == {"meta"}


@pytest.mark.parametrize("workers", [0, 2])
def test_draws_are_made_by_a_thread_of_their_own_that_ends_with_the_epoch(
    dataset: Path, workers: int
) -> None:
    threads = set()

    def shares() -> Iterator[Share]:
        for share in shares_of([0, 1], [2, 3], [4, 5]):
            threads.add(threading.current_thread())
            yield share
        raise ZeroDivisionError("on purpose")

    split = Split(dataset, "train")
    with Loader(Samples(split, split.manifest, "cutout"), 2, workers, CPU) as loader:
        batches = loader(0, shares())
        with pytest.raises(ZeroDivisionError, match="on purpose"):
            list(batches)
        assert not threads & set(threading.enumerate())
    assert threading.current_thread() not in threads
    assert len(threads) == 1


# ---- failures ----


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
def test_a_failure_keeps_its_traceback_and_tells_rows_and_shard(
    dataset: Path, workers: int
) -> None:
    split = Split(dataset, "train")
    with (
        Loader(Failing(split, split.manifest, "cutout"), 2, workers, CPU) as loader,
        pytest.raises(ZeroDivisionError, match="on purpose") as caught,
    ):
        collect(loader, 0, shares_of([1, 2], [7, 3], [4, 5]))

    (note,) = caught.value.__notes__
    assert "rows 7, 3 of train, from" in note
    assert "shard-00000.h5" in note
    assert "prepare" in [entry.name for entry in caught.traceback]


@pytest.mark.slow
def test_a_killed_worker_is_told_within_seconds(dataset: Path) -> None:
    split = Split(dataset, "train")
    began = time.monotonic()
    message = r"loader process was killed while loading rows .* of train, from .*shard-0"
    with (
        Loader(Dying(split, split.manifest, "cutout"), 2, 2, CPU) as loader,
        pytest.raises(RuntimeError, match=message),
    ):
        collect(loader, 0, shares_of(*[[n, n + 1] for n in range(0, 20, 2)]))
    assert time.monotonic() - began < 30  # most of it is the start of the processes


def test_an_epoch_may_be_left_in_the_middle(dataset: Path) -> None:
    split = Split(dataset, "train")
    with Loader(Samples(split, split.manifest, "cutout"), 2, 2, CPU) as loader:
        for _ in range(20):
            batches = loader(0, shares_of([0, 1], [2, 3], [4, 5], [6, 7]))
            next(batches)
            batches.close()
        ((_, _, labels, _, _),) = collect(loader, 0, shares_of([8, 9]))
    assert labels.tolist() == split.take("labels", np.array([8, 9])).tolist()


# ---- what a loader leaves behind ----


def process_state() -> dict[str, object]:
    return {
        "threads": set(threading.enumerate()),
        "processes": set(multiprocessing.active_children()),
        "torch": torch.get_num_threads(),
        "torch, fresh thread": torch_threads_in_a_fresh_thread(),
        "opencv": cv2.getNumThreads(),
    }


@pytest.mark.parametrize(("engine", "compression"), ENGINES_AND_COMPRESSIONS)
@pytest.mark.parametrize("fails", [False, True])
def test_the_process_is_left_as_it_was(
    tmp_path: Path, survey: Path, engine: str, compression: str, fails: bool
) -> None:
    split = Split(pack_survey(survey, tmp_path / "d", f"compression={compression}"), "train")
    augmentation = make_augmentation(Augment(engine=engine), 0)
    kind = Failing if fails else Samples
    samples = kind(split, split.manifest, "cutout", augmentation)
    threads_before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(3)
    cv2.setNumThreads(3)
    try:
        before = process_state()
        try:
            with Loader(samples, 2, 2, CPU) as loader:
                assert cv2.getNumThreads() == 1
                collect(loader, 0, shares_of([0, 1], [7, 2], [3, 4]))
        except ZeroDivisionError:
            assert fails
        assert process_state() == before
        loader.close()  # a second time
        assert process_state() == before
    finally:
        torch.set_num_threads(threads_before[0])
        cv2.setNumThreads(threads_before[1])


# ---- an engine of the user's own ----

OWN_ENGINE = """
import os

from lens_hpc.loading.augmentation_base import Augmentation

class ProcessNumber(Augmentation):
    is_slow = {is_slow}

    def __call__(self, images, epoch, draws):
        images[:] = os.getpid()
"""


@pytest.mark.parametrize("is_slow", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_engine_of_the_users_own_comes_to_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: Path, is_slow: bool
) -> None:
    package = f"package_of_a_test_{is_slow}".lower()
    (tmp_path / package).mkdir()
    (tmp_path / package / "augment.py").write_text(OWN_ENGINE.format(is_slow=is_slow))
    monkeypatch.syspath_prepend(tmp_path)
    engine = Augment(engine=f"{package}.augment.ProcessNumber")
    split = Split(dataset, "train")
    samples = Samples(split, split.manifest, "cutout", make_augmentation(engine, 0, [package]))

    with Loader(samples, 2, 1, CPU) as loader:
        ((images, *_),) = collect(loader, 0, shares_of([0, 1]))
    assert (images[0, 0, 0, 0] != np.float32(os.getpid())) == is_slow
