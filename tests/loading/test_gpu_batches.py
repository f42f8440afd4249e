"""What a GPU would be given, with values: the CPU is in its place here, and computes at once."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lens_hpc import config
from lens_hpc.dataset.split import Split
from lens_hpc.loading import loader as loader_module
from lens_hpc.loading.augmentation import make_augmentation
from lens_hpc.loading.gpu_batches import GpuBatches
from lens_hpc.loading.loader import Loader
from lens_hpc.loading.memory import PackedTensors
from lens_hpc.loading.order import Order
from lens_hpc.loading.samples import Samples
from tests.conftest import pack_survey, write_survey
from tests.gpu.pretend import GPU, PretendGpu, cuda_replaced

CPU = torch.device("cpu")
BATCH = 5


@pytest.fixture
def cpu_for_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def on_cpu(
        samples: Samples, images: torch.Tensor, rest: PackedTensors, device: torch.device
    ) -> GpuBatches:
        assert device == GPU
        return GpuBatches(samples, images, rest, CPU)

    monkeypatch.setattr(loader_module, "GpuBatches", on_cpu)
    with cuda_replaced(PretendGpu()):
        yield


@pytest.fixture(scope="module", params=["float32", "uint8"])
def split(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Split:
    folder = tmp_path_factory.mktemp("gpu_batches")
    survey = write_survey(folder / "survey")
    for file in survey.glob("*.npy"):
        np.save(file, np.load(file).round().clip(0, 200))
    return Split(pack_survey(survey, folder / "dataset", f"dtype={request.param}"), "train")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("extras", [None, {}, {"rotate90": 0.5, "shift": 3, "noise": 0.1}])
def test_batches_are_those_of_the_cpu(
    split: Split, cpu_for_gpu: None, extras: dict | None, workers: int
) -> None:
    augmentation = None
    if extras is not None:
        augmentation = make_augmentation(config.Augment(engine="torch", **extras), 0)
    samples = Samples(split, split.manifest, "cutout", augmentation)
    order = Order(len(split), BATCH, keep_last=True)

    with Loader(samples, BATCH, workers, GPU) as there, Loader(samples, BATCH, 0, CPU) as here:
        assert there.buffers[0].images.dtype == samples.stored_dtype
        for epoch in range(2):
            batches = there(epoch, order.shares(epoch, 0, 1))
            of_cpu = here(epoch, order.shares(epoch, 0, 1))
            for ours, theirs in zip(batches, of_cpu, strict=True):
                torch.testing.assert_close(ours.images, theirs.images, rtol=0, atol=1e-6)
                for number in (1, 2, 3):
                    assert torch.equal(ours[number], theirs[number])
                assert ours.draws.tolist() == theirs.draws.tolist()


def test_a_batch_stays_until_the_next_is_asked_for(dataset: Path, cpu_for_gpu: None) -> None:
    split = Split(dataset, "train")
    samples = Samples(split, split.manifest, "cutout")
    order = Order(len(split), BATCH)
    with Loader(samples, BATCH, 2, GPU) as there:
        before = None
        for batch in there(0, order.shares(0, 0, 1)):
            if before is not None:  # the other of two places
                assert batch.images.data_ptr() != before
            before = batch.images.data_ptr()
            assert batch.labels.tolist() == split.take("labels", batch.draws).tolist()
