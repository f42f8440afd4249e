"""May a run score a dataset: is it the same kind of survey, and has the run seen its rows before?

Bands, sizes and features that do not fit are refused by lens_hpc.loading.samples. What is told here
would be scored without an error, and wrongly.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lens_hpc.dataset.split import Split
from lens_hpc.dataset.survey_kind import SurveyKind
from lens_hpc.dataset.training_rows import SeenRows, find_seen_rows, hash_rows, read_row_hashes
from lens_hpc.errors import UserError
from lens_hpc.layout import TRAINING_ROWS

PIXEL_SCALE, UNITS = "pixel_scale", "units"
LARGEST_SCALE_DIFFERENCE = 0.02
LARGEST_ZERO_POINT_DIFFERENCE = 0.02
"""In magnitudes: 2 % of the flux."""


def check_same_survey(
    scored: SurveyKind, training: SurveyKind, allow: Collection[str] = ()
) -> list[str]:
    """Return in what a survey differs from the training's, where `allow` names that.

    Raises UserError for other units or zero points, or pixels of another size by more than 2 %,
    that it does not name.
    """
    found = {}
    here, there = scored.pixel_scale_arcsec, training.pixel_scale_arcsec
    if abs(here / there - 1) > LARGEST_SCALE_DIFFERENCE:
        found[PIXEL_SCALE] = f"pixels of {here:g} arcsec, where the run was trained on {there:g}"
    if scored.units != training.units:
        found[UNITS] = f"units of {scored.units}, where the run was trained on {training.units}"
    elif band := band_of_another_zero_point(scored, training):
        found[UNITS] = (
            f"a zero point of {scored.zero_point[band]:g} in {band}, where the run was trained on "
            f"{training.zero_point[band]:g}, so that {scored.units} mean another flux"
        )

    refused = [key for key in found if key not in allow]
    if refused:
        listed = "; ".join(found[key] for key in refused)
        raise UserError(
            f"survey {scored.name}: has {listed}. Give it as the training's was, or score it all "
            f"the same with allow=[{','.join(refused)}], which the results then say"
        )
    return list(found.values())


def band_of_another_zero_point(one: SurveyKind, other: SurveyKind) -> str | None:
    """Return the first band whose zero points are both known, and differ."""
    for band in one.bands:
        here, there = one.zero_point.get(band), other.zero_point.get(band)
        if here is None or there is None:
            continue
        if abs(here - there) > LARGEST_ZERO_POINT_DIFFERENCE:
            return band
    return None


@dataclass(frozen=True)
class SeenBefore:
    """How many rows of a split are among those that a run was trained on, and which."""

    by_pixels: int
    by_position: int
    by_id: int
    """By the id alone, which other objects may have, too."""
    rows: np.ndarray
    """(N,) bool, by pixels or by position."""

    @property
    def count(self) -> int:
        """Rows that were certainly trained on."""
        return int(self.rows.sum())

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers, for metrics.json."""
        return {name: value for name, value in asdict(self).items() if name != "rows"}


def find_rows_seen(split: Split, run_folders: Collection[Path]) -> SeenBefore | None:
    """Say which rows of a split were trained on by one of these runs, or of their best weights.

    None where no run keeps what it was trained on.
    """
    kept = [read_row_hashes(folder / TRAINING_ROWS) for folder in run_folders]
    known = [rows for rows in kept if rows is not None]
    if not known:
        return None

    own = hash_rows(split)
    seen = [find_seen_rows(own, trained) for trained in known]
    merged = SeenRows(*(np.any(each, axis=0) for each in zip(*seen, strict=True)))
    return SeenBefore(
        by_pixels=int(merged.by_pixels.sum()),
        by_position=int(merged.by_position.sum()),
        by_id=int(merged.by_id.sum()),
        rows=merged.by_pixels | merged.by_position,
    )
