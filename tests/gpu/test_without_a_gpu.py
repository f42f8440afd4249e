"""The code for GPUs on a GPU that is not there: nothing waits, blocks or mixes devices."""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lens_hpc import config
from lens_hpc.dataset.split import Split
from lens_hpc.loading.augmentation import make_augmentation
from lens_hpc.loading.augmentation_base import Augmentation
from lens_hpc.loading.loader import Batch, Loader
from lens_hpc.loading.order import Order
from lens_hpc.loading.random_numbers import FIRST_FREE_STREAM, normals
from lens_hpc.loading.samples import Samples
from lens_hpc.loading.torch_augmentation import TorchAugmentation
from lens_hpc.model.build import build_model
from lens_hpc.model.trained import TrainedModel
from lens_hpc.scoring.distributed import EnsembleScorer
from lens_hpc.scoring.scores import score_share
from tests.conftest import pack_survey, write_survey
from tests.gpu.pretend import GPU, PretendGpu, pretend_gpu

pytestmark = pytest.mark.slow

BATCH = 4
EXTRAS = {"rotate90": 0.5, "shift": 3, "noise": 0.01}
NOTHING = {"hflip": 0.0, "vflip": 0.0, "blur": 0.0}
AUGMENTATIONS: dict[str, dict | None] = {
    "none": None,
    "author's": {},
    "flips": {"blur": 0.0},
    "blur": NOTHING | {"blur": 1.0},
    "shift": NOTHING | {"shift": 2},
    "noise": NOTHING | {"noise": 0.1},
    "nothing": NOTHING,
    "all": EXTRAS,
}
PRECISIONS = [None, torch.bfloat16, torch.float16]

# Copies from the pinned memory of a batch, whatever it is augmented with.
COPIES_OF_A_BATCH = 2
LAUNCHES_OF_A_BATCH = 50


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    folder = tmp_path_factory.mktemp("without_a_gpu")
    survey = write_survey(folder / "survey", size=32)
    return Split(pack_survey(survey, folder / "dataset"), "train")


def make_samples(split: Split, settings: dict | None, scale: str = "cutout") -> Samples:
    augmentation = None
    if settings is not None:
        augmentation = make_augmentation(config.Augment(engine="torch", **settings), 0)
    return Samples(split, split.manifest, scale, augmentation)


def batches_on(samples: Samples, device: torch.device, workers: int) -> Iterator[Batch]:
    """Yield an epoch of batches of which the last is shorter."""
    shares = list(Order(len(samples.split), BATCH).shares(0, 0, 1))
    last = next(shares[-1].split(2))
    with Loader(samples, BATCH, workers, device) as loader:
        yield from loader(0, [*shares, last])


def autocast(precision: torch.dtype | None) -> AbstractContextManager[Any]:
    return torch.autocast("cuda", dtype=precision) if precision else nullcontext()


# ---- loader and augmentation ----


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_batch_takes_two_copies_and_nothing_waits(split: Split, name: str, workers: int) -> None:
    scale = "cutout" if workers else "split"
    samples = make_samples(split, AUGMENTATIONS[name], scale)
    with pretend_gpu() as gpu:
        for number, batch in enumerate(batches_on(samples, GPU, workers), start=1):
            assert {tensor.device for tensor in batch[:4]} == {GPU}
            assert {tensor.dtype for tensor in batch[:4]} == {torch.float32}
            assert {len(part) for part in batch} == {len(batch.draws)}
            assert batch.images.shape[1:] == (2, 32, 32)
            assert len(gpu.copies) == COPIES_OF_A_BATCH * number
    assert gpu.faults() == []
    assert number > 2
    assert len(batch.draws) == BATCH // 2
    assert len(gpu.launched) <= LAUNCHES_OF_A_BATCH * number


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_pixels_are_copied_as_they_are_stored(tmp_path: Path, dtype: str) -> None:
    survey = write_survey(tmp_path / "survey")
    for file in survey.glob("*.npy"):
        np.save(file, np.load(file).round().clip(0, 200))
    stored = Split(pack_survey(survey, tmp_path / "dataset", f"dtype={dtype}"), "train")
    with pretend_gpu() as gpu:
        for batch in batches_on(make_samples(stored, {}), GPU, 1):
            assert batch.images.dtype == torch.float32
    assert dtype in gpu.copies[0].what
    assert gpu.faults() == []


class DrawsForItself(TorchAugmentation):
    """An engine as the page on augmentation has it."""

    def __call__(self, images: torch.Tensor, epoch: int, draws: np.ndarray) -> None:
        super().__call__(images, epoch, draws)
        bands = images.shape[1]
        factors = normals(self.seed, epoch, draws, bands, FIRST_FREE_STREAM, images.device)
        images *= factors[:, :, None, None]


class FlipsAndMore(TorchAugmentation):
    """An engine that adds to one part of another."""

    def flip_and_blur(self, images: torch.Tensor, epoch: int, draws: np.ndarray) -> None:
        super().flip_and_blur(images, epoch, draws)
        images *= 2


class FlipsAlone(Augmentation):
    """An engine that writes the least that it must."""

    def flip_and_blur(self, images: torch.Tensor, epoch: int, draws: np.ndarray) -> None:
        images *= 2


