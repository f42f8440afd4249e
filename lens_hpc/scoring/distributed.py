"""Scores by several models at once, on any number of processes."""

from collections.abc import Sequence

import numpy as np
import torch
from accelerate import Accelerator

from lens_hpc.dataset.split import Split
from lens_hpc.loading.loader import Loader
from lens_hpc.loading.samples import Samples
from lens_hpc.model.trained import TrainedModel
from lens_hpc.scoring.scores import score, score_share
from lens_hpc.scoring.views import OverViews


def samples_for(member: TrainedModel, split: Split) -> Samples:
    """Return a split as a trained model wants to see it.

    Raise UserError when the model cannot read it.
    """
    settings = member.settings
    image_scale = settings.data.image_scale
    return Samples(split, member.manifest, image_scale, model=settings.model, verify=True)


class EnsembleScorer:
    """Trained models that score as one: the mean of their logits, and over the views of each.

    `tta` is the test-time augmentation: none, flips or d4. All processes must make the same calls.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        members: Sequence[TrainedModel],
        tta: str,
        batch_size: int,
        workers: int,
    ) -> None:
        self.accelerator = accelerator
        self.members = members
        self.batch_size = batch_size
        self.workers = workers

        self.models: list[torch.nn.Module] = []
        for member in members:
            size = member.manifest.height, member.manifest.width
            model = OverViews(member.model, tta, size)
            self.models.append(accelerator.prepare_model(model, evaluation_mode=True))

    def score_share(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Score this process's share of a split: row numbers (n,) and logits (n,) float32."""
        logits = []
        for member, model in zip(self.members, self.models, strict=True):
            with self._loader(member, split) as loader:
                # The same rows for every member.
                rows, member_logits = score_share(self.accelerator, model, loader)
            logits.append(member_logits)
        return rows, np.mean(logits, axis=0)

    def score_split(self, split: Split) -> np.ndarray:
        """Score a split on all processes together: its logits (N,) float32, on every process."""
        logits = []
        for member, model in zip(self.members, self.models, strict=True):
            with self._loader(member, split) as loader:
                logits.append(score(self.accelerator, model, loader))
        return np.mean(logits, axis=0)

    def _loader(self, member: TrainedModel, split: Split) -> Loader:
        samples = samples_for(member, split)
        return Loader(samples, self.batch_size, self.workers, self.accelerator.device)
