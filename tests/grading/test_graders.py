import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from lens_hpc.grading.graders import measure_graders
from lens_hpc.metrics import blaker
from tests.grading.grades import make_grades, make_hidden, simulate_grader


def test_a_grader_is_measured_by_the_hidden_items() -> None:
    items = make_hidden(lenses=12, others=20, candidates=3)
    # Of 12 lenses he finds 9, and of 20 others he takes 1 for one; the candidates tell nothing.
    letters = "AAAAABBBB" + "CXX" + "B" + "C" * 9 + "X" * 10 + "ABX"
    grades = make_grades(
        [(item, "anna", letter) for item, letter in zip(items["item"], letters, strict=True)]
    )
    grades["seconds"] = np.arange(35.0)

    (anna,) = measure_graders(grades, items)["graders"]
    assert anna == {
        "grader": "anna",
        "graded": 35,
        "seconds": 17.0,
        "completeness": {"count": 9, "total": 12, "value": 0.75, "ci95": blaker(9, 12)},
        "purity": {"count": 9, "total": 10, "value": 0.9, "ci95": blaker(9, 10)},
        "false_positive_rate": {"count": 1, "total": 20, "value": 0.05, "ci95": blaker(1, 20)},
    }


def test_too_few_hidden_items_have_no_interval_and_none_no_share() -> None:
    items = make_hidden(lenses=9, others=0)
    grades = make_grades([(item, "anna", "X") for item in items["item"]])
    (anna,) = measure_graders(grades, items)["graders"]
    assert anna["completeness"] == {"count": 0, "total": 9, "value": 0.0, "ci95": None}
    assert anna["purity"] == {"count": 0, "total": 0, "value": None, "ci95": None}


@pytest.mark.slow
def test_graders_of_known_skill_are_recovered_within_their_intervals() -> None:
    rng = np.random.default_rng(5)
    items = make_hidden(lenses=40, others=60)
    is_lens = (items["truth"] == 1).to_numpy()
    skills = {f"grader{n:03d}": (rng.uniform(0.5, 1), rng.uniform(0, 0.3)) for n in range(100)}
    grades = [simulate_grader(rng, name, items, is_lens, *skill) for name, skill in skills.items()]

    held = []
    for facts in (measure_graders(each, items)["graders"][0] for each in grades):
        completeness, false_positive_rate = skills[facts["grader"]]
        purity = 40 * completeness / (40 * completeness + 60 * false_positive_rate)
        truth = completeness, purity, false_positive_rate
        keys = "completeness", "purity", "false_positive_rate"
        intervals = [facts[key]["ci95"] for key in keys]
        held.append(
            [low <= true <= high for (low, high), true in zip(intervals, truth, strict=True)]
        )
    assert (np.mean(held, axis=0) >= 0.93).all()


@pytest.fixture
def three_graders() -> pd.DataFrame:
    """Anna and bert grade all, carl some, and dora what nobody else does."""
    rng = np.random.default_rng(6)
    rows = []
    for number in range(60):
        letters = rng.choice(list("ABCX"), 3, p=[0.1, 0.2, 0.3, 0.4])
        letters[1:][rng.random(2) < 0.6] = letters[0]
        graders = ["anna", "bert", "carl"] if number < 25 else ["anna", "bert"]
        rows += [(f"i{number:06d}", *pair) for pair in zip(graders, letters, strict=False)]
    return make_grades([*rows, ("i000060", "dora", "A")])


def test_pairs_of_graders_are_compared_on_what_both_graded(three_graders: pd.DataFrame) -> None:
    pairs = measure_graders(three_graders, make_hidden(0, 0, 61))["pairs"]
    assert [(pair["first"], pair["second"], pair["items"]) for pair in pairs] == [
        ("anna", "bert", 60),
        ("anna", "carl", 25),
        ("bert", "carl", 25),
    ]
    of = {name: table.set_index("item")["grade"] for name, table in three_graders.groupby("grader")}
    for pair in pairs:
        both = pd.concat([of[pair["first"]], of[pair["second"]]], axis=1).dropna().to_numpy(str)
        assert pair["kappa"] == pytest.approx(cohen_kappa_score(*both.T))
        assert 0.1 < pair["kappa"] < 0.9


def test_all_graders_are_compared_on_what_two_or_more_graded(three_graders: pd.DataFrame) -> None:
    items = make_hidden(0, 0, 61)
    result = measure_graders(three_graders, items)
    assert result["items_of_several"] == 60
    assert 0.1 < result["fleiss_kappa"] < 0.9

    # Of one grader alone nothing is known, and JSON has no NaN.
    alone = measure_graders(three_graders[three_graders["grader"] == "dora"], items)
    assert alone["fleiss_kappa"] is None
    assert alone["pairs"] == []
    json.dumps([result, alone], allow_nan=False)
