from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import pytest

from lens_hpc.errors import UserError
from lens_hpc.grading.grade_book import GradeBook
from lens_hpc.grading.grade_files import GivenGrade, read_grades, read_lines
from lens_hpc.layout import grades_file

FINGERPRINT = "0123456789abcdef"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for grades; what is synced there takes no time."""
    monkeypatch.setattr("os.fsync", lambda _: None)
    (tmp_path / "grades").mkdir()
    return tmp_path


def given(item: int, letter: str | None, grader: str = "anna", **others: str | int) -> GivenGrade:
    values = {"item": f"i{item:06d}", "grade": letter, "grader": grader, **others}
    return GivenGrade.model_validate(values)


def test_lines_are_counted_by_grader_and_from_one_start_to_the_next(folder: Path) -> None:
    book = GradeBook(folder, FINGERPRINT)
    assert book.add([given(0, "A")]) == 1
    assert book.add([given(1, "B"), given(2, "X")]) == 3
    assert book.add([given(0, "C", "bob")]) == 1

    again = GradeBook(folder, FINGERPRINT)
    assert again.counts == book.counts == {"anna": 3, "bob": 1}
    assert again.add([given(1, None)]) == 4


def test_the_files_of_a_grading_are_refused_in_another(folder: Path) -> None:
    GradeBook(folder, FINGERPRINT).add([given(0, "A")])
    with pytest.raises(UserError, match=r"anna\.jsonl: has grades of another grading"):
        GradeBook(folder, "another")


def test_the_latest_grades_are_known_to_go_on(folder: Path) -> None:
    book = GradeBook(folder, FINGERPRINT)
    book.add([given(0, "A"), given(1, "B"), given(0, "X", **{"class": "ring", "note": "<b>"})])
    book.add([given(1, None)])
    expected = {"i000000": {"grade": "X", "class": "ring", "note": "<b>"}}
    assert book.latest("anna") == GradeBook(folder, FINGERPRINT).latest("anna") == expected
    assert book.latest("bob") == {}


def test_a_grade_that_is_sent_again_does_not_overtake_a_later_one(folder: Path) -> None:
    book = GradeBook(folder, FINGERPRINT)
    first, later = given(0, "A", window="w1", number=1), given(0, "X", window="w2", number=1)
    assert book.add([first]) == 1
    assert book.add([later]) == 2

    # The window did not get the answer, and then the server is started anew.
    for _ in range(2):
        assert book.add([first, given(1, "B", window="w1", number=2)]) == 3
        assert book.latest("anna")["i000000"]["grade"] == "X"
        book = GradeBook(folder, FINGERPRINT)
    assert len(list(read_lines(grades_file(folder, "anna"), FINGERPRINT))) == 3


def test_two_windows_of_one_grader_lose_nothing(folder: Path) -> None:
    book = GradeBook(folder, FINGERPRINT)

    def grade(window: int) -> list[int]:
        lines = [given(item, "A", window=f"w{window}") for item in range(50)]
        return [book.add([line]) for line in lines]

    with ThreadPoolExecutor() as pool:
        numbers = list(pool.map(grade, range(4)))
    assert sorted(chain.from_iterable(numbers)) == list(range(1, 201))

    file = grades_file(folder, "anna")
    lines = list(read_lines(file, FINGERPRINT))
    for window in range(4):
        own = [line.item for line in lines if line.window == f"w{window}"]
        assert own == [f"i{item:06d}" for item in range(50)]
    assert len(read_grades([file], FINGERPRINT)) == 50


def test_a_closed_book_takes_nothing(folder: Path) -> None:
    book = GradeBook(folder, FINGERPRINT)
    book.close()
    with pytest.raises(UserError, match="the server ends"):
        book.add([given(0, "A")])
    assert book.counts == {}
