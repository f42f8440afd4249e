import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_hpc.errors import UserError
from lens_hpc.grading.grade_files import (
    COLUMNS,
    Grade,
    append_grades,
    grade_files,
    read_grades,
    read_lines,
)

FINGERPRINT = "0123456789abcdef"
TIME = "2026-11-27T10:00:00.123Z"


@pytest.fixture(autouse=True)
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what was synced, which takes no time here."""
    names: list[str] = []

    def note(descriptor: int) -> None:
        names.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    monkeypatch.setattr(os, "fsync", note)
    return names


def grade(item: int, letter: str | None = "A", **others: Any) -> Grade:
    values = {"item": f"i{item:06d}", "grader": "anna", "grade": letter, "time": TIME, **others}
    return Grade.model_validate(values)


def appended(file: Path, *grades: Grade) -> Path:
    for each in grades:
        append_grades(file, FINGERPRINT, [each])
    return file


def letters(*paths: Path) -> dict[tuple[str, str], str]:
    table = read_grades(paths, FINGERPRINT)
    assert list(table) == list(COLUMNS)
    keys = zip(table["item"], table["grader"], strict=True)
    return dict(zip(keys, table["grade"], strict=True))


def test_a_grade_is_a_line(tmp_path: Path) -> None:
    file = appended(
        tmp_path / "anna.jsonl", grade(7, "X", class_="ring", note="é\n\u2028", seconds=3.2)
    )
    origin, line = map(json.loads, file.read_bytes().splitlines())
    assert origin == {"grading": FINGERPRINT, "grader": "anna"}
    assert line == {
        "item": "i000007",
        "grader": "anna",
        "grade": "X",
        "class": "ring",
        "note": "é\n\u2028",
        "seconds": 3.2,
        "window": "",
        "number": None,
        "view": "single",
        "time": TIME,
    }
    assert file.read_bytes().count(b"\n") == 2


def test_the_last_line_counts_and_what_was_taken_back_does_not(tmp_path: Path) -> None:
    file = appended(
        tmp_path / "anna.jsonl",
        grade(0, "A"),
        grade(1, "B"),
        # A clock that was set back changes nothing.
        grade(0, "C", time="2020-01-01T00:00:00.000Z"),
        grade(1, None),
        grade(2, None),
        grade(2, "X"),
    )
    assert letters(file) == {("i000000", "anna"): "C", ("i000002", "anna"): "X"}
    assert len(list(read_lines(file, FINGERPRINT))) == 6


def test_of_two_files_of_one_grader_the_later_grade_counts(tmp_path: Path) -> None:
    one = appended(tmp_path / "anna.jsonl", grade(0, "A"), grade(1, "A"))
    later = "2026-11-27T11:00:00.000Z"
    other = appended(tmp_path / "saved.jsonl", grade(0, "B", time=later), grade(2, "C"))
    bob = appended(tmp_path / "bob.jsonl", grade(0, "X", grader="bob"))
    expected = {
        ("i000000", "anna"): "B",
        ("i000001", "anna"): "A",
        ("i000002", "anna"): "C",
        ("i000000", "bob"): "X",
    }
    assert letters(one, other, bob) == letters(bob, other, one) == expected


@pytest.mark.parametrize("cut", range(1, 120, 7))
def test_half_a_line_is_ignored_and_the_next_is_whole(cut: int, tmp_path: Path) -> None:
    file = appended(tmp_path / "anna.jsonl", grade(0), grade(1))
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    expected = [f"i{n:06d}" for n in range(2 if cut == 1 else 1)]
    assert [each.item for each in read_lines(file, FINGERPRINT)] == expected

    append_grades(file, FINGERPRINT, [grade(2)])
    assert [each.item for each in read_lines(file, FINGERPRINT)] == [*expected, "i000002"]


def test_a_file_of_the_page_tells_its_grading(tmp_path: Path) -> None:
    file = tmp_path / "bob.jsonl"
    lines = grade(3, grader="bob").model_dump_json(by_alias=True)
    file.write_text(f'{{"grading": "{FINGERPRINT}", "grader": "bob"}}\r\n{lines}\r\n\r\n')
    assert letters(file) == {("i000003", "bob"): "A"}
    with pytest.raises(
        UserError, match=rf"{file}: has grades of another grading \({FINGERPRINT}, "
    ):
        read_grades([file], "another")


@pytest.mark.parametrize("left", [0, 1, 30, 62, 63, 80])
def test_a_file_of_which_only_the_beginning_is_there_tells_its_grading(
    left: int, tmp_path: Path
) -> None:
    file = appended(tmp_path / "anna.jsonl", grade(0))
    file.write_bytes(file.read_bytes()[:left])
    append_grades(file, FINGERPRINT, [grade(2)])
    assert letters(file) == {("i000002", "anna"): "A"}
    with pytest.raises(UserError, match="has grades of another grading"):
        read_grades([file], "another")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("nonsense", "Invalid JSON"),
        ('{"grade": "A"}', "item: Field required"),
        (f'{{"item": "i000001", "grader": "a", "grade": "D", "time": "{TIME}"}}', "grade: Input"),
        (f'{{"item": "../etc", "grader": "a", "grade": "A", "time": "{TIME}"}}', "item: String"),
    ],
)
def test_what_is_no_grade_is_named_with_its_line(line: str, told: str, tmp_path: Path) -> None:
    file = appended(tmp_path / "anna.jsonl", grade(0))
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(UserError, match=rf"{file}: line 3 is no grade \({told}"):
        read_grades([file], FINGERPRINT)


def test_without_grades_the_table_is_empty(tmp_path: Path) -> None:
    (tmp_path / "grades").mkdir()
    empty = tmp_path / "grades" / "anna.jsonl"
    empty.touch()
    assert grade_files(tmp_path) == [empty]
    assert letters() == letters(empty) == {}
    with pytest.raises(UserError, match=r"none.jsonl: cannot be read: No such file"):
        read_grades([tmp_path / "none.jsonl"], FINGERPRINT)


def test_grades_are_synced_and_so_is_the_name_of_a_new_file(
    tmp_path: Path, synced: list[str]
) -> None:
    file = tmp_path / "anna.jsonl"
    append_grades(file, FINGERPRINT, [grade(0), grade(1)])
    assert synced == ["anna.jsonl", tmp_path.name]
    append_grades(file, FINGERPRINT, [grade(2)])
    assert synced == ["anna.jsonl", tmp_path.name, "anna.jsonl"]
    assert len(list(read_lines(file, FINGERPRINT))) == 3


def test_a_disk_that_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = appended(tmp_path / "anna.jsonl", grade(0))

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(UserError, match=r"anna.jsonl: cannot be written.*confirmed are kept; make"):
        append_grades(file, FINGERPRINT, [grade(1)])
    assert letters(file) == {("i000000", "anna"): "A"}


LETTERS = st.sampled_from(["A", "B", "C", "X", None])


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 5), LETTERS, st.sampled_from(["anna", "bob"]))))
def test_reading_agrees_with_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, given_grades: list[tuple[int, str | None, str]]
) -> None:
    file = tmp_path_factory.mktemp("grades") / "grades.jsonl"
    lines = [grade(item, letter, grader=name) for item, letter, name in given_grades]
    text = [line.model_dump_json(by_alias=True) + "\n" for line in lines]
    file.write_text("".join(text))

    last = {(line.item, line.grader): line.grade for line in lines}
    counts = {key: letter for key, letter in last.items() if letter is not None}
    assert letters(file) == counts
