from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn

from lens_hpc import config
from lens_hpc.dataset.manifest import Manifest, read_manifest
from lens_hpc.errors import UserError
from lens_hpc.training import trainer as room
from lens_hpc.training.accelerator import accelerator_session
from lens_hpc.training.trainer import Trainer, average_statistics, make_trainer, train_step


@pytest.fixture
def manifest(training: config.Train) -> Manifest:
    return read_manifest(training.data.dataset)


def without_batchnorm(settings: config.Train) -> config.Train:
    features = settings.model.model_copy(update={"inputs": "features"})
    return settings.model_copy(update={"model": features})


@pytest.fixture
def trainer(training: config.Train, manifest: Manifest) -> Iterator[Trainer]:
    settings = without_batchnorm(training)
    with (
        accelerator_session(settings) as accelerator,
        make_trainer(settings, accelerator, manifest) as made,
    ):
        yield made


def test_a_step_is_the_optimizers_on_the_mean_loss(trainer: Trainer) -> None:
    start = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    batches = trainer.train_loader(0, trainer.shares(0))
    batch = next(batches)
    losses = trainer.loss(trainer.model(batch.images, batch.features), batch.labels)
    losses.mean().backward()
    expected = {name: value.grad.clone() for name, value in trainer.model.named_parameters()}
    trainer.optimizer.zero_grad()

    result = train_step(trainer, 0, iter([batch]))
    assert result.loss.item() == pytest.approx(losses.mean().item())
    assert not result.loss.requires_grad
    np.testing.assert_array_equal(result.draws, batch.draws)
    # AdamW's first step moves each weight by the rate, against its gradient, whatever its size.
    rate = trainer.rate.now()
    for name, value in trainer.model.named_parameters():
        large = expected[name].abs() > 1e-4
        moved = (value - start[name])[large]
        assert (moved * expected[name][large] < 0).all()
        torch.testing.assert_close(moved.abs(), torch.full_like(moved, rate), rtol=0.1, atol=0)
        assert value.grad is None


def test_micro_batches_add_up_to_the_same_step(training: config.Train, manifest: Manifest) -> None:
    def weights_after_a_step(micro_batch_size: int | None) -> dict[str, torch.Tensor]:
        loop = training.train.model_copy(update={"micro_batch_size": micro_batch_size})
        settings = without_batchnorm(training.model_copy(update={"train": loop}))
        with (
            accelerator_session(settings) as accelerator,
            make_trainer(settings, accelerator, manifest) as trainer,
        ):
            batches = trainer.train_loader(0, trainer.shares(0))
            train_step(trainer, 0, batches)
            return {name: value.clone() for name, value in trainer.model.state_dict().items()}

    whole, parts = weights_after_a_step(None), weights_after_a_step(2)
    for name, value in whole.items():
        torch.testing.assert_close(value, parts[name], rtol=0, atol=1e-5)


def test_the_initial_weights_are_those_of_the_seed(
    training: config.Train, manifest: Manifest
) -> None:
    with accelerator_session(training) as accelerator:
        torch.rand(7)  # what was drawn before does not matter
        one = room.prepare_model(training, manifest, accelerator).state_dict()
        other = room.prepare_model(training, manifest, accelerator).state_dict()
        assert all(torch.equal(one[name], other[name]) for name in one)
        loop = training.train.model_copy(update={"seed": 1})
        changed = training.model_copy(update={"train": loop})
        third = room.prepare_model(changed, manifest, accelerator).state_dict()
        assert any(not torch.equal(one[name], third[name]) for name in one)


def test_the_averaged_model_is_what_is_exported(training: config.Train, manifest: Manifest) -> None:
    optim = training.optim.model_copy(update={"ema_decay": 0.9})
    settings = training.model_copy(update={"optim": optim})
    with (
        accelerator_session(settings) as accelerator,
        make_trainer(settings, accelerator, manifest) as trainer,
    ):
        assert isinstance(trainer.ema, ModelEmaV3)
        assert trainer.whole_model() is trainer.ema.module
        before = {name: value.clone() for name, value in trainer.ema.module.named_parameters()}
        batches = trainer.train_loader(0, trainer.shares(0))
        for step in range(3):
            train_step(trainer, step, batches)
        after = dict(trainer.ema.module.named_parameters())
        assert any(not torch.equal(before[name], after[name]) for name in before)


def test_the_manifest_that_is_given_is_not_read_again(
    training: config.Train, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lens_hpc.dataset.columns.read_manifest", None)
    with (
        accelerator_session(training) as accelerator,
        make_trainer(training, accelerator, manifest) as trainer,
    ):
        assert trainer.train_loader.samples.manifest is manifest
        assert trainer.validation_loader.samples.split.manifest is manifest


def test_an_epoch_without_a_step_is_refused(training: config.Train, manifest: Manifest) -> None:
    loop = training.train.model_copy(update={"global_batch_size": 64})
    settings = training.model_copy(update={"train": loop})
    with (
        accelerator_session(settings) as accelerator,
        pytest.raises(UserError, match="an epoch has only 28 samples"),
    ):
        make_trainer(settings, accelerator, manifest)


class _TwoProcesses:
    """An accelerator whose other process holds zeros."""

    def unwrap_model(self, model: nn.Module) -> nn.Module:
        return model

    def reduce(self, buffer: torch.Tensor, reduction: str) -> torch.Tensor:
        assert reduction == "mean"
        return buffer / 2


def test_statistics_are_averaged_and_counts_are_not() -> None:
    model = nn.BatchNorm1d(3)
    model.running_mean.fill_(4.0)
    model.num_batches_tracked.fill_(7)
    weight = model.weight.clone()
    average_statistics(_TwoProcesses(), model, None)  # type: ignore[arg-type]
    assert model.running_mean.tolist() == [2.0] * 3
    assert model.num_batches_tracked.item() == 7
    assert torch.equal(model.weight, weight)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", timm.list_models("test_*"))
def test_sync_batchnorm_leaves_every_backbone_as_it_was(
    training: config.Train, manifest: Manifest, backbone: str
) -> None:
    """Only a GPU trains with it, but the model that is made for one can be tried on the CPU."""
    alone = training.model_copy(
        update={
            "model": training.model.model_copy(update={"backbone": backbone}),
            "train": training.train.model_copy(update={"sync_batchnorm": True}),
        }
    )
    manifest = manifest.model_copy(update={"height": 64, "width": 64})
    outputs = []
    for kind in ("cpu", "cuda"):
        accelerator: Any = SimpleNamespace(device=torch.device(kind), is_main_process=False)
        model = room.prepare_model(alone, manifest, accelerator).eval()
        torch.manual_seed(0)
        images = torch.rand(2, len(manifest.bands), 64, 64)
        with torch.inference_mode():
            outputs.append(model(images, torch.rand(2, len(manifest.features))))
    assert torch.equal(*outputs)
