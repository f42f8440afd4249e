from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from lens_hpc import config
from lens_hpc.errors import UserError
from lens_hpc.model.fusion import FusionModel


def model(
    settings: config.Model, bands: int = 3, size: tuple[int, int] = (64, 64), features: int = 3
) -> FusionModel:
    return FusionModel(settings, bands, size, features).eval()


def test_the_default_is_the_authors_architecture() -> None:
    fusion = model(config.Model(weights="none"))
    assert fusion.image is not None
    assert [
        tuple(layer.weight.shape)
        for layer in fusion.image.blocks
        if isinstance(layer, torch.nn.Conv1d)
    ] == [
        (512, 2048, 3),
        (256, 512, 3),
    ]
    assert [type(layer).__name__ for layer in fusion.image.blocks] == [
        "Conv1d", "BatchNorm1d", "PReLU", "Conv1d", "BatchNorm1d", "Mish",
    ]  # fmt: skip
    assert [type(layer).__name__ for layer in fusion.image.attention] == [
        "Conv1d", "BatchNorm1d", "PReLU", "Conv1d", "BatchNorm1d", "Sigmoid",
    ]  # fmt: skip
    assert fusion.features is not None
    assert [type(layer).__name__ for layer in fusion.features] == [
        "Linear",
        "Mish",
        "Linear",
        "PReLU",
    ]
    assert tuple(fusion.head.weight.shape) == (1, 512)
    assert not any("fc." in name for name in fusion.state_dict())


@pytest.mark.parametrize(
    "backbone", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "lcnet_050"]
)
@pytest.mark.parametrize(("bands", "size"), [(1, (41, 41)), (4, (101, 60))])
def test_any_backbone_and_size_gives_a_logit(
    backbone: str, bands: int, size: tuple[int, int]
) -> None:
    fusion = model(config.Model(backbone=backbone, weights="none"), bands, size, features=2)
    assert fusion(torch.randn(2, bands, *size), torch.randn(2, 2)).shape == (2,)


@pytest.mark.parametrize("inputs", ["image", "features"])
def test_a_branch_alone_is_blind_to_the_other(small_model: config.Model, inputs: str) -> None:
    alone = model(small_model.model_copy(update={"inputs": inputs}))
    images, features = torch.randn(2, 3, 64, 64), torch.randn(2, 3)
    logits = alone(images, features)
    other = (images, features + 1) if inputs == "image" else (images + 1, features)
    assert torch.equal(alone(*other), logits)
    changed = (images + 1, features) if inputs == "image" else (images, features + 1)
    assert not torch.equal(alone(*changed), logits)


def test_fusion_sees_both(small_model: config.Model) -> None:
    fusion = model(small_model)
    images, features = torch.randn(2, 3, 64, 64), torch.randn(2, 3)
    logits = fusion(images, features)
    assert not torch.equal(fusion(images + 1, features), logits)
    assert not torch.equal(fusion(images, features + 1), logits)


def test_all_parameters_are_trained(small_model: config.Model) -> None:
    fusion = model(small_model).train()
    fusion(torch.randn(4, 3, 64, 64), torch.randn(4, 3)).sum().backward()
    assert all(parameter.grad is not None for parameter in fusion.parameters())


def test_features_are_needed_unless_the_image_is_enough(small_model: config.Model) -> None:
    with pytest.raises(UserError, match=r"choose model\.inputs=image"):
        model(small_model, features=0)
    assert model(small_model.model_copy(update={"inputs": "image"}), features=0).features is None


def test_weights_from_a_file_fit_other_numbers_of_bands(
    tmp_path: Path, small_model: config.Model
) -> None:
    source = timm.create_model("test_resnet", pretrained=False)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    settings = small_model.model_copy(update={"weights": str(tmp_path / "w.safetensors")})
    loaded = model(settings, bands=3)
    assert loaded.image is not None
    name = "layer1.0.conv1.weight"
    assert torch.equal(loaded.image.backbone.state_dict()[name], source.state_dict()[name])
    assert model(settings, bands=5)(torch.randn(1, 5, 64, 64), torch.randn(1, 3)).shape == (1,)


def test_what_cannot_be_built_is_named(tmp_path: Path, small_model: config.Model) -> None:
    with pytest.raises(
        UserError, match=r"model\.backbone = resnet5O: timm has no such model; it has resnet"
    ):
        model(small_model.model_copy(update={"backbone": "resnet5O"}))
    with pytest.raises(UserError, match="no such file; valid: none, pretrained"):
        model(small_model.model_copy(update={"weights": "nowhere.pth"}))
    (tmp_path / "w.safetensors").write_bytes(b"junk")
    with pytest.raises(UserError, match="no weights for test_resnet could be loaded"):
        model(small_model.model_copy(update={"weights": str(tmp_path / "w.safetensors")}))


@pytest.mark.parametrize("training", [True, False])
def test_one_cutout_of_one_position_is_scored_as_in_a_batch(training: bool) -> None:
    settings = config.Model(backbone="test_resnet", weights="none", norm="layer")
    fusion = model(settings, size=(32, 32))
    assert fusion.image is not None
    fusion.image.blocks.train(training)
    fusion.image.attention.train(training)
    images, features = torch.rand(2, 3, 32, 32), torch.rand(2, 3)
    together = fusion(images, features)
    torch.testing.assert_close(fusion(images[:1], features[:1]), together[:1])


@pytest.mark.parametrize(
    ("backbone", "size", "grid"),
    [
        ("test_resnet", (64, 64), (2, 2)),
        ("test_resnet", (64, 160), (2, 5)),
        ("test_resnet", (33, 64), (2, 2)),
        ("test_vit", (100, 60), (8, 4)),
    ],
)
def test_the_attention_map_is_the_weights_where_they_are(
    backbone: str, size: tuple[int, int], grid: tuple[int, int]
) -> None:
    settings = config.Model(backbone=backbone, weights="none", norm="layer")
    image = model(settings, size=size).image
    assert image is not None
    images = torch.rand(2, 3, *size)
    weights = image.attention(image.blocks(image._positions(images)))
    assert image._grid(weights.shape[2]) == grid

    found = image.attention_map(images)
    assert found.shape == (2, *size)
    assert found.min() >= 0
    assert found.max() <= 1
    # The middle of a position has its weight; the pixel there lies half a pixel off at most on each
    # axis, so that its neighbours' weights come in by that share.
    cell = image.canvas[0] / grid[0], image.canvas[1] / grid[1]
    share = 0.5 / cell[0] + 0.5 / cell[1]
    tolerance = share * float(weights.max() - weights.min()) + 1e-6
    top, left = (image.canvas[0] - size[0]) // 2, (image.canvas[1] - size[1]) // 2
    row, column = int(1.5 * cell[0]) - top, int(0.5 * cell[1]) - left
    here = weights[:, 0, grid[1]]
    torch.testing.assert_close(found[:, row, column], here, atol=tolerance, rtol=0)
