"""A step of the trainer, on a GPU that is not there: nothing in it waits, and no copy blocks."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lens_hpc import config
from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.training.accelerator import accelerator_session
from lens_hpc.training.losses import receive_losses, send_losses
from lens_hpc.training.trainer import Trainer, make_trainer, train_step
from tests.gpu.pretend import PretendGpu, pretend_gpu

pytestmark = pytest.mark.slow

STEPS = 3
EVERYTHING: dict[str, Any] = {
    "augment": {"engine": "torch", "rotate90": 0.5, "shift": 2, "noise": 0.01},
    "optim": {"gradient_clip": 1.0, "ema_decay": 0.99},
    "loss": {"kind": "focal", "positive_weight": 2.0, "label_smoothing": 0.1},
    "train": {"channels_last": True, "micro_batch_size": 4},
}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendGpu]:
    """A GPU that Accelerate finds, too."""
    with pretend_gpu() as made:
        # torch's fake tensors would look for the real one.
        monkeypatch.setattr(FakeTensorMode, "avoid_device_init", True)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
        monkeypatch.setattr(nn.Module, "to", move)
        monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
        yield made


def move(model: nn.Module, device: Any = None, memory_format: Any = None) -> nn.Module:
    """Move a model as nn.Module.to does, which cannot always swap fake weights."""
    if not memory_format and {one.device.type for one in model.parameters()} == {device.type}:
        return model  # the optimizer has these very weights
    for part in model.modules():
        for name, one in part.named_parameters(recurse=False):
            moved = one.detach().to(device or one.device)
            if memory_format and one.dim() == 4:
                moved = moved.contiguous(memory_format=memory_format)
            part.register_parameter(name, nn.Parameter(moved, one.requires_grad))
        for name, one in part.named_buffers(recurse=False):
            part.register_buffer(name, one.to(device or one.device))
    return model


def settings_for(training: config.Train, precision: str, changes: dict[str, Any]) -> config.Train:
    tree = training.model_dump()
    for group, values in changes.items():
        tree[group].update(values)
    tree["train"]["precision"] = precision
    tree["train"]["trackers"] = ()
    return config.Train.model_validate(tree)


@pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_a_step_neither_waits_nor_blocks(
    training: config.Train, gpu: PretendGpu, precision: str, changes: dict[str, Any]
) -> None:
    settings = settings_for(training, precision, changes)
    manifest = read_manifest(settings.data.dataset)
    with ExitStack() as stack:
        accelerator = stack.enter_context(accelerator_session(settings))
        assert accelerator.device.type == "cuda"
        trainer = stack.enter_context(make_trainer(settings, accelerator, manifest))
        batches = trainer.train_loader(0, trainer.shares(0))
        trainer.model.train()
        # The first step makes the moments of AdamW, and the scale of fp16.
        results = [train_step(trainer, 0, batches)]
        gpu.forget()
        for step in range(1, STEPS):
            results.append(train_step(trainer, step, batches))
        assert gpu.faults() == []
        check_flags(trainer, precision)

        gpu.forget()
        sent = send_losses(trainer, results, STEPS)
        assert gpu.faults() == []
        assert len(gpu.copies) == 1
        torch.zeros((), device="cuda").add_(1)  # what was launched since
        assert receive_losses(trainer, sent) == [0.0] * STEPS
        assert gpu.faults() == []


def check_flags(trainer: Trainer, precision: str) -> None:
    assert all(group["fused"] for group in trainer.optimizer.param_groups)
    assert trainer.ema is None or trainer.ema.foreach
    assert (trainer.accelerator.scaler is not None) == (precision == "fp16")
