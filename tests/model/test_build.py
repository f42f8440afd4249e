from pathlib import Path

import pytest
import timm
import torch
import torch.utils.checkpoint
from torch import nn

from lens_hpc import config
from lens_hpc.dataset.feature_scaling import feature_width
from lens_hpc.dataset.manifest import Manifest, read_manifest
from lens_hpc.model.build import build_model, find_unused

FAMILIES = timm.list_models("test_*")


@pytest.fixture
def manifest(dataset: Path) -> Manifest:
    return read_manifest(dataset).model_copy(update={"height": 64, "width": 64})


def model_of(backbone: str) -> config.Model:
    return config.Model(backbone=backbone, weights="none", conv_channels=(16, 8))


def unused(manifest: Manifest, backbone: str) -> list[str]:
    settings = model_of(backbone)
    return find_unused(build_model(settings, manifest), settings, manifest)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", FAMILIES)
def test_unused_is_what_a_training_step_leaves_without_gradient(
    manifest: Manifest, backbone: str
) -> None:
    settings = model_of(backbone)
    model = build_model(settings, manifest)
    found = unused(manifest, backbone)

    images = torch.rand(3, len(manifest.bands), 64, 64)
    features = torch.rand(3, feature_width(settings, manifest))
    model(images, features).sum().backward()
    assert found == [name for name, one in model.named_parameters() if one.grad is None]


def test_there_are_families_that_leave_parameters_unused(manifest: Manifest) -> None:
    assert unused(manifest, "test_convnext")
    assert not unused(manifest, "test_resnet")


def test_looking_for_unused_parameters_draws_no_random_number(manifest: Manifest) -> None:
    settings = model_of("test_resnet")
    model = build_model(settings, manifest)
    random_state = torch.get_rng_state()
    find_unused(model, settings, manifest)
    assert torch.equal(torch.get_rng_state(), random_state)


class OnesOwn(nn.Module):
    """A model of one's own, as awkward as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = torch.nn.utils.weight_norm(nn.Conv2d(2, 3, 1))
        self.while_scoring = nn.Parameter(torch.ones(()))
        self.never = nn.Parameter(torch.ones(()))
        self.frozen_by_its_owner = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, images: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        # Its inner gradients are computed by a backward pass of their own.
        inputs = images.requires_grad_()
        self.attention = torch.utils.checkpoint.checkpoint(self.trunk, inputs, use_reentrant=True)
        logits = self.attention.mean((1, 2, 3))
        return logits if self.training else logits * self.while_scoring


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_models_of_ones_own_are_tried_as_they_train(manifest: Manifest) -> None:
    found = find_unused(OnesOwn(), config.Model(), manifest)
    assert found == ["while_scoring", "never"]
