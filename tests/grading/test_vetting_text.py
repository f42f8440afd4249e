"""What a reader is told says what is known, and how far."""

from pathlib import Path
from typing import Any

from lens_hpc.grading.vetting_text import describe_vetting

OUTPUT = Path("vetted")


def share(count: int, total: int, *ends: float) -> dict[str, Any]:
    value = count / total if total else None
    return {"count": count, "total": total, "value": value, "ci95": ends or None}


ANNA = {
    "grader": "anna",
    "graded": 1200,
    "seconds": 1.84,
    "completeness": share(37, 40, 0.801, 0.984),
    "purity": share(37, 38, 0.87, 0.99),
    "false_positive_rate": share(1, 9),
}
GRADERS = {"graders": [ANNA], "pairs": [], "fleiss_kappa": None, "items_of_several": 0}
RECORD: dict[str, Any] = {
    "candidates": 1500,
    "graded": 1100,
    "objects": 1490,
    "grades": {"A": 12, "B": 30, "C": 100, "X": 948},
    "known": None,
    "survey": {"why_not": "400 of 1,500 candidates have no grade yet"},
    "dataset": None,
}


def test_what_is_not_known_is_not_told() -> None:
    assert describe_vetting(OUTPUT, RECORD, GRADERS) == (
        "vetted: 1,100 of 1,500 candidates are graded\n"
        "  objects       1,490: A 12, B 30, C 100, X 948\n"
        "  anna          1,200 grades, 1.8 s each; hidden lenses found 37 of 40 (0.80 to 0.98), "
        "others called lenses 1 of 9\n"
        "  survey        not estimated: 400 of 1,500 candidates have no grade yet\n"
        "graded.parquet, .csv and .fits, and vetting.json are in vetted"
    )


def test_all_is_told_with_intervals() -> None:
    estimate = {
        "lenses": {"value": 1403.2, "ci95": [900.0, 2104.0]},
        "completeness": {"value": 0.814, "ci95": [0.6, 0.93]},
        "purity": None,
        "to_confirm": ["g3", "g4"],
    }
    generation = {
        "number": 2,
        "lenses": 42,
        "non_lenses": 1048,
        "left_out": {"without_a_grade": 400, "in_a_frozen_split": 0},
    }
    record = RECORD | {
        "known": {"objects": {}, "lenses": {"known": 2, "new": 40}},
        "survey": estimate,
        "dataset": generation,
    }
    graders = GRADERS | {"fleiss_kappa": 0.618, "items_of_several": 900}
    lines = describe_vetting(OUTPUT, record, graders).splitlines()
    assert lines[2] == "  A and B       2 known, 40 new"
    assert lines[4:7] == [
        "  agreement     Fleiss' kappa 0.62, of 900 items",
        "  survey        lenses 1,403 (900 to 2,104), completeness 0.81 (0.60 to 0.93) of what was "
        "sure to be graded; 2 lenses of the random slice, each of which stands for many, had fewer "
        "than 3 graders: have them looked at again (to_confirm in vetting.json)",
        "  dataset       generation 2: 42 lenses and 1,048 non-lenses join; left out: 400 without "
        "a grade, 0 in a frozen split",
    ]
