"""How the samples of a split are read: pixels, features and labels, normalised and augmented.

The statistics are those of the training split for every split, and come with the run, not with the
dataset that is scored.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from lens_hpc import config
from lens_hpc.dataset.feature_scaling import FeatureScaler, feature_width, spread
from lens_hpc.dataset.manifest import Distribution, Manifest, Statistics
from lens_hpc.dataset.split import Split
from lens_hpc.dataset.survey_kind import SurveyKind
from lens_hpc.errors import UserError
from lens_hpc.loading.augmentation_base import Augmentation

DEFAULT_MODEL = config.Model()

# Where `asinh` turns from linear to logarithmic, in standard deviations of the sky.
LINEAR_SIGMAS = 2.0


class Samples:
    """The samples of a split as the model sees them.

    `manifest` is that of the training, whose statistics normalise. `image_scale` is that of
    config.Data. Samples are augmented if there is an `augmentation`. The settings of the `model`
    say what it sees of the features: for images alone they are read as zeros, and may be other ones
    than in training.
    With `verify`, every block of rows is checked against its checksum before it is first read.
    With `soft_labels`, rows that have a soft label are trained against it, by their weight.

    Raises UserError when the split is of another kind than the training's, or does not suit the
    augmentation, or when the training lacks the statistics that `image_scale` needs.
    """

    def __init__(
        self,
        split: Split,
        manifest: Manifest,
        image_scale: str,
        augmentation: Augmentation | None = None,
        model: config.Model = DEFAULT_MODEL,
        verify: bool = False,
        soft_labels: bool = False,
    ) -> None:
        features = model.inputs != "image"
        check_same_kind(split.manifest.kind, manifest.kind, features)
        if augmentation:
            augmentation.check(manifest.height, manifest.width)

        assert manifest.statistics is not None
        if image_scale == "asinh" and not manifest.statistics.bands:
            raise UserError(
                f"data.image_scale = asinh: dataset {manifest.name} keeps no percentiles of its "
                "pixels, as a version before 0.2 packed it; pack it anew, or choose cutout or split"
            )
        self.split = split
        self.manifest = manifest
        self.augmentation = augmentation
        self.feature_width = feature_width(model, manifest)
        self.scale_features = FeatureScaler(model, manifest) if features else None
        self.verify = verify
        self.soft_labels = soft_labels
        self.image_scale = image_scale
        self.statistics = manifest.statistics

    def __getstate__(self) -> dict[str, Any]:
        """Leave the map of the shards behind when samples are sent to another process."""
        return {name: value for name, value in self.__dict__.items() if name != "_row_views"}

    @property
    def need_processes(self) -> bool:
        """Whether threads would wait for each other."""
        augmented_slowly = self.augmentation is not None and self.augmentation.is_slow
        return self.split.compressed or augmented_slowly

    @property
    def stored_dtype(self) -> torch.dtype:
        """Type of the stored pixels."""
        return torch.from_numpy(np.empty(0, self.split.dtype("images"))).dtype

    def map_shards(self) -> None:
        """Map the shards now: threads that share these samples must not all begin with it."""
        _ = self._row_views

    @cached_property
    def _row_views(self) -> torch.Tensor:
        # torch warns that it has no tensor that is read only; nothing writes to this one. Warning
        # filters are the whole process's, so two threads must not do this at once.
        with warnings.catch_warnings(action="ignore"):
            return torch.from_numpy(self.split.row_views("images"))

    def read_images(self, rows: np.ndarray, out: torch.Tensor) -> None:
        """Read the stored pixels of these rows into `out` (B, bands, height, width).

        Raises UserError for damaged rows, if they are verified.
        """
        if self.verify:
            self.split.check_blocks(rows)
        if self.split.compressed:
            stored = self.split.take("images", rows)
            out.copy_(torch.from_numpy(stored))
            return

        # One native call for all rows, whichever shards they are in.
        offsets = torch.from_numpy(self.split.row_offsets("images", rows))
        out_bytes = out.view(torch.uint8).view(len(rows), -1)
        torch.index_select(self._row_views, 0, offsets, out=out_bytes)

    def read_rest(
        self,
        rows: np.ndarray,
        features: torch.Tensor,
        labels: torch.Tensor,
        weights: torch.Tensor,
    ) -> None:
        """Read inputs of features (B, feature_width), labels and weights (B,) of these rows."""
        if self.scale_features:
            stored = self.split.take("features", rows)
            features.copy_(torch.from_numpy(self.scale_features(stored)))
        else:
            features.zero_()

        stored_labels = self.split.take("labels", rows)
        labels.copy_(torch.from_numpy(stored_labels))
        weights.fill_(1)
        if self.soft_labels:
            targets = torch.from_numpy(self.split.take("targets", rows))
            torch.where(targets.isnan(), labels, targets, out=labels)
            weights.copy_(torch.from_numpy(self.split.take("weights", rows)))

    def normalise(self, images: torch.Tensor) -> None:
        """Normalise float32 cutouts in place."""
        scale_images(images, self.image_scale, self.statistics)

    def prepare(self, images: torch.Tensor, epoch: int, draws: np.ndarray) -> None:
        """Normalise and augment float32 cutouts in place."""
        self.normalise(images)
        if self.augmentation:
            self.augmentation(images, epoch, draws)

    def draw(self, epoch: int, draws: np.ndarray) -> dict[str, torch.Tensor]:
        """Draw ahead on the CPU what `prepare_drawn` needs: tensors (B, ...) by name."""
        if self.augmentation is None or not self.augmentation.draws_ahead:
            return {}
        return self.augmentation.draw(epoch, draws, self.split.shape("images"))

    def prepare_drawn(
        self, images: torch.Tensor, drawn: Mapping[str, torch.Tensor], epoch: int, draws: np.ndarray
    ) -> None:
        """Normalise and augment float32 cutouts in place, with what was drawn ahead for them."""
        self.normalise(images)
        if self.augmentation is None:
            return
        if self.augmentation.draws_ahead:
            self.augmentation.apply(images, drawn)
        else:
            self.augmentation(images, epoch, draws)


def scale_images(images: torch.Tensor, image_scale: str, statistics: Statistics) -> None:
    """Normalise cutouts in place as `image_scale` of config.Data says, by training's statistics."""
    if image_scale == "asinh":
        stretch_images(images, statistics.bands)
    else:
        normalise_images(images, statistics.image_max if image_scale == "split" else None)


