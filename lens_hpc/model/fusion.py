"""The fusion model: an image branch and a catalogue branch that meet in one logit.

    image (B, bands, h, w) -> timm backbone -> its positions as a sequence (B, C, L)
        -> Conv1d - norm - PReLU - Conv1d - norm - Mish -> x spatial attention -> mean over L
    features (B, F) -> Linear - Mish - Linear - PReLU
    concatenation -> Linear -> logit (B,)

Shapes: B batch, C channels, L positions of the backbone's last feature map, F catalogue features.
"""

from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from lens_hpc import UserError, config

# Backbones of fixed size see the cutout on a canvas of sky (zeros) that their patches and windows divide.
CANVAS_MULTIPLE = 32


def make_norm(kind: str, channels: int) -> nn.Module:
    """Of (B, channels, L): over the batch, or within each sample."""
    return nn.BatchNorm1d(channels) if kind == "batch" else nn.GroupNorm(1, channels)


class ConvBlocks(nn.Sequential):
    """(B, C, L) -> (B, D, L)."""

    def __init__(self, channels: int, widths: tuple[int, int], kernel: int, norm: str) -> None:
        super().__init__(
            nn.Conv1d(channels, widths[0], kernel, padding="same"),
            make_norm(norm, widths[0]),
            nn.PReLU(),
            nn.Conv1d(widths[0], widths[1], kernel, padding="same"),
            make_norm(norm, widths[1]),
            nn.Mish(),
        )


class SpatialAttention(nn.Sequential):
    """(B, D, L) -> (B, 1, L): the weight of each position, 0 to 1."""

    def __init__(self, channels: int, hidden: int, norm: str) -> None:
        super().__init__(
            nn.Conv1d(channels, hidden, 1),
            make_norm(norm, hidden),
            nn.PReLU(),
            nn.Conv1d(hidden, 1, 1),
            make_norm(norm, 1),
            nn.Sigmoid(),
        )


