from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from accelerate import DistributedDataParallelKwargs
from timm.utils.model_ema import ModelEmaV3
from torch import nn

from lens_hpc import config
from lens_hpc.dataset.feature_scaling import feature_width
from lens_hpc.dataset.manifest import Manifest, read_manifest
from lens_hpc.errors import UserError
from lens_hpc.model.build import build_model
from lens_hpc.scoring.scores import score
from lens_hpc.training import trainer as room
from lens_hpc.training.accelerator import accelerator_session
from lens_hpc.training.trainer import Trainer, average_statistics, make_trainer, train_step
from tests.conftest import pack_survey, write_survey


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
        one = room.prepare_model(training, manifest, accelerator, 8).state_dict()
        other = room.prepare_model(training, manifest, accelerator, 8).state_dict()
        assert all(torch.equal(one[name], other[name]) for name in one)
        loop = training.train.model_copy(update={"seed": 1})
        changed = training.model_copy(update={"train": loop})
        third = room.prepare_model(changed, manifest, accelerator, 8).state_dict()
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


def test_the_average_is_updated_by_a_few_calls(training: config.Train, manifest: Manifest) -> None:
    """timm takes that path only for a copy that was made on the model's own device."""
    optim = training.optim.model_copy(update={"ema_decay": 0.9})
    model = build_model(training.model, manifest)
    average = room.make_average(optim, model)
    assert average is not None
    assert average.foreach
    assert average.device is None


@pytest.mark.slow
@pytest.mark.parametrize("averaged", [False, True])
def test_training_is_in_mixed_precision_and_validation_in_float32(
    training: config.Train, manifest: Manifest, averaged: bool
) -> None:
    """`best` is chosen by validation, and evaluation, in float32, must find the same."""
    settings = training.model_copy(
        update={
            "train": training.train.model_copy(update={"precision": "bf16"}),
            "optim": training.optim.model_copy(update={"ema_decay": 0.5 if averaged else None}),
        }
    )
    products: list[torch.dtype] = []

    def note(_: nn.Module, __: Any, output: torch.Tensor) -> None:
        products.append(output.dtype)

    with (
        accelerator_session(settings) as accelerator,
        make_trainer(settings, accelerator, manifest) as trainer,
    ):
        trained = accelerator.unwrap_model(trainer.model)
        trained.features[0].register_forward_hook(note)
        train_step(trainer, 0, trainer.train_loader(0, trainer.shares(0)))
        assert set(products) == {torch.bfloat16}

        products.clear()
        model = trainer.whole_model()
        if averaged:
            model.features[0].register_forward_hook(note)
        logits = score(accelerator, model, trainer.validation_loader)
        assert set(products) == {torch.float32}

        # The same as the weights give that evaluation reads.
        exported = build_model(settings.model, manifest)
        exported.load_state_dict(model.state_dict())
        alone = score(accelerator, exported, trainer.validation_loader)
        np.testing.assert_array_equal(logits, alone)


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


def test_rows_are_trained_against_their_soft_labels_by_their_weights(
    training: config.Train, tmp_path: Path
) -> None:
    graded = {"p_lens": [f"{row / 40}" for row in range(40)], "trust": ["3"] * 40}
    survey = write_survey(tmp_path / "s", **graded)
    carried = "columns.target=p_lens", "columns.weight=trust"
    data = training.data.model_copy(
        update={"dataset": pack_survey(survey, tmp_path / "d", *carried)}
    )
    settings = without_batchnorm(training.model_copy(update={"data": data}))
    with (
        accelerator_session(settings) as accelerator,
        make_trainer(settings, accelerator, read_manifest(data.dataset)) as trainer,
    ):
        batch = next(trainer.train_loader(0, trainer.shares(0)))
        targets = trainer.train_loader.samples.split.take("targets", batch.draws)
        torch.testing.assert_close(batch.labels, torch.from_numpy(targets))
        losses = trainer.loss(trainer.model(batch.images, batch.features), batch.labels)
        result = train_step(trainer, 0, iter([batch]))
        assert result.loss.item() == pytest.approx(3 * losses.mean().item())
        # What chooses the best weights are labels.
        assert not trainer.validation_loader.samples.soft_labels


