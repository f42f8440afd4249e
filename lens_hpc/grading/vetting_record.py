"""What a vetted list says of itself: counts, estimates and origins."""

from typing import Any

import pandas as pd

from lens_hpc._version import __version__
from lens_hpc.grading.combine_settings import CombineSettings
from lens_hpc.grading.grade_files import LETTERS
from lens_hpc.grading.graders import LENS_LETTERS
from lens_hpc.grading.grading_folder import Grading
from lens_hpc.grading.sky_matches import KNOWN, NEW
from lens_hpc.grading.survey_estimate import describe_survey


def make_record(
    settings: CombineSettings,
    grading: Grading,
    graded: pd.DataFrame,
    table: pd.DataFrame,
) -> dict[str, Any]:
    """Return what vetting.json says.

    `graded` has a row a candidate, as `rank_candidates` returns it, and `table` a row an object.
    """
    letters = table["grade"].value_counts()
    return {
        "version": __version__,
        "grading": str(grading.folder),
        "fingerprint": grading.record.fingerprint,
        "settings": settings.model_dump(mode="json"),
        "candidates": len(graded),
        "graded": int(graded["grade"].notna().sum()),
        "objects": len(table),
        "grades": {letter: int(letters.get(letter, 0)) for letter in LETTERS},
        "classes": table["class"].value_counts().to_dict(),
        "known": _count_known(table) if settings.known else None,
        "survey": describe_survey(graded, grading.record.settings),
        "dataset": None,
    }


def _count_known(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Return how many of all objects, and of those of A and B, are known or new."""
    lenses = table[table["grade"].isin(LENS_LETTERS)]
    return {"objects": _count_kinds(table), "lenses": _count_kinds(lenses)}


def _count_kinds(rows: pd.DataFrame) -> dict[str, int]:
    counts = rows["known"].value_counts()
    return {
        KNOWN: int(counts.get(KNOWN, 0)),
        NEW: int(counts.get(NEW, 0)),
    }
