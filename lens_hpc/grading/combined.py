"""What all graders together say of an item: their mean grade, their class, SWAP's posterior."""

import numpy as np
import pandas as pd

from lens_hpc.grading.graders import known_truth, says_lens
from lens_hpc.metrics import run_swap

POINTS = {"A": 3, "B": 2, "C": 1, "X": 0}
"""Of each grade: certainly a lens, probably, possibly, certainly none."""
SEPARATOR = "; "


def combine_grades(
    grades: pd.DataFrame, items: pd.DataFrame, prior: float, seed: int = 0
) -> pd.DataFrame:
    """Return a row an item, in the order of `items`, with what its graders say together.

    `grades` has a row for each item and grader, as `read_grades` returns it. `prior` is the share
    of lenses among the candidates, which SWAP begins with; its intervals are drawn with the seed.
    The columns are item, n_grades, mean_grade (3 for A to 0 for X), hsc_grade (`hsc_grades`),
    class (that most graders gave, of those who gave one; null for a tie), swap_posterior, swap_low
    and swap_high (`metrics.run_swap`), and notes, with the graders' names. Where nobody graded an
    item, n_grades is 0, the notes are empty, and all else is null.
    """
    points = grades["grade"].map(POINTS)
    by_item = points.groupby(grades["item"])
    mean = by_item.mean().reindex(items["item"]).to_numpy()
    count = by_item.size().reindex(items["item"], fill_value=0).to_numpy()

    # By their names, so that the order of the files does not matter.
    grader = pd.factorize(grades["grader"], sort=True)[0]
    item = pd.Index(items["item"]).get_indexer(grades["item"])
    swap = run_swap(item, grader, says_lens(grades), known_truth(items), prior, seed)

    posteriors = pd.DataFrame(
        {
            "swap_posterior": swap.posterior,
            "swap_low": swap.low,
            "swap_high": swap.high,
        }
    )
    posteriors[count == 0] = np.nan
    return pd.DataFrame(
        {
            "item": items["item"].to_numpy(),
            "n_grades": count,
            "mean_grade": mean,
            "hsc_grade": hsc_grades(mean),
            "class": _classes(grades, items),
            **posteriors,
            "notes": _notes(grades, items),
        }
    )


def hsc_grades(mean: np.ndarray) -> np.ndarray:
    """Return the grades of mean grades from 0 to 3, (N,) of text; None for NaN.

    They are those of the searches in HSC (SuGOHI: Sonnenfeld et al. 2018, PASJ 70, S29): A above
    2.5, B from 1.5, C from 0.5, and X below.
    """
    conditions = [mean > 2.5, mean >= 1.5, mean >= 0.5, mean >= 0]
    letters = np.select(conditions, list(POINTS), "").astype(object)
    letters[np.isnan(mean)] = None
    return letters


def _classes(grades: pd.DataFrame, items: pd.DataFrame) -> np.ndarray:
    """Return the class that most graders gave, of those who gave one, (N,); None for a tie."""
    counts = grades.groupby(["item", "class"]).size().rename("count").reset_index()
    most = counts.groupby("item")["count"].transform("max")

    leading = counts[counts["count"] == most]
    without_ties = leading.drop_duplicates("item", keep=False)
    by_item = without_ties.set_index("item")["class"].reindex(items["item"])

    classes = by_item.to_numpy(dtype=object, copy=True)
    classes[by_item.isna()] = None
    return classes


def _notes(grades: pd.DataFrame, items: pd.DataFrame) -> np.ndarray:
    """Return all notes on each item with the names of their graders, (N,) of text."""
    noted = grades[grades["note"] != ""].sort_values("grader")
    texts = noted["grader"] + ": " + noted["note"]
    joined = texts.groupby(noted["item"]).agg(SEPARATOR.join)
    return joined.reindex(items["item"], fill_value="").to_numpy(dtype=object)
