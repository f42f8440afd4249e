import itertools
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from lens_hpc import config
from lens_hpc.dataset.feature_scaling import feature_width
from lens_hpc.dataset.manifest import Manifest, read_manifest
from lens_hpc.errors import UserError
from lens_hpc.model.build import build_model
from lens_hpc.training import deepspeed
from lens_hpc.training.memory import (
    LiveBytes,
    MemoryEstimate,
    Step,
    Trial,
    estimate_memory,
    smaller_micro_batch,
)
from lens_hpc.training.optimizer import BinaryLoss


@pytest.fixture
def manifest(dataset: Path) -> Manifest:
    """Cutouts of 8 x 8 px."""
    return read_manifest(dataset)


def changed(settings: config.Train, **groups: dict[str, Any]) -> config.Train:
    update = {
        group: getattr(settings, group).model_copy(update=values)
        for group, values in groups.items()
    }
    return settings.model_copy(update=update)


# ---- what lives at once ----


def test_bytes_are_counted_while_their_tensors_live() -> None:
    known = torch.ones(1000)
    with LiveBytes([known]) as counter:
        view = known.view(10, 100)
        assert counter.now == 0
        first = view * 2
        assert counter.now == 4096  # 4000 bytes, allocated in pieces of 512
        again = first.t()
        del first
        assert counter.now == 4096  # the view keeps them
        second = again.to(torch.bfloat16)
        assert counter.now == 4096 + 2048
        del again
        second += 1
        assert counter.now == 2048
    assert counter.peak == 4096 + 2048


def test_what_autograd_keeps_is_counted() -> None:
    weight = torch.ones(256, 256, requires_grad=True)
    with LiveBytes([weight]) as counter:
        loss = (weight.exp().exp()).sum()
        # Both results are kept for the backward pass, and nothing in Python names them.
        assert 2 * weight.nbytes <= counter.now < 2.1 * weight.nbytes
        loss.backward()
        del loss
        assert counter.now == weight.nbytes  # the gradient


# ---- a step is tried ----


def fails(model: nn.Module, count: int, manifest: Manifest) -> bool:
    """Whether a training step on real tensors fails."""
    model.train()
    images = torch.rand(count, len(manifest.bands), manifest.height, manifest.width)
    features = torch.rand(count, feature_width(config.Model(), manifest))
    try:
        logits = model(images, features)
    except ValueError:  # BatchNorm's
        return True
    BinaryLoss(config.Loss())(logits, torch.ones(count)).sum().backward()
    return False


@pytest.mark.slow
@pytest.mark.parametrize("backbone", timm.list_models("test_*"))
def test_a_step_is_said_to_work_where_it_does(
    training: config.Train, manifest: Manifest, backbone: str
) -> None:
    for norm, inputs in itertools.product(("batch", "layer"), ("fusion", "image", "features")):
        small = {"backbone": backbone, "norm": norm, "inputs": inputs}
        settings = changed(training, model=small)
        try:
            model = build_model(settings.model, manifest)
        except UserError:  # it is for larger cutouts
            manifest = manifest.model_copy(update={"height": 32, "width": 32})
            model = build_model(settings.model, manifest)

        for count in (1, 2, 8):
            expected = fails(model, count, manifest)
            step = Step(settings, manifest, count, accumulation=1, world_size=1)
            if expected:
                with pytest.raises(UserError, match=r"Choose train.micro_batch_size=2 or more"):
                    step.try_on(model)
            else:
                assert step.try_on(model).why_few == ""


def test_a_trial_leaves_the_model_as_it_was(training: config.Train, manifest: Manifest) -> None:
    model = build_model(training.model, manifest)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Step(training, manifest, 512, accumulation=2, world_size=1).try_on(model)
    for name, value in model.state_dict().items():
        assert type(value) is torch.Tensor
        assert torch.equal(value, before[name]), name
    assert all(one.grad is None for one in model.parameters())


