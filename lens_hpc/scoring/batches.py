"""Scores of cutouts that lie in memory, batch by batch, by one trained model or several."""

from collections.abc import Sequence

import numpy as np
import torch

from lens_hpc.dataset.feature_scaling import FeatureScaler, feature_width
from lens_hpc.errors import UserError
from lens_hpc.loading.samples import scale_images
from lens_hpc.model.trained import TrainedModel
from lens_hpc.process import float32_kept
from lens_hpc.scoring.views import OverViews

FIRST_SCHEMA_WITHOUT_DARK = 3
"""From this schema on, `pack` refuses cutouts without a pixel above 0."""


class BatchScorer:
    """Trained models that score a batch of cutouts on one device.

    `tta` is the test-time augmentation: none, flips or d4. Raises UserError where that does not
    suit the cutouts.
    """

    def __init__(
        self, members: Sequence[TrainedModel], device: torch.device, tta: str = "none"
    ) -> None:
        self.device = device
        self._members = [_Member(member, device, tta) for member in members]

    @torch.inference_mode()
    def __call__(self, images: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Return logits of images (B, bands, height, width), raw as features (B, F).

        They are (members, B) float32.
        """
        with float32_kept():
            return np.stack([member.score(images, features) for member in self._members])

    @torch.inference_mode()
    def embed(self, images: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Return what the models' last layers see of such a batch, side by side: (B, D) float32.

        Raises UserError for a model of one's own that does not tell.
        """
        with float32_kept():
            return np.hstack([member.embed(images, features) for member in self._members])


class _Member:
    """One trained model, and how it wants its inputs."""

    def __init__(self, trained: TrainedModel, device: torch.device, tta: str) -> None:
        manifest, settings = trained.manifest, trained.settings
        assert manifest.statistics is not None
        size = manifest.height, manifest.width
        self.model = OverViews(trained.model, tta, size).to(device).eval()
        self.folder = trained.folder
        self.device = device
        self.image_scale = settings.data.image_scale
        self.statistics = manifest.statistics

        self.feature_width = feature_width(settings.model, manifest)
        self.scale_features = None
        if trained.sees_features:
            self.scale_features = FeatureScaler(settings.model, manifest)

    def score(self, images: np.ndarray, features: np.ndarray) -> np.ndarray:
        return self.model(*self._inputs(images, features)).float().cpu().numpy()

    def embed(self, images: np.ndarray, features: np.ndarray) -> np.ndarray:
        embed = getattr(self.model.model, "embed", None)
        if embed is None:
            raise UserError(
                f"{self.folder}: its model has no method embed(images, features), as the fusion "
                "model has; write one, or name another run"
            )
        return embed(*self._inputs(images, features)).float().cpu().numpy()

    def _inputs(
        self, images: np.ndarray, features: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images and features as the model was trained on them."""
        # Normalising is in place, so it works on a copy.
        pixels = torch.tensor(images, dtype=torch.float32, device=self.device)
        scale_images(pixels, self.image_scale, self.statistics)

        if self.scale_features is None:
            inputs = torch.zeros(len(images), self.feature_width)
        else:
            inputs = torch.from_numpy(self.scale_features(features))
        return pixels, inputs.to(self.device)


def check_alike(members: Sequence[TrainedModel]) -> None:
    """Raise UserError unless all members see the same kind of cutouts and features."""
    first = members[0].manifest
    for member in members[1:]:
        for kind in ("bands", "height", "width", "features"):
            here, there = getattr(member.manifest, kind), getattr(first, kind)
            if here != there:
                raise UserError(
                    f"{member.folder}: its {kind} are {here}, those of {members[0].folder} "
                    f"{there}; an ensemble needs runs on cutouts and features of one kind"
                )


def needs_light(member: TrainedModel) -> bool:
    """Say whether a model scales each cutout by its brightest pixel, which must be above 0.

    Datasets of schema 2 had darker ones, left as they were, and their runs go on with them so.
    """
    is_older = member.manifest.schema_version < FIRST_SCHEMA_WITHOUT_DARK
    return member.settings.data.image_scale == "cutout" and not is_older
