"""The trained models of a prediction: their scores and probabilities, and what they have seen."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lens_hpc.dataset.shards import file_crc32
from lens_hpc.dataset.survey_kind import SurveyKind
from lens_hpc.dataset.training_rows import RowHashes, find_seen_rows, read_row_hashes
from lens_hpc.errors import UserError
from lens_hpc.layout import BEST, CALIBRATION, FINAL, TRAINING_ROWS, WEIGHTS
from lens_hpc.loading.samples import check_same_kind
from lens_hpc.logs import logger
from lens_hpc.model.trained import TrainedModel, load_trained, weights_folder
from lens_hpc.scoring.batches import BatchScorer, check_alike, needs_light
from lens_hpc.scoring.calibration import (
    Calibration,
    calibrated_probability,
    probability,
    read_calibrations,
)
from lens_hpc.scoring.provenance import check_same_survey


@dataclass(frozen=True)
class Models:
    """One trained model, or several as an ensemble."""

    members: list[TrainedModel]
    calibrations: list[Calibration] | None
    """None where a member has none."""
    trained_on: list[RowHashes]
    """The rows that the members were trained on, as far as they keep them."""

    def scorer(self, device: torch.device, tta: str) -> BatchScorer:
        """Return what scores batches of cutouts."""
        return BatchScorer(self.members, device, tta)

    @property
    def need_light(self) -> bool:
        """Whether a cutout without a pixel above 0 has no score."""
        return any(needs_light(member) for member in self.members)

    @property
    def know_pixels_alone(self) -> bool:
        """Whether rows of a training have no positions, so that pixels must tell them."""
        return any(np.isnan(rows.positions).any() for rows in self.trained_on)

    def probability(self, logits: np.ndarray, prevalence: float | None) -> np.ndarray:
        """Return the probability (N,) of logits (members, N), calibrated where that can be."""
        if self.calibrations is None:
            return np.mean([probability(own) for own in logits], axis=0)
        return calibrated_probability(self.calibrations, logits, prevalence)

    def have_seen(self, positions: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """Say which objects a member was trained on, (N,) bool.

        They are known by positions (N, 2), within an arcsec, or by the hashes of their pixels (N,),
        0 where these are unknown.
        """
        rows = RowHashes(np.zeros(len(pixels), np.uint64), pixels, positions)
        is_seen = np.zeros(len(pixels), dtype=bool)
        for trained in self.trained_on:
            seen = find_seen_rows(rows, trained)
            is_seen |= seen.by_position | (seen.by_pixels & (pixels != 0))
        return is_seen

    def describe(self) -> list[dict[str, Any]]:
        """Return which models these are, for the records of a prediction."""
        described = []
        for member in self.members:
            # safetensors reads them in another order each time.
            facts = dict(sorted(member.facts.items()))
            record = {
                "weights": str(member.folder),
                "crc32": file_crc32(member.folder / WEIGHTS),
                "trained_on": member.manifest.name,
                **facts,
            }
            described.append(record)
        return described


def load_models(
    runs: Sequence[Path], weights: str, code: Collection[str], prevalence: float | None
) -> Models:
    """Load the models of runs; `weights` is best, final, or a file.

    Raises UserError for what is missing or damaged, for runs that do not suit each other, and for a
    prevalence where no calibration can be moved to it.
    """
    if len(runs) > 1 and weights not in {BEST, FINAL}:
        raise UserError(f"weights = {weights}: one FILE is not the weights of {len(runs)} runs")
    members = [load_trained(weights_folder(run, weights), code) for run in runs]
    check_alike(members)

    kept = [read_row_hashes(member.folder / TRAINING_ROWS) for member in members]
    trained_on = [rows for rows in kept if rows is not None]
    return Models(members, _find_calibrations(members, prevalence), trained_on)


def _find_calibrations(
    members: Sequence[TrainedModel], prevalence: float | None
) -> list[Calibration] | None:
    calibrations = []
    for member, calibration in zip(members, read_calibrations(members), strict=True):
        if calibration is not None:
            calibrations.append(calibration)
            continue
        told = (
            f"{member.folder}: keeps no {CALIBRATION} (it was trained by a version before 0.2, or "
            "its validation split lacks a class)"
        )
        if prevalence is not None:
            raise UserError(
                f"prevalence = {prevalence}: {told}; leave it out, or train with validation rows "
                "of both classes"
            )
        logger.warning("probabilities are not calibrated: %s", told)
        return None
    return calibrations


def check_suits(models: Models, kind: SurveyKind, allow: Collection[str]) -> list[str]:
    """Return in what a survey differs from the training's, where `allow` names that.

    Raises UserError for other bands, sizes, features, pixel scales, units or zero points.
    """
    differences: list[str] = []
    for member in models.members:
        trained_on = member.manifest.kind
        check_same_kind(kind, trained_on, features=member.sees_features)
        differences += check_same_survey(kind, trained_on, allow)
    return list(dict.fromkeys(differences))
