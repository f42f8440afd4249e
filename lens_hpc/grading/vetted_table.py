"""The list that comes of a grading: a row a candidate, the best first."""

import numpy as np
import pandas as pd

from lens_hpc.grading.combine_settings import Contaminants, Targets
from lens_hpc.grading.grade_files import LETTERS
from lens_hpc.grading.graders import LENS_LETTERS
from lens_hpc.grading.items import CANDIDATE
from lens_hpc.grading.sky_matches import match_known, number_places
from lens_hpc.reporting.recovery import SAME_LENS_ARCSEC, KnownLenses

CONTAMINANTS = tuple(letter for letter in LETTERS if letter not in LENS_LETTERS)
UNLABELLED = -1

MATCH = ["known", "known_name", "known_arcsec"]
COLUMNS = (
    "rank",
    "id",
    "ra",
    "dec",
    "grade",
    "mean_grade",
    "n_grades",
    "class",
    "swap_posterior",
    "swap_low",
    "swap_high",
    "score",
    "probability",
    "known",
    "known_name",
    "known_arcsec",
    "duplicates",
    "drawn",
    "inclusion_probability",
    "label",
    "target",
    "weight",
    "notes",
    "item",
)
"""Of the list, in their order."""
TEXTS = ("id", "grade", "class", "known", "known_name", "duplicates", "drawn", "notes", "item")
"""Columns of texts, also where none of them is known."""


def rank_candidates(items: pd.DataFrame, combined: pd.DataFrame) -> pd.DataFrame:
    """Return the candidates of a grading with what the graders said, the best first.

    `items` are all that was shown, `combined` has a row for each that was graded. Hidden ones are
    left out. Of equal grades, the higher posterior goes first, and then the higher score; those
    without a grade come last.
    """
    candidates = items[items["kind"] == CANDIDATE].drop(columns="truth")
    graded = combined.rename(columns={"hsc_grade": "grade"})
    table = candidates.merge(graded, on="item", how="left", validate="one_to_one")
    table["n_grades"] = table["n_grades"].fillna(0).astype(np.int64)

    best_first = ["mean_grade", "swap_posterior", "score", "item"]
    ascending = [False, False, False, True]
    return table.sort_values(best_first, ascending=ascending, ignore_index=True)


def join_duplicates(table: pd.DataFrame, known: KnownLenses | None) -> pd.DataFrame:
    """Say which rows are known lenses, and keep of each place on the sky its first row.

    Rows are one object when they are friends of friends within 2 arcsec. `other_ids` are those of
    the others, in `duplicates` as one text, and the known lens is the one nearest to any of them.
    """
    positions = table[["ra", "dec"]].to_numpy(dtype=np.float64)
    places = number_places(positions, SAME_LENS_ARCSEC)
    matched = table.join(match_known(positions, known)).assign(place=places)

    # Rows without a match come last.
    nearest_first = matched.sort_values("known_arcsec", kind="stable")
    matches = nearest_first.groupby("place").head(1).set_index("place")[MATCH]
    is_first = ~matched.duplicated("place")
    kept = matched[is_first].drop(columns=MATCH).join(matches, on="place")

    other_ids = dict(matched[~is_first].groupby("place")["id"].agg(tuple))
    kept["other_ids"] = [other_ids.get(place, ()) for place in kept["place"]]
    kept["duplicates"] = kept["other_ids"].map("; ".join)
    return kept.drop(columns="place").reset_index(drop=True)


def add_training(table: pd.DataFrame, targets: Targets, contaminants: Contaminants) -> pd.DataFrame:
    """Return the list with what each row teaches: its label, its target, and its weight.

    A and B are lenses, C and X are none, and a row without a grade has the label -1 and no target.
    """
    grades = table["grade"]
    is_contaminant = grades.isin(CONTAMINANTS)
    labels = np.select([grades.isin(LENS_LETTERS), is_contaminant], [1, 0], UNLABELLED)
    weights = table["class"].map(contaminants.model_dump()).where(is_contaminant)

    return table.assign(
        rank=np.arange(1, len(table) + 1),
        label=labels.astype(np.int8),
        target=grades.map(targets.model_dump()).astype(np.float64),
        weight=weights.fillna(1.0).astype(np.float64),
    )


def as_list(table: pd.DataFrame) -> pd.DataFrame:
    """Return COLUMNS of the list, with the same types whatever is known."""
    return table[list(COLUMNS)].astype(dict.fromkeys(TEXTS, "string"))
