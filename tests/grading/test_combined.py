import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_hpc.grading.combined import combine_grades, hsc_grades
from lens_hpc.metrics import run_swap
from tests.grading.grades import make_grades, make_hidden, simulate_grader

PRIOR = 0.01


@pytest.mark.parametrize(
    ("letters", "mean", "grade"),
    [
        ("AAA", 3.0, "A"),
        ("AAB", 8 / 3, "A"),
        ("AB", 2.5, "B"),
        ("AX", 1.5, "B"),
        ("BCC", 4 / 3, "C"),
        ("CX", 0.5, "C"),
        ("CXX", 1 / 3, "X"),
        ("X", 0.0, "X"),
    ],
)
def test_mean_grades_are_those_of_hsc(letters: str, mean: float, grade: str) -> None:
    rows = [("i000000", f"grader{number}", letter) for number, letter in enumerate(letters)]
    row = combine_grades(make_grades(rows), make_hidden(0, 0, 1), PRIOR).iloc[0]
    assert (row["n_grades"], row["mean_grade"], row["hsc_grade"]) == (len(letters), mean, grade)


@given(st.floats(0, 3))
def test_a_better_mean_never_has_a_worse_grade(mean: float) -> None:
    better, worse = hsc_grades(np.array([min(mean + 0.2, 3), mean]))
    assert better <= worse


def test_classes_are_of_the_majority_and_notes_have_names() -> None:
    grades = make_grades(
        [
            (item, name, "X")
            for item in ("i000000", "i000001", "i000002")
            for name in ("carl", "anna", "bert")
        ]
    )
    grades["class"] = ["ring", "ring", "spiral", "ring", None, "spiral", None, None, "merger"]
    grades.loc[[0, 1, 5], "note"] = ["a ring; sure?", "knots", "<b>"]

    table = combine_grades(grades, make_hidden(0, 0, 3), PRIOR)
    assert table["class"].tolist()[::2] == ["ring", "merger"]
    assert pd.isna(table["class"][1])
    assert table["notes"].tolist() == ["anna: knots; carl: a ring; sure?", "bert: <b>", ""]


def test_there_is_a_row_an_item_in_their_order_and_nothing_is_said_of_what_nobody_saw() -> None:
    items = make_hidden(1, 1, 3).iloc[::-1].reset_index(drop=True)
    table = combine_grades(make_grades([("i000002", "anna", "A")]), items, PRIOR)
    assert table["item"].tolist() == items["item"].tolist()
    assert table["n_grades"].tolist() == [0, 0, 1, 0, 0]

    of_none = table.drop(2)
    null = ["mean_grade", "hsc_grade", "class", "swap_posterior", "swap_low", "swap_high"]
    assert of_none[null].isna().all(axis=None)
    assert (of_none["notes"] == "").all()


def test_posteriors_are_those_of_swap_whatever_the_order_of_the_grades() -> None:
    rng = np.random.default_rng(7)
    items = make_hidden(30, 30, 40)
    is_lens = np.append(items["truth"].dropna().to_numpy(bool), rng.random(40) < 0.5)
    skills = {"anna": (0.95, 0.02), "bert": (0.7, 0.2), "carl": (0.5, 0.5)}
    grades = pd.concat(
        simulate_grader(rng, name, items, is_lens, *skill) for name, skill in skills.items()
    )

    item = np.tile(np.arange(100), 3)
    grader = np.repeat(np.arange(3), 100)
    calls_lens = grades["grade"].isin(["A", "B"]).to_numpy()
    truth = np.repeat([1, 0, -1], [30, 30, 40])
    expected = run_swap(item, grader, calls_lens, truth, 0.5, seed=3)

    shuffled = grades.sample(frac=1, random_state=1)
    for each in (grades, shuffled):
        table = combine_grades(each, items, 0.5, seed=3)
        np.testing.assert_allclose(table["swap_posterior"], expected.posterior, rtol=1e-9)
        np.testing.assert_allclose(table["swap_low"], expected.low, rtol=1e-9)
        np.testing.assert_allclose(table["swap_high"], expected.high, rtol=1e-9)

    # The candidates are told apart better than by the mean grade, in which all count the same.
    asked = table[60:]
    right = (asked["swap_posterior"] > 0.5) == is_lens[60:]
    assert right.mean() > 0.9
