"""The fusion model: an image branch and a catalogue branch that meet in one logit.

    image (B, bands, h, w) -> timm backbone -> its positions as a sequence (B, C, L)
        -> Conv1d - norm - PReLU - Conv1d - norm - Mish -> x spatial attention -> mean over L
    features (B, F) -> Linear - Mish - Linear - PReLU
    concatenation -> Linear -> logit (B,)

Shapes: B batch, C channels, D channels of the Conv1d blocks, L positions of the backbone's last
feature map, F catalogue features.
"""

import math

import torch
from torch import nn

from lens_hpc import config
from lens_hpc.errors import UserError
from lens_hpc.model.backbone import make_backbone


class SampleNorm(nn.GroupNorm):
    """(B, C, L) -> (B, C, L): normalised within each sample, over its channels and positions.

    torch's own refuses one channel of one position where there is one sample, but not where there
    are two: a score would depend on its company.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise x (B, C, L)."""
        return torch.group_norm(x, 1, self.weight, self.bias, self.eps)


def make_norm(kind: str, channels: int) -> nn.Module:
    """Make a normalisation of (B, channels, L): over the batch, or within each sample."""
    return nn.BatchNorm1d(channels) if kind == "batch" else SampleNorm(channels)


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
    """(B, bands, h, w) -> (B, D)."""

    def __init__(self, settings: config.Model, bands: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.backbone, self.canvas = make_backbone(settings, bands, size)
        channels = self._try_backbone(settings.backbone, torch.zeros(1, bands, *size))

        width = settings.conv_channels[1]
        self.blocks = ConvBlocks(
            channels, settings.conv_channels, settings.conv_kernel, settings.norm
        )
        self.attention = SpatialAttention(width, settings.attention_channels, settings.norm)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return features of images (B, bands, h, w), (B, D)."""
        x_BDL = self.blocks(self._positions(images))
        return (x_BDL * self.attention(x_BDL)).mean(dim=2)

    def attention_map(self, images: torch.Tensor) -> torch.Tensor:
        """Return the weight, 0 to 1, that each pixel of images (B, bands, h, w) has: (B, h, w).

        The few positions that the weights are of are interpolated to the pixels.
        """
        weights_B1L = self.attention(self.blocks(self._positions(images)))
        coarse = weights_B1L.unflatten(2, self._grid(weights_B1L.shape[2]))
        canvas = nn.functional.interpolate(coarse, self.canvas, mode="bilinear")

        height, width = images.shape[-2:]
        top = (self.canvas[0] - height) // 2
        left = (self.canvas[1] - width) // 2
        return canvas[:, 0, top : top + height, left : left + width]

    def _grid(self, positions: int) -> tuple[int, int]:
        """Return the rows and columns that so many positions lie in: as the canvas is shaped."""
        height, width = self.canvas
        divisors = [n for n in range(1, positions + 1) if positions % n == 0]
        rows = min(divisors, key=lambda n: abs(math.log(n * n / positions * width / height)))
        return rows, positions // rows

    @torch.no_grad()
    def _try_backbone(self, name: str, images: torch.Tensor) -> int:
        """Return the channels that come out for such images. Raises UserError when it fails."""
        try:
            return self.eval()._positions(images).shape[1]
        except Exception as error:  # timm's models fail in ways of their own
            size = f"{images.shape[2]} x {images.shape[3]}"
            raise UserError(
                f"model.backbone = {name}: does not work on cutouts of {size} px "
                f"({type(error).__name__}: {error}); choose another, such as resnet50, "
                "convnext_tiny or vit_small_patch16_224"
            ) from error
        finally:
            self.train()

    def _positions(self, images: torch.Tensor) -> torch.Tensor:
        """Return the backbone's last feature map as a sequence (B, C, L), whatever its layout."""
        height, width = images.shape[-2:]
        below = self.canvas[0] - height
        right = self.canvas[1] - width
        border = (right // 2, right - right // 2, below // 2, below - below // 2)
        images = nn.functional.pad(images, border)

        feature_map = self.backbone.forward_features(images)
        if feature_map.ndim == 3:
            # A transformer's tokens (B, L, C), class and register tokens first.
            prefix = getattr(self.backbone, "num_prefix_tokens", 0)
            return feature_map[:, prefix:].transpose(1, 2)
        if getattr(self.backbone, "output_fmt", "NCHW") == "NHWC":
            return feature_map.flatten(1, 2).transpose(1, 2)
        return feature_map.flatten(2)


class FeatureBranch(nn.Sequential):
    """(B, F) -> (B, feature_channels[1])."""

    def __init__(self, features: int, widths: tuple[int, int]) -> None:
        super().__init__(
            nn.Linear(features, widths[0]),
            nn.Mish(),
            nn.Linear(widths[0], widths[1]),
            nn.PReLU(),
        )


class FusionModel(nn.Module):
    """Both branches, or one alone (`settings.inputs`), and a head that makes one logit of them."""

    def __init__(
        self, settings: config.Model, bands: int, size: tuple[int, int], features: int
    ) -> None:
        super().__init__()
        uses_image = settings.inputs in {"fusion", "image"}
        uses_features = settings.inputs in {"fusion", "features"}
        if uses_features and not features:
            raise UserError(
                f"model.inputs = {settings.inputs}: the dataset has no features; "
                "choose model.inputs=image"
            )

        channels = 0
        self.image = None
        self.features = None
        if uses_image:
            self.image = ImageBranch(settings, bands, size)
            channels += settings.conv_channels[1]
        if uses_features:
            self.features = FeatureBranch(features, settings.feature_channels)
            channels += settings.feature_channels[1]
        self.head = self.make_head(settings, channels)

    def make_head(self, settings: config.Model, channels: int) -> nn.Module:
        """Make the head, (B, channels) -> (B, 1). A model of one's own may make another."""
        return nn.Linear(channels, 1)

    def forward(self, images: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Score images (B, bands, h, w), normalised, and features (B, F): logits (B,)."""
        joined = self.embed(images, features)

        # The 8 bits of a bfloat16 logit would tie the top of the ranking.
        with torch.autocast(joined.device.type, enabled=False):
            return self.head(joined.float()).squeeze(1)

    def embed(self, images: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Return what the head sees of images and features: both branches, (B, channels)."""
        parts = []
        if self.image is not None:
            parts.append(self.image(images))
        if self.features is not None:
            parts.append(self.features(features))
        return torch.cat(parts, dim=1)
