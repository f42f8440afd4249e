"""How much there is to score, and how long it would take."""

import time

import numpy as np

from lens_hpc.predicting.survey import SurveyToScore
from lens_hpc.scoring.batches import BatchScorer

BATCHES_TIMED = 3
SECONDS_PER_HOUR = 3600
BYTES_PER_GB = 1e9


def describe_work(survey: SurveyToScore, scorer: BatchScorer, batch_size: int, workers: int) -> str:
    """Return what there is to do, and the hours that the models alone need on so many workers.

    Cutting is faster than most models, and is done while these score.
    """
    parts = survey.parts
    objects = sum(part.objects for part in parts)
    size = sum(part.bytes for part in parts)
    rate = _objects_per_second(survey, scorer, batch_size)
    hours = objects / rate / workers / SECONDS_PER_HOUR

    largest = max((part.objects for part in parts), default=0)
    shared = "one process" if workers == 1 else f"{workers} processes"
    return (
        f"{survey.kind.name}: {objects:,} objects in {len(parts):,} parts (the largest has "
        f"{largest:,}), {size / BYTES_PER_GB:,.1f} GB of images\n"
        f"  {rate:,.0f} objects a second on this device: {hours:,.2f} hours on {shared} like this\n"
        "  nothing is written; without dry_run=true it begins"
    )


def _objects_per_second(survey: SurveyToScore, scorer: BatchScorer, batch_size: int) -> float:
    """Time the models on noise; the first batch, which takes longer, does not count."""
    kind = survey.kind
    rng = np.random.default_rng(0)
    shape = (batch_size, len(kind.bands), kind.height, kind.width)
    images = rng.normal(size=shape).astype(np.float32)
    features = np.full((batch_size, len(kind.features)), np.nan, np.float32)

    scorer(images, features)
    began = time.perf_counter()
    for _ in range(BATCHES_TIMED):
        scorer(images, features)
    return BATCHES_TIMED * batch_size / (time.perf_counter() - began)