def test_a_range_that_one_value_makes_is_told(
    training: config.Train, manifest: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    assert manifest.statistics is not None
    radius, colour = manifest.statistics.features
    spoiled = (radius.model_copy(update={"max": 99.0}), colour)
    statistics = manifest.statistics.model_copy(update={"features": spoiled})
    manifest = manifest.model_copy(update={"statistics": statistics})
    model = training.model.model_copy(update=config.MODEL_OF_OLDER_RUNS)
    settings = without_batchnorm(training.model_copy(update={"model": model}))
    with (
        accelerator_session(settings) as accelerator,
        make_trainer(settings, accelerator, manifest) as trainer,
    ):
        assert trainer.train_loader.samples.feature_width == 2
        assert trainer.validation_loader.samples.feature_width == 2
    assert caplog.text.count("99 makes the range of the feature radius") == 1


def test_a_micro_batch_of_one_value_a_channel_is_refused(
    training: config.Train, manifest: Manifest
) -> None:
    loop = training.train.model_copy(update={"micro_batch_size": 1})
    settings = training.model_copy(update={"train": loop})
    with (
        accelerator_session(settings) as accelerator,
        pytest.raises(UserError, match=r"BatchNorm needs more .* Choose train\.micro_batch_size=2"),
    ):
        make_trainer(settings, accelerator, manifest)


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
    settings = training.model.model_copy(update={"backbone": backbone})
    manifest = manifest.model_copy(update={"height": 64, "width": 64})
    model = build_model(settings, manifest).eval()
    images = torch.rand(2, len(manifest.bands), 64, 64)
    features = torch.rand(2, feature_width(settings, manifest))

    with torch.inference_mode():
        before = model(images, features)
        accelerator: Any = SimpleNamespace(device=torch.device("cuda"))
        after = room.synchronise_batchnorm(model, accelerator)(images, features)
    assert torch.equal(before, after)


# ---- models of one's own ----


class TwoExperts(nn.Module):
    """Which expert is used depends on the samples."""

    def __init__(self, *_: Any) -> None:
        super().__init__()
        self.bright, self.faint = nn.Linear(1, 1), nn.Linear(1, 1)

    def forward(self, images: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        mean = images.mean((1, 2, 3))[:, None]
        expert = self.bright if mean.mean() > -1 else self.faint
        return expert(mean)[:, 0]


def test_of_a_model_of_ones_own_nothing_is_frozen() -> None:
    model = TwoExperts()
    handler = DistributedDataParallelKwargs()
    accelerator: Any = SimpleNamespace(ddp_handler=handler, is_main_process=False)
    room.leave_alone(model, ["faint.weight", "faint.bias"], accelerator)
    assert all(one.requires_grad for one in model.parameters())
    assert handler.find_unused_parameters


class Decorated(nn.Module):
    """Its forward pass has a decorator, which must stay."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        if own:
            self.forward = self.forward  # type: ignore[method-assign]

    @torch.autocast("cpu", enabled=False)
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@pytest.mark.parametrize("own", [False, True])
def test_the_forward_pass_of_a_model_is_as_it_was(training: config.Train, own: bool) -> None:
    loop = training.train.model_copy(update={"precision": "bf16"})
    model: Any = Decorated(own)
    before = vars(model).get("forward")
    with accelerator_session(training.model_copy(update={"train": loop})) as accelerator:
        accelerator.prepare(model)
        assert vars(model)["forward"] is not before
        room.unwrap_forward(model, before)
        assert vars(model).get("forward") is before
        with accelerator.autocast():
            assert model(torch.ones(1, 2)).dtype == torch.float32
