"""The survey is estimated where a random slice of it was graded whole, and nowhere else."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from lens_hpc.grading.survey_estimate import describe_survey

ALL: dict[str, Any] = {"limit": None, "choose": "top"}


def graded(top: str, slice_: str, chance: float = 0.1) -> pd.DataFrame:
    """A letter for each candidate of the top and of the slice; a dot has no grade."""
    letters = [None if letter == "." else letter for letter in top + slice_]
    chances = np.repeat([1.0, chance], [len(top), len(slice_)])
    ids = [f"g{number}" for number in range(len(letters))]
    return pd.DataFrame(
        {"id": ids, "grade": letters, "inclusion_probability": chances, "n_grades": 3}
    )


def test_one_of_the_slice_stands_for_many() -> None:
    found = describe_survey(graded("AABBCX", "XXXAX"), ALL)
    assert found["lenses"]["value"] == pytest.approx(4 + 10)
    assert found["completeness"]["value"] == pytest.approx(4 / 14)
    assert found["purity"]["value"] == pytest.approx(4 / 6)
    low, high = found["completeness"]["ci95"]
    assert 0 <= low < 4 / 14 < high <= 1


def test_lenses_of_the_slice_want_three_graders() -> None:
    table = graded("AX", "AABX")
    assert describe_survey(table, ALL)["to_confirm"] == []
    table["n_grades"] = [1, 3, 3, 2, 1, 1]
    assert describe_survey(table, ALL)["to_confirm"] == ["g3", "g4"]


def test_without_a_slice_nothing_is_known_of_the_rest() -> None:
    assert "random=500" in describe_survey(graded("AAX", ""), ALL)["why_not"]


def test_a_grade_that_is_missing_is_no_random_one() -> None:
    told = describe_survey(graded("AAX", "X.X"), ALL)["why_not"]
    assert told == "1 of 6 candidates have no grade yet"


def test_a_chance_must_be_known() -> None:
    table = graded("AAX", "XX")
    table.loc[1, "inclusion_probability"] = np.nan
    assert "unknown probability" in describe_survey(table, ALL)["why_not"]


@pytest.mark.parametrize(
    ("choose", "is_told"),
    [("top", False), ("uncertain", False), ("random", True), ({"top": 0.7, "random": 0.3}, True)],
)
def test_whatever_was_left_out_must_have_had_a_chance(choose: Any, is_told: bool) -> None:
    found = describe_survey(graded("AAX", "XX"), {"limit": 5, "choose": choose})
    assert ("why_not" not in found) == is_told
