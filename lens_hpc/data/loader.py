"""Batches: what the model sees, made from the rows of a split.

    row numbers (order.py) -> mapped rows (shards.py) -> normalise -> augment (training only) -> Batch of tensors

A batch is the unit of work: a loader worker is handed the row numbers of a whole batch and returns it whole. The
statistics are those of the training split for every split, and come with the run, not with the dataset that is scored.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from lens_hpc import UserError
from lens_hpc.data.augment import Augmentation
from lens_hpc.data.shards import Manifest, Split


class Batch(NamedTuple):
    """Tensors of B samples; `rows` are their numbers in the split."""

    images: torch.Tensor
    features: torch.Tensor
    labels: torch.Tensor
    rows: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


def normalise_images(images: np.ndarray, maximum: float | None) -> np.ndarray:
    """x / max, float32: by `maximum`, or by each cutout's own where that is None; (B, bands, height, width)."""
    images = images.astype(np.float32)
    if maximum is None:
        scale = images.max(axis=(1, 2, 3), keepdims=True)
        scale[scale <= 0] = 1
        return images / scale
    return images / np.float32(maximum if maximum > 0 else 1)


def normalise_features(features: np.ndarray, manifest: Manifest) -> np.ndarray:
    """(x - min) / (max - min) with training's statistics, a missing value being training's median; (B, F) float32."""
    statistics = manifest.statistics
    assert statistics is not None
    low, high, median = np.array(
        [statistics.feature_min, statistics.feature_max, statistics.feature_median], dtype=np.float32
    )
    filled = np.where(np.isnan(features), median, features)
    span = np.where(high > low, high - low, 1)
    return (filled - low) / span


class Samples(Dataset[Batch]):
    """Batches of a split by (epoch, row numbers), normalised with `training`'s statistics."""

    def __init__(
        self, split: Split, training: Manifest, image_scale: str, augmentation: Augmentation | None = None
    ) -> None:
        _check_same_kind(split.manifest, training)
        self.split, self.training, self.augmentation = split, training, augmentation
        assert training.statistics is not None
        self.image_maximum = training.statistics.image_max if image_scale == "split" else None

    def __getitem__(self, request: tuple[int, np.ndarray]) -> Batch:
        epoch, rows = request
        images = normalise_images(self.split.take("images", rows), self.image_maximum)
        if self.augmentation:
            augmented = [self.augmentation(image, epoch, int(row)) for image, row in zip(images, rows, strict=True)]
            pixels = torch.stack(augmented)
        else:
            pixels = torch.from_numpy(images)
        features = normalise_features(self.split.take("features", rows), self.training)
        labels = self.split.take("labels", rows).astype(np.float32)
        return Batch(pixels, torch.from_numpy(features), torch.from_numpy(labels), torch.from_numpy(rows))


def load(samples: Samples, epoch: int, batches: Iterable[np.ndarray], workers: int) -> Iterable[Batch]:
    """Iterate over the batches with these row numbers, in this order."""
    requests = [(epoch, rows) for rows in batches]
    return DataLoader(
        samples,
        batch_size=None,
        sampler=requests,
        num_workers=min(workers, len(requests)),
        pin_memory=torch.cuda.is_available(),
    )


def _check_same_kind(scored: Manifest, training: Manifest) -> None:
    """The model can only see what it was trained on."""
    for what in ("bands", "height", "width", "features"):
        here, there = getattr(scored, what), getattr(training, what)
        if here != there:
            raise UserError(f"dataset {scored.name}: {what} are {here}, but the run was trained with {there}")
