import re
from pathlib import Path

import pytest

from lens_hpc import verbs
from lens_hpc.errors import UserError
from lens_hpc.grading.serving import Graded
from lens_hpc.verbs import grade

GIVEN = ("output=gradings/first",)


def test_it_says_who_graded_and_what_comes_next() -> None:
    graded = Graded(Path("gradings/first"), 1234, {"bob": 7, "anna": 1200}, None)
    assert grade.text(graded) == (
        "gradings/first: 1,234 items\n"
        "  grades by anna: 1,200\n"
        "  grades by bob: 7\n"
        "the same line goes on; one list of all graders:\n"
        "  lens-hpc combine gradings/first output=..."
    )


def test_of_a_page_it_says_how_large_it_is_and_where_its_grades_go(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_bytes(b"x" * 1_250_000)
    text = grade.text(Graded(Path("g"), 5, {}, page))
    assert f"the page is {page} (1.2 MB); graders send back what it saves" in text
    assert "  lens-hpc combine g anna.jsonl ... output=..." in text


@pytest.mark.parametrize(
    ("choose", "rules"),
    [
        ("random", {"random"}),
        ("{top: 0.7, random: 0.3}", {"top", "random"}),
    ],
)
def test_candidates_are_chosen_by_one_rule_or_by_shares(choose: str, rules: set[str]) -> None:
    settings = verbs.read_settings("grade", [Path("c")], (*GIVEN, f"choose={choose}"))
    assert settings.rules == rules


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("choose=diverse", "choose: diverse needs a model; give run=RUN"),
        ("choose={diverse: 1, top: 1}", "choose: diverse needs a model; give run=RUN"),
        ("choose=worst", "choose = worst: must be top, uncertain, diverse or random, or"),
        ("choose={}", "choose = {}: must be top, uncertain, diverse or random, or must have at"),
        ("choose={top: 2}", "choose = {top: 2}: must be top"),
        ("hidden_share=0.9", "hidden_share = 0.9: must be less than or equal to 0.5"),
        ("page=anna.jsonl", "page: anna.jsonl must end in .html"),
        ("port=70000", "port = 70000: must be less than 65536"),
        ("shows=[a]", "shows = [a]: unknown setting; did you mean show?"),
    ],
)
def test_settings_that_make_no_sense_are_refused(override: str, told: str) -> None:
    with pytest.raises(UserError, match=f"\n  {re.escape(told)}"):
        verbs.read_settings("grade", [Path("c")], (*GIVEN, override))


def test_the_hidden_are_those_that_are_given() -> None:
    given = (*GIVEN, "ordinary=b", "known=a")
    settings = verbs.read_settings("grade", [Path("c")], given)
    assert settings.hidden == {"known": Path("a"), "ordinary": Path("b")}