class ImageBranch(nn.Module):
    """(B, bands, h, w) -> (B, conv_channels[1])."""

    def __init__(self, settings: config.Model, bands: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.backbone, self.canvas = make_backbone(settings, bands, size)
        width = settings.conv_channels[1]
        channels = self._try_backbone(settings.backbone, torch.zeros(1, bands, *size))
        self.blocks = ConvBlocks(channels, settings.conv_channels, settings.conv_kernel, settings.norm)
        self.attention = SpatialAttention(width, settings.attention_channels, settings.norm)

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # noqa: D102 - the class gives the shapes
        x_BDL = self.blocks(self._positions(images))
        return (x_BDL * self.attention(x_BDL)).mean(dim=2)

    @torch.no_grad()
    def _try_backbone(self, name: str, images: torch.Tensor) -> int:
        """Channels that come out of it for such images; UserError when it cannot take them."""
        try:
            return self.eval()._positions(images).shape[1]
        except Exception as error:  # timm's models fail in ways of their own
            size = f"{images.shape[2]} x {images.shape[3]}"
            raise UserError(
                f"model.backbone = {name}: does not work on cutouts of {size} px ({type(error).__name__}: {error}); "
                "choose another, such as resnet50, convnext_tiny or vit_small_patch16_224"
            ) from error
        finally:
            self.train()

    def _positions(self, images: torch.Tensor) -> torch.Tensor:
        """The backbone's last feature map as a sequence (B, C, L), whatever its layout."""
        height, width = images.shape[-2:]
        below, right = self.canvas[0] - height, self.canvas[1] - width
        images = nn.functional.pad(images, (right // 2, right - right // 2, below // 2, below - below // 2))
        feature_map = self.backbone.forward_features(images)
        if feature_map.ndim == 3:  # a transformer's tokens (B, L, C), class and register tokens first
            return feature_map[:, getattr(self.backbone, "num_prefix_tokens", 0) :].transpose(1, 2)
        if getattr(self.backbone, "output_fmt", "NCHW") == "NHWC":
            return feature_map.flatten(1, 2).transpose(1, 2)
        return feature_map.flatten(2)


class FeatureBranch(nn.Sequential):
    """(B, F) -> (B, feature_channels[1])."""

    def __init__(self, features: int, widths: tuple[int, int]) -> None:
        super().__init__(nn.Linear(features, widths[0]), nn.Mish(), nn.Linear(widths[0], widths[1]), nn.PReLU())


class FusionModel(nn.Module):
    """Both branches, or one alone (`settings.inputs`); returns logits (B,)."""

    def __init__(self, settings: config.Model, bands: int, size: tuple[int, int], features: int) -> None:
        super().__init__()
        if settings.inputs != "image" and not features:
            raise UserError(f"model.inputs = {settings.inputs}: the dataset has no features; choose model.inputs=image")
        widths = {"image": settings.conv_channels[1], "features": settings.feature_channels[1]}
        used = ["image", "features"] if settings.inputs == "fusion" else [settings.inputs]
        self.image = ImageBranch(settings, bands, size) if "image" in used else None
        self.features = FeatureBranch(features, settings.feature_channels) if "features" in used else None
        self.head = nn.Linear(sum(widths[name] for name in used), 1)

    def forward(self, images: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Images (B, bands, h, w), normalised, and features (B, F) -> logits (B,)."""
        parts = [] if self.image is None else [self.image(images)]
        if self.features is not None:
            parts.append(self.features(features))
        joined = torch.cat(parts, dim=1)
        with torch.autocast(joined.device.type, enabled=False):  # 8 bits of a logit would tie the top of the ranking
            return self.head(joined.float()).squeeze(1)


def make_backbone(settings: config.Model, bands: int, size: tuple[int, int]) -> tuple[Any, tuple[int, int]]:
    """A timm model without its classifier, and the size of the images that it takes: `size` or a little more."""
    if not timm.is_model(settings.backbone):
        near = timm.list_models(f"*{settings.backbone.split('_')[0]}*")[:5] or timm.list_models("resnet*")[:5]
        raise UserError(f"model.backbone = {settings.backbone}: timm has no such model; it has {', '.join(near)}, ...")
    pretrained = timm.get_pretrained_cfg(settings.backbone, allow_unregistered=True)
    options: dict[str, Any] = {"in_chans": bands, "num_classes": 0, **_weights(settings)}
    if pretrained is not None and pretrained.fixed_input_size:
        size = (_round_up(size[0]), _round_up(size[1]))
        options["img_size"] = size
    try:
        return timm.create_model(settings.backbone, **options), size
    except Exception as error:  # timm's models fail in ways of their own
        if settings.weights == "none":
            raise UserError(
                f"model.backbone = {settings.backbone}: cannot be built for {size[0]} x {size[1]} px: {error}"
            ) from error
        raise UserError(
            f"model.weights = {settings.weights}: no weights for {settings.backbone} could be loaded "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); give another model.weights=FILE, or train from "
            "scratch with model.weights=none"
        ) from error


def _round_up(side: int) -> int:
    return -(-side // CANVAS_MULTIPLE) * CANVAS_MULTIPLE


def _weights(settings: config.Model) -> dict[str, Any]:
    if settings.weights == "none":
        return {"pretrained": False}
    file = pretrained_file(settings) if settings.weights == "pretrained" else Path(settings.weights)
    if not file.is_file() and settings.weights == "pretrained":
        raise UserError(
            f"model.weights = pretrained: {file} is not there; on a machine with internet run lens-hpc weights CONFIG, "
            "or train from scratch with model.weights=none"
        )
    if not file.is_file():
        raise UserError(f"model.weights = {settings.weights}: no such file; valid: none, pretrained, a FILE or a RUN")
    return {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file)}}


def pretrained_file(settings: config.Model) -> Path:
    """Where timm's weights of the backbone lie."""
    return settings.weights_folder / f"{settings.backbone}.safetensors"
