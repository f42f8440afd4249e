"""Items and what graders made of them, without a file."""

import numpy as np
import pandas as pd


def make_items(candidates: int = 6, hidden: int = 2) -> pd.DataFrame:
    """Candidates half a degree apart, and behind them hidden lenses that have no score."""
    count = candidates + hidden
    numbers = np.arange(count)
    is_hidden = numbers >= candidates
    return pd.DataFrame(
        {
            "item": [f"i{number:06d}" for number in numbers],
            "kind": np.where(is_hidden, "known", "candidate"),
            "dataset": "candidates",
            "split": "candidates",
            "row": numbers,
            "id": [f"é{number}" for number in numbers],
            "truth": pd.array(np.where(is_hidden, 1, None), dtype="Int8"),
            "score": np.where(is_hidden, np.nan, 10.0 - numbers),
            "probability": np.where(is_hidden, np.nan, 0.5),
            "ra": 0.5 * numbers,
            "dec": 10.0,
            "drawn": np.where(is_hidden, None, "top"),
            "inclusion_probability": np.where(is_hidden, np.nan, 1.0),
            "columns": "{}",
        }
    )


def combine(means: dict[int, float], classes: dict[int, str] | None = None) -> pd.DataFrame:
    """What `combine_grades` makes of two graders whose mean grades these are, by item number."""
    grades = {item: letter_of(mean) for item, mean in means.items()}
    numbers = list(means)
    return pd.DataFrame(
        {
            "item": [f"i{number:06d}" for number in numbers],
            "n_grades": 2,
            "mean_grade": list(means.values()),
            "hsc_grade": list(grades.values()),
            "class": [(classes or {}).get(number) for number in numbers],
            "swap_posterior": [mean / 4 for mean in means.values()],
            "swap_low": 0.0,
            "swap_high": 1.0,
            "notes": "",
        }
    )


def letter_of(mean: float) -> str:
    if mean > 2.5:
        return "A"
    if mean >= 1.5:
        return "B"
    return "C" if mean >= 0.5 else "X"
