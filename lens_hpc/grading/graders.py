"""How good the graders are, by the hidden items, and how well they agree.

Known lenses and painted ones tell which share of the lenses a grader finds; ordinary galaxies, how
often he sees one where there is none. A grade of A or B calls an item a lens.
"""

import math
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from lens_hpc.grading.grade_files import LETTERS
from lens_hpc.metrics import Interval, blaker, cohen_kappa, fleiss_kappa

LENS_LETTERS = ("A", "B")
FEWEST = 10
"""A share of fewer items has no interval: it would hold nearly everything."""
UNKNOWN = -1

_interval = cache(blaker)


@dataclass(frozen=True)
class HiddenShare:
    """A share of a grader's hidden items."""

    count: int
    total: int
    value: float | None
    """None of nothing."""
    ci95: Interval | None
    """By Blaker 2000; None of too few."""


@dataclass(frozen=True)
class GraderFacts:
    """What is known of a grader."""

    grader: str
    graded: int
    """Items, hidden ones and candidates."""
    seconds: float
    """For which half of them were looked at, or longer."""
    completeness: HiddenShare
    """Of the hidden lenses, those that he called lenses."""
    purity: HiddenShare
    """Of the hidden items that he called lenses, those that are. It is that of their mixture, in
    which lenses are much more frequent than in the sky."""
    false_positive_rate: HiddenShare
    """Of the hidden ordinary galaxies, those that he called lenses."""


@dataclass(frozen=True)
class PairAgreement:
    """Cohen's kappa of two graders."""

    first: str
    second: str
    items: int
    """That both graded."""
    kappa: float | None
    """Of the four grades; None where that tells nothing."""


def measure_graders(grades: pd.DataFrame, items: pd.DataFrame) -> dict[str, Any]:
    """Return what graders are worth and how they agree, as JSON has it.

    `grades` has a row for each item and grader, as `read_grades` returns it, and `items` all items
    of the grading. `graders` are GraderFacts in the order of their names, `pairs` the
    PairAgreement of any two who graded the same items, and `fleiss_kappa` is that of all, over the
    `items_of_several` that two or more of them graded; None where it tells nothing.
    """
    truth = pd.Series(known_truth(items), index=items["item"])
    table = grades.assign(truth=grades["item"].map(truth), says_lens=says_lens(grades))
    facts = [_measure(str(name), of_one) for name, of_one in table.groupby("grader")]

    letters = grades.pivot_table("grade", index="item", columns="grader", aggfunc="first")
    counts = np.stack([(letters == letter).sum(axis=1) for letter in LETTERS], axis=1)
    return {
        "graders": [asdict(each) for each in facts],
        "pairs": [asdict(each) for each in _compare_pairs(letters)],
        "fleiss_kappa": _known(fleiss_kappa(counts)),
        "items_of_several": int((counts.sum(axis=1) >= 2).sum()),
    }


def says_lens(grades: pd.DataFrame) -> np.ndarray:
    """Say which grades call their item a lens, (V,) bool."""
    return grades["grade"].isin(LENS_LETTERS).to_numpy(dtype=bool)


def known_truth(items: pd.DataFrame) -> np.ndarray:
    """Return what items are, (N,) int: 1 a lens, 0 none, -1 a candidate, of which it is asked."""
    return items["truth"].astype("Float64").fillna(UNKNOWN).to_numpy(dtype=np.int64)


def _measure(name: str, grades: pd.DataFrame) -> GraderFacts:
    """Return the facts of one grader."""
    is_lens = grades["truth"] == 1
    is_other = grades["truth"] == 0
    called = grades["says_lens"]
    return GraderFacts(
        grader=name,
        graded=len(grades),
        seconds=float(grades["seconds"].median()),
        completeness=_share(called[is_lens]),
        purity=_share(is_lens[called & (is_lens | is_other)]),
        false_positive_rate=_share(called[is_other]),
    )


def _share(is_counted: pd.Series) -> HiddenShare:
    """Return the share of those that are counted, (n,) bool."""
    count, total = int(is_counted.sum()), len(is_counted)
    value = count / total if total else None
    return HiddenShare(count, total, value, _interval(count, total) if total >= FEWEST else None)


def _compare_pairs(letters: pd.DataFrame) -> list[PairAgreement]:
    """Compare any two graders by their grades, a row an item and a column a grader."""
    pairs = []
    for first, second in combinations(letters.columns, 2):
        common = letters[[first, second]].dropna()
        if len(common):
            kappa = cohen_kappa(*common.to_numpy(dtype=str).T)
            pairs.append(PairAgreement(str(first), str(second), len(common), _known(kappa)))
    return pairs


def _known(number: float) -> float | None:
    """Return a number as JSON has it: None, if it is none."""
    return None if math.isnan(number) else number
