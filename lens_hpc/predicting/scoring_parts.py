"""Scoring the parts of a survey one after the other: cutouts are made while others are scored."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from lens_hpc.dataset.shards import hash_pixels
from lens_hpc.loading.ahead import made_ahead
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.predicting.models import Models
from lens_hpc.predicting.score_files import PartScores
from lens_hpc.predicting.survey import PartCutouts, PartRows, SurveyToScore
from lens_hpc.scoring.batches import BatchScorer

DARK = "no pixel of its cutout is above 0"
NO_NUMBER = (
    "its score is no number: its pixels are beyond what the model was trained on, or the weights "
    "are damaged"
)


@dataclass
class PartInWork:
    """A part of a survey, of which some objects may be scored already."""

    number: int
    rows: PartRows
    logits: np.ndarray
    edge_fraction: np.ndarray
    pixel_hashes: np.ndarray
    reasons: dict[int, str] = field(default_factory=dict)
    fault: str = ""
    """Why nothing of it could be read."""


@dataclass(frozen=True)
class PartScorer:
    """Scores parts of a survey by trained models."""

    survey: SurveyToScore
    models: Models
    score: BatchScorer
    batch_size: int
    prevalence: float | None

    def run(self, parts: Sequence[int], tell: Callable[[int], None]) -> Iterator[PartInWork]:
        """Yield each of these parts when all its objects are scored.

        `tell` is told how many objects were looked at since it was told last.
        """
        told = 0
        for work, batch in made_ahead(self._read(parts), 1):
            if batch is not None:
                self._score(work, batch)
                tell(len(batch.rows))
                told += len(batch.rows)
                continue

            # The others are in no batch.
            tell(len(work.rows.table) - told)
            told = 0
            yield work

    def _read(self, parts: Sequence[int]) -> Iterator[tuple[PartInWork, PartCutouts | None]]:
        """Yield the cutouts of each part, and None at its end."""
        for number in parts:
            work = self._begin(number)
            batches = self.survey.batches(number, work.rows, self.batch_size, work.reasons)
            try:
                for batch in batches:
                    yield work, batch
            except BadCutoutError as error:
                work.fault = str(error)
            yield work, None

    def _begin(self, number: int) -> PartInWork:
        rows = self.survey.rows(number)
        count = len(rows.table)
        return PartInWork(
            number=number,
            rows=rows,
            logits=np.full((len(self.models.members), count), np.nan, np.float32),
            edge_fraction=np.full(count, np.nan, np.float32),
            pixel_hashes=np.zeros(count, np.uint64),
            reasons=dict(rows.reasons),
        )

    def _score(self, work: PartInWork, batch: PartCutouts) -> None:
        if not len(batch.rows):
            return
        logits = self.score(batch.pixels, work.rows.features[batch.rows])
        work.edge_fraction[batch.rows] = batch.edge_fraction
        if self.models.know_pixels_alone:
            work.pixel_hashes[batch.rows] = hash_pixels(batch.pixels)

        is_number = np.isfinite(logits).all(axis=0)
        work.reasons |= dict.fromkeys(batch.rows[~is_number].tolist(), NO_NUMBER)
        if self.models.need_light:
            is_dark = batch.pixels.max(axis=(1, 2, 3)) <= 0
            logits[:, is_dark] = np.nan
            work.reasons |= dict.fromkeys(batch.rows[is_dark].tolist(), DARK)
        work.logits[:, batch.rows] = logits

    def scores_of(self, work: PartInWork) -> PartScores:
        """Return what was found of a part. What could not be read at all has one reason."""
        reasons = work.reasons
        if work.fault:
            without = np.flatnonzero(np.isnan(work.logits).any(axis=0)).tolist()
            reasons = dict.fromkeys(without, work.fault) | reasons

        return PartScores(
            logits=work.logits,
            probability=self.models.probability(work.logits, self.prevalence),
            edge_fraction=work.edge_fraction,
            trained_on=self.models.have_seen(work.rows.positions, work.pixel_hashes),
            reasons=reasons,
        )