def test_batchnorm_over_several_gpus_needs_one_value_on_each(
    training: config.Train, manifest: Manifest
) -> None:
    settings = changed(training, train={"sync_batchnorm": True})
    model = build_model(settings.model, manifest)
    Step(settings, manifest, 1, accumulation=1, world_size=2).try_on(model)
    with pytest.raises(UserError, match="needs more values than one"):
        Step(settings, manifest, 1, accumulation=1, world_size=1).try_on(model)


class Own(nn.Module):
    """A model of one's own."""

    def __init__(self, kind: str, features: int) -> None:
        super().__init__()
        self.kind = kind
        self.layer = nn.Linear(features, 1024)
        self.norm = nn.BatchNorm1d(1024)

    def forward(self, images: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.layer(features)))
        if self.kind == "looks at its data" and x.mean().item() < 0:
            x = -x
        if self.kind == "mixes types":
            x = torch.zeros_like(x, dtype=torch.float32).index_add(0, torch.arange(len(x)), x)
            x = self.layer(features).index_add(0, torch.arange(len(x)), x)
        if self.kind == "has no gradient":
            x = x.detach()
        return x.mean(1, keepdim=self.kind == "has another shape")


def try_own(
    training: config.Train, manifest: Manifest, kind: str, precision: str = "no", count: int = 512
) -> Trial:
    settings = changed(training, model={"name": "mypackage.Own"}, train={"precision": precision})
    own = Own(kind, feature_width(settings.model, manifest))
    return Step(settings, manifest, count, accumulation=1, world_size=1).try_on(own)


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_a_model_that_looks_at_its_data_is_tried_on_a_few(
    training: config.Train, manifest: Manifest, precision: str
) -> None:
    exact = try_own(training, manifest, "", precision)
    scaled = try_own(training, manifest, "looks at its data", precision)
    assert exact.why_few == ""
    assert "DataDependentOutputException" in scaled.why_few
    assert 0.8 < scaled.training_bytes / exact.training_bytes < 1.2


@pytest.mark.parametrize("kind", ["has no gradient", "has another shape"])
def test_what_fails_at_the_first_step_is_named(
    training: config.Train, manifest: Manifest, kind: str
) -> None:
    expected = r"model.name = mypackage.Own: a training step of 2 cutouts of 8 x 8 px fails \("
    with pytest.raises(UserError, match=expected):
        try_own(training, manifest, kind)


def test_what_fails_in_mixed_precision_alone_is_found(
    training: config.Train, manifest: Manifest
) -> None:
    assert not try_own(training, manifest, "mixes types").why_few
    with pytest.raises(UserError, match="fails"):
        try_own(training, manifest, "mixes types", "bf16")


# ---- what a GPU needs ----


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "allocated", "reserved"), [("no", 4.70, 5.22), ("bf16", 2.84, 3.10)]
)
def test_the_estimate_is_what_a_gpu_took(
    training: config.Train, manifest: Manifest, precision: str, allocated: float, reserved: float
) -> None:
    """resnet50 on an H200, cutouts of 64 x 64 px in three bands, 512 a batch (gpu/accept.py)."""
    update = {"height": 64, "width": 64, "bands": ("g", "r", "i"), "features": ("a", "b")}
    manifest = manifest.model_copy(update=update)
    settings = changed(training, train={"precision": precision, "channels_last": True})
    settings = settings.model_copy(
        update={"model": config.Model(backbone="resnet50", weights="none")}
    )
    model = build_model(settings.model, manifest)
    step = Step(settings, manifest, 512, accumulation=1, world_size=1)
    total = estimate_memory(step, model, step.try_on(model)).total / 1e9
    assert allocated < total
    assert abs(total / reserved - 1) < 0.2


def estimate(
    settings: config.Train, manifest: Manifest, model: nn.Module, **given: int
) -> MemoryEstimate:
    sizes = {"micro_batch_size": 64, "accumulation": 1, "world_size": 1} | given
    step = Step(settings, manifest, **sizes)
    return estimate_memory(step, model, step.try_on(model))