@pytest.mark.parametrize("engine", [DrawsForItself, FlipsAndMore, FlipsAlone])
def test_an_engine_that_draws_for_itself_is_called_on_the_gpu(
    split: Split, engine: type[Augmentation]
) -> None:
    augmentation = engine(config.Augment(engine="torch", **EXTRAS), 0)
    assert not augmentation.draws_ahead
    with pretend_gpu() as gpu:
        for batch in batches_on(Samples(split, split.manifest, "cutout", augmentation), GPU, 2):
            assert batch.images.device == GPU
    places = {call.place.partition(":")[0] for call in gpu.launched}
    assert str(Path(__file__).relative_to(Path.cwd())) in places
    assert gpu.faults() == []


class DrawsAhead(TorchAugmentation):
    """An engine that adds to what is drawn ahead."""

    def draw(self, epoch: int, draws: np.ndarray, shape: tuple) -> dict[str, torch.Tensor]:
        drawn = super().draw(epoch, draws, shape)
        drawn["factors"] = normals(self.seed, epoch, draws, shape[0], FIRST_FREE_STREAM)
        return drawn

    def apply(self, images: torch.Tensor, drawn: dict[str, torch.Tensor]) -> None:
        super().apply(images, drawn)
        images *= drawn["factors"][:, :, None, None]


def test_an_engine_of_ones_own_may_draw_ahead_with_no_more_copies(split: Split) -> None:
    augmentation = DrawsAhead(config.Augment(engine="torch", **EXTRAS), 0)
    with pretend_gpu() as gpu:
        samples = Samples(split, split.manifest, "cutout", augmentation)
        batches = list(batches_on(samples, GPU, 2))
    assert gpu.faults() == []
    assert len(gpu.copies) == COPIES_OF_A_BATCH * len(batches)


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["none", "lzf"])
def test_memory_that_is_shared_with_processes_is_pinned_meanwhile(
    tmp_path: Path, compression: str
) -> None:
    survey = write_survey(tmp_path / "survey")
    packed = pack_survey(survey, tmp_path / "dataset", f"compression={compression}")
    compressed = Split(packed, "train")
    engine = "albumentations" if compression == "none" else "torch"
    augmentation = make_augmentation(config.Augment(engine=engine), 0)
    samples = Samples(compressed, compressed.manifest, "cutout", augmentation)
    assert samples.need_processes
    with pretend_gpu() as gpu:
        with Loader(samples, BATCH, 1, GPU) as loader:
            batches = list(loader(0, Order(len(compressed), BATCH).shares(0, 0, 1)))
            assert gpu.faults() == []
        assert gpu.pinned == {}
    assert len(gpu.copies) == COPIES_OF_A_BATCH * len(batches)


def test_the_side_stream_goes_first(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    with pretend_gpu(), Loader(make_samples(split, None), BATCH, 0, GPU) as loader:
        assert loader._gpu.stream.priority == -1


# ---- scoring ----


@pytest.fixture(scope="module")
def model(split: Split) -> torch.nn.Module:
    settings = config.Model(
        backbone="test_resnet", weights="none", conv_channels=(16, 8), attention_channels=4
    )
    return build_model(settings, split.manifest)


def accelerator_on_gpu() -> Any:
    return SimpleNamespace(
        device=GPU,
        process_index=0,
        num_processes=1,
        is_main_process=True,
        prepare_model=lambda model, evaluation_mode: model.to(GPU),
    )


def without_the_last_copy(gpu: PretendGpu) -> list[str]:
    """Return the faults but for the one copy that gives the scores to the CPU."""
    from_gpu = [call for call in gpu.copies if call.what.startswith("copy from")]
    assert len(from_gpu) == 1
    assert gpu.copies[-1] == from_gpu[0]
    return [fault for fault in gpu.faults() if str(from_gpu[0]) not in fault]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_scoring_waits_for_nothing_but_the_scores(
    split: Split, model: torch.nn.Module, precision: torch.dtype | None, workers: int
) -> None:
    with pretend_gpu() as gpu:
        on_gpu = copy.deepcopy(model).to(GPU)
        gpu.forget()
        with (
            Loader(make_samples(split, None), BATCH, workers, GPU) as loader,
            autocast(precision),
        ):
            rows, logits = score_share(accelerator_on_gpu(), on_gpu, loader)
    assert without_the_last_copy(gpu) == []
    assert rows.tolist() == list(range(len(split)))
    assert (logits.shape, logits.dtype) == ((len(split),), np.float32)


@pytest.mark.parametrize("views", ["none", "d4"])
def test_an_ensemble_scores_alike(split: Split, model: torch.nn.Module, views: str) -> None:
    settings = SimpleNamespace(data=SimpleNamespace(image_scale="cutout"), model=config.Model())
    with pretend_gpu() as gpu:
        member = TrainedModel(copy.deepcopy(model), settings, split.manifest, Path("run"), {})
        scorer = EnsembleScorer(accelerator_on_gpu(), [member], views, BATCH, 2)
        gpu.forget()
        rows, logits = scorer.score_share(split)
    assert without_the_last_copy(gpu) == []
    assert len(rows) == len(logits) == len(split)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_augmented_batches_go_through_the_model(
    split: Split, model: torch.nn.Module, precision: torch.dtype | None
) -> None:
    with pretend_gpu() as gpu:
        on_gpu = copy.deepcopy(model).to(GPU).train()
        gpu.forget()
        for batch in batches_on(make_samples(split, EXTRAS), GPU, 2):
            with autocast(precision):
                logits = on_gpu(batch.images, batch.features)
            losses = torch.nn.functional.binary_cross_entropy_with_logits(
                logits.float(), batch.labels, reduction="none"
            )
            (losses * batch.weights).sum().backward()
    assert gpu.faults() == []
    assert all(weight.grad is not None for weight in on_gpu.parameters() if weight.requires_grad)
