"""Grades of simulated graders, without a file."""

import numpy as np
import pandas as pd


def make_hidden(lenses: int, others: int, candidates: int = 0) -> pd.DataFrame:
    """Items of known truth, and behind them candidates."""
    truth = [1] * lenses + [0] * others + [None] * candidates
    names = [f"i{number:06d}" for number in range(len(truth))]
    return pd.DataFrame({"item": names, "truth": pd.array(truth, dtype="Int8")})


def make_grades(rows: list[tuple[str, str, str]]) -> pd.DataFrame:
    """Grades of (item, grader, grade) as `read_grades` returns them."""
    table = pd.DataFrame(rows, columns=["item", "grader", "grade"])
    other = {"class": None, "note": "", "seconds": 2.0, "time": "", "view": "single"}
    return table.assign(**other)


def simulate_grader(
    rng: np.random.Generator,
    grader: str,
    items: pd.DataFrame,
    is_lens: np.ndarray,
    completeness: float,
    false_positive_rate: float,
) -> pd.DataFrame:
    """Let a grader of known skill grade all items, of which some are lenses (N,)."""
    says_lens = rng.random(len(items)) < np.where(is_lens, completeness, false_positive_rate)
    letters = rng.choice(["A", "B"], len(items)), rng.choice(["C", "X"], len(items))
    graded = zip(items["item"], np.where(says_lens, *letters), strict=True)
    return make_grades([(item, grader, grade) for item, grade in graded])