@pytest.mark.slow
def test_the_estimate_knows_what_takes_memory(training: config.Train, manifest: Manifest) -> None:
    settings = changed(training, model={"conv_channels": (256, 128)})
    model = build_model(settings.model, manifest)
    weights = sum(one.nbytes for one in model.parameters())
    buffers = sum(one.nbytes for one in model.buffers())

    plain = estimate(settings, manifest, model)
    assert plain.weights == 3 * weights + buffers
    assert estimate(settings, manifest, model, micro_batch_size=128).step > 1.3 * plain.step
    half = changed(settings, train={"precision": "bf16"})
    assert estimate(half, manifest, model).step < plain.step

    averaged = estimate(changed(settings, optim={"ema_decay": 0.9}), manifest, model)
    assert averaged.weights == 4 * weights + 2 * buffers

    # Of a frozen parameter there are no moments.
    model.head.requires_grad_(False)
    frozen = estimate(settings, manifest, model)
    head = sum(one.nbytes for one in model.head.parameters())
    assert frozen.weights == plain.weights - 2 * head


@pytest.mark.parametrize("more", [{"accumulation": 2}, {"world_size": 2}])
def test_gradients_may_be_there_before_the_backward_pass(
    training: config.Train, manifest: Manifest, more: dict[str, int]
) -> None:
    settings = changed(training, model={"conv_channels": (256, 128)})
    model = build_model(settings.model, manifest)
    weights = sum(one.nbytes for one in model.parameters())
    plain = estimate(settings, manifest, model)
    found = estimate(settings, manifest, model, **more)
    assert found.step > plain.step + 0.3 * weights
    assert (found.weights > plain.weights) == ("world_size" in more)


def test_scoring_may_take_more_than_a_small_micro_batch(
    training: config.Train, manifest: Manifest
) -> None:
    settings = changed(training, model={"inputs": "features"})
    model = build_model(settings.model, manifest)
    one = estimate(settings, manifest, model, micro_batch_size=2)
    pixels = manifest.height * manifest.width * len(manifest.bands)
    assert one.batches == 3 * 256 * 4 * pixels


def test_zero_shares_the_optimizer(
    training: config.Train, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deepspeed, "is_used", lambda: True)
    model = build_model(training.model, manifest)
    few, many = (estimate(training, manifest, model, world_size=size).weights for size in (2, 6))
    weights = sum(one.nbytes for one in model.parameters())
    assert few - many == pytest.approx(3 * weights * (1 / 2 - 1 / 6))


def test_an_estimate_says_what_it_includes() -> None:
    text = str(MemoryEstimate(weights=1e9, step=4e9, batches=0.1e9))
    assert text.startswith("about 6.1 GB of memory a GPU (an estimate: weights and optimizer 1.0")
    assert "activations and gradients 4.0, batches 0.10" in text
    assert "0.50 GB for CUDA itself" in text


# ---- when it is not enough ----


@pytest.mark.parametrize(
    ("micro", "accumulation", "precision", "expected"),
    [
        (64, 1, "no", "train.micro_batch_size=32 "),
        (64, 1, "no", "train.precision=bf16"),
        (64, 3, "bf16", "train.micro_batch_size=48 "),
        (7, 1, "bf16", "train.micro_batch_size=1 "),
        (1, 8, "bf16", "choose a smaller model.backbone"),
    ],
)
def test_the_remedy_is_the_next_smaller_divisor(
    training: config.Train, micro: int, accumulation: int, precision: str, expected: str
) -> None:
    settings = changed(training, train={"precision": precision})
    text = smaller_micro_batch(settings, micro, accumulation)
    assert text.startswith(f"train.micro_batch_size = {micro}: choose ")
    assert expected in text
    assert ("train.precision=bf16" in text) == (precision == "no")
    assert ("train.global_batch_size = 8 stays as it is" in text) == (micro > 1)