def stretch_images(images: torch.Tensor, bands: Sequence[Distribution]) -> None:
    """Stretch cutouts (B, bands, height, width) in place, for `bands` as training has them.

    It is asinh((x - sky) / s), divided by its value for the brightest pixel of training, so that
    this is 1: linear within the noise and logarithmic above it, as in the magnitudes of Lupton,
    Gunn & Szalay 1999 (AJ 118, 1406). The sky is the median of all pixels, and s is twice the
    distance from there to the percentile 16, which bright pixels leave alone.
    """
    for number, band in enumerate(bands):
        sky = band.percentiles["50"]
        noise = sky - band.percentiles["16"] or spread(band) or 1.0
        linear = LINEAR_SIGMAS * noise
        brightest = math.asinh((band.max - sky) / linear) or 1.0

        # Plain numbers alone: nothing is copied to a GPU for it.
        image = images[:, number]
        image.sub_(sky).div_(linear).asinh_().div_(brightest)


def normalise_images(images: torch.Tensor, maximum: float | None) -> None:
    """Divide cutouts (B, bands, height, width) by `maximum`, or each by its own where that is None.

    This changes the tensor that is given, which must be float32 and the caller's own: cutouts that
    somebody else may still use (a user's array, a cache) are copied first. Where the maximum is not
    positive, the pixels stay as they are.
    """
    if maximum is None:
        brightest = images.amax((1, 2, 3), keepdim=True)
        images /= torch.where(brightest > 0, brightest, 1)
    elif maximum > 0:
        images /= maximum


def check_same_kind(scored: SurveyKind, training: SurveyKind, features: bool = True) -> None:
    """Raise UserError when a survey differs in kind from the one that the model was trained on.

    These are the bands and the size of the cutouts and, with `features`, the names of these.
    """
    kinds = ["bands", "height", "width"]
    if features:
        kinds.append("features")

    for kind in kinds:
        here = getattr(scored, kind)
        there = getattr(training, kind)
        if here != there:
            raise UserError(
                f"survey {scored.name}: {kind} are {here}, but the run was trained with {there}"
            )
