"""The graph that is exported: from a survey's values as they are stored to logits.

All that Finder.score does before and behind the network is inside, so that whoever runs the graph
needs no statistics of training.
"""

import numpy as np
import torch
from torch import nn

from lens_hpc.dataset.feature_scaling import CLIP_SIGMAS, FeatureScaler, feature_width
from lens_hpc.dataset.manifest import Statistics
from lens_hpc.loading.samples import scale_images
from lens_hpc.model.trained import TrainedModel
from lens_hpc.scoring.batches import needs_light


class ScoringGraph(nn.Module):
    """Scores cutouts (B, bands, height, width) and features (B, F), both float32: logits (B,).

    Cutouts are in the units of the training, never normalised, features as the catalogue has them,
    NaN where missing. A model of images alone takes no features. The logit is NaN where
    Finder.score refuses or gives none: for pixels that are NaN or infinite, infinite features, and
    cutouts without a pixel above 0 where each is scaled by its brightest.
    """

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__()
        manifest, settings = trained.manifest, trained.settings
        assert manifest.statistics is not None
        self.statistics = manifest.statistics
        self.image_scale = settings.data.image_scale
        self.needs_light = needs_light(trained)

        self.feature_width = feature_width(settings.model, manifest)
        self.feature_inputs = None
        if trained.sees_features:
            self.feature_inputs = FeatureInputs(FeatureScaler(settings.model, manifest))
        self.model = trained.model
        self.eval()

    def forward(self, images: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        """Return logits (B,)."""
        is_fit = images.isfinite().flatten(1).all(1)
        if self.needs_light:
            is_fit = is_fit & (images.amax((1, 2, 3)) > 0)

        if self.feature_inputs is None or features is None:
            inputs = images.new_zeros(images.shape[0], self.feature_width)
        else:
            is_fit = is_fit & ~features.isinf().any(1)
            inputs = self.feature_inputs(features)

        # Normalising is in place, so it works on a copy.
        pixels = images.clone()
        scale_images(pixels, self.image_scale, self.statistics)
        return torch.where(is_fit, self.model(pixels, inputs), torch.nan)


class FeatureInputs(nn.Module):
    """Makes inputs (B, inputs) of raw features (B, F), as lens_hpc.dataset.feature_scaling does."""

    median: torch.Tensor
    centre: torch.Tensor
    unit: torch.Tensor

    def __init__(self, scaler: FeatureScaler) -> None:
        super().__init__()
        self.clip = scaler.clip
        self.indicated = scaler.indicated
        for name in ("median", "centre", "unit"):
            self.register_buffer(name, torch.from_numpy(getattr(scaler, name)))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return scaled features and, behind them, indicators of missing values."""
        missing = features.isnan()
        filled = torch.where(missing, self.median, features)
        scaled = (filled - self.centre) / self.unit
        if self.clip:
            scaled = scaled.clamp(-CLIP_SIGMAS, CLIP_SIGMAS)
        return torch.cat([scaled, missing[:, self.indicated].to(scaled)], dim=1)


def example_inputs(trained: TrainedModel, count: int) -> tuple[torch.Tensor, ...]:
    """Draw inputs of a graph within the range of training: images and, if it sees any, features.

    The same numbers are drawn each time.
    """
    manifest = trained.manifest
    statistics = manifest.statistics
    assert statistics is not None
    rng = np.random.default_rng(0)

    # Most pixels of a cutout are much fainter than its brightest.
    shape = count, len(manifest.bands), manifest.height, manifest.width
    images = statistics.image_max * rng.random(shape) ** 4
    inputs = [images]
    if trained.sees_features:
        inputs.append(_draw_features(rng, statistics, count))
    return tuple(torch.from_numpy(one.astype(np.float32)) for one in inputs)


def _draw_features(rng: np.random.Generator, statistics: Statistics, count: int) -> np.ndarray:
    """Draw features (count, F) between their extremes; one in ten is missing."""
    columns = []
    for knots in zip(
        statistics.feature_min, statistics.feature_median, statistics.feature_max, strict=True
    ):
        drawn = np.interp(rng.random(count), (0, 0.5, 1), knots)
        columns.append(np.where(rng.random(count) < 0.1, np.nan, drawn))
    return np.column_stack(columns)
