"""Grades on disk: a JSON line a grade, a file a grader; each is synced before it is confirmed.

Nothing is rewritten: a grade that is changed or taken back is another line, and the last one of a
grader and an item counts. Only the beginning of a line that a killed process left, and so never
confirmed, is ignored, and cut off before the next line is written.

A first line says of which grading they are, in a file that the self-contained page saved, too:
items of all gradings have the same names. Files of earlier versions lack it.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lens_hpc import files
from lens_hpc.errors import UserError
from lens_hpc.layout import GRADES
from lens_hpc.refusals import refusals_named

GradeLetter = Literal["A", "B", "C", "X"]
GalaxyClass = Literal["ring", "spiral", "merger", "companion", "artefact", "other"]
GraderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,49}$")]
"""It is the name of a file, too."""

LETTERS: tuple[str, ...] = get_args(GradeLetter)
CLASSES: tuple[str, ...] = get_args(GalaxyClass)
COLUMNS = ("item", "grader", "grade", "class", "note", "seconds", "time", "view")
LONGEST_LINE = 1 << 16
CONFIRMED = "all grades that were confirmed are kept"


class _Line(BaseModel):
    """A line of JSON: nothing else in it, and no value of another type."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_by_name=True
    )


class GivenGrade(_Line):
    """A grade as a page sends it."""

    item: Annotated[str, Field(pattern=r"^i[0-9]{6,12}$")]
    grader: GraderName
    grade: GradeLetter | None
    """None: the grader takes an earlier one back."""
    class_: Annotated[GalaxyClass | None, Field(alias="class")] = None
    """What it is, if no lens."""
    note: Annotated[str, Field(max_length=2000)] = ""
    seconds: Annotated[float, Field(ge=0)] = 0.0
    """For which the item was looked at."""
    window: Annotated[str, Field(max_length=50)] = ""
    """Which one of the grader's windows sent it."""
    number: Annotated[int, Field(ge=1)] | None = None
    """Which one of that window's grades it is: a page sends a grade again when it does not know
    whether it arrived."""
    view: Literal["mosaic", "single"] = "single"


class Grade(GivenGrade):
    """A grade as it stands in a file."""

    time: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{3}Z$")]
    """UTC, in ISO 8601 with milliseconds, so that texts are in the order of time."""


class _Origin(_Line):
    """The first line of a file."""

    grading: str
    """Fingerprint of what was graded."""
    grader: GraderName


# ---- writing ----


def append_grades(file: Path, fingerprint: str, grades: Sequence[Grade]) -> None:
    """Append a grader's grades to a file, or begin it, and return when the disk holds them.

    One thread at a time may do this. Raises UserError when the system refuses to write.
    """
    origin = _Origin(grading=fingerprint, grader=grades[0].grader)
    content = _as_lines(*grades)
    is_new = not file.exists()

    with refusals_named(file, CONFIRMED):
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            _mend_end(descriptor)
            if os.fstat(descriptor).st_size == 0:
                content = _as_lines(origin) + content
            while content:
                content = content[os.write(descriptor, content) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            files.sync(file.parent)


def _as_lines(*lines: _Line) -> bytes:
    return b"".join(line.model_dump_json(by_alias=True).encode() + b"\n" for line in lines)


def _mend_end(descriptor: int) -> None:
    """End the last line of a file where its end is missing, or cut off what is only half of one."""
    size = os.fstat(descriptor).st_size
    start = max(size - LONGEST_LINE, 0)
    tail = os.pread(descriptor, size - start, start).rpartition(b"\n")[2]
    if not tail:
        return
    if _is_whole(tail):
        os.write(descriptor, b"\n")
    else:
        os.ftruncate(descriptor, size - len(tail))


def _is_whole(line: bytes) -> bool:
    try:
        Grade.model_validate_json(line)
    except ValidationError:
        return False
    return True


# ---- reading ----


def grade_files(grading: Path) -> list[Path]:
    """Return the files of all graders of a grading."""
    return sorted((grading / GRADES).glob("*.jsonl"))


def read_grades(paths: Sequence[Path], fingerprint: str) -> pd.DataFrame:
    """Return what counts of the grades in some files, in the order in which they were given.

    There is a row for each item and grader who graded it, and has not taken that back; its columns
    are COLUMNS. A class that was not given is None. Raises UserError for a line that is no grade,
    and for a file that is of another grading than that with the `fingerprint`.
    """
    tables = [pd.DataFrame(columns=list(COLUMNS)).astype({"seconds": float})]
    for path in paths:
        lines = [_as_row(grade) for grade in read_lines(path, fingerprint)]
        if lines:
            # Within a file, what stands later was given later, whatever a clock said.
            table = pd.DataFrame(lines, columns=list(COLUMNS))
            tables.append(table.drop_duplicates(["item", "grader"], keep="last"))

    grades = pd.concat(tables[1:] or tables, ignore_index=True)
    in_order = grades.sort_values("time", kind="stable")
    last = in_order.drop_duplicates(["item", "grader"], keep="last")
    return last[last["grade"].notna()].reset_index(drop=True)


def read_lines(file: Path, fingerprint: str) -> Iterator[Grade]:
    """Yield all grades of a file, those that were changed or taken back, too.

    Raises UserError as `read_grades` does.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(
            f"{file}: cannot be read: {error.strerror}; name a file of grades"
        ) from error

    *lines, end = content.split(b"\n")
    # Without its newline, half a line was never confirmed.
    if _is_whole(end):
        lines.append(end)
    for number, line in enumerate(lines, start=1):
        is_origin = number == 1 and _check_origin(file, line, fingerprint)
        if is_origin or not line.strip():
            continue
        try:
            yield Grade.model_validate_json(line)
        except ValidationError as error:
            raise UserError(
                f"{file}: line {number} is no grade ({first_problem(error)}); mend or remove it"
            ) from error


def check_not_cut(file: Path) -> None:
    """Raise UserError for a file that ends within a line: grades that were saved are not in it.

    A killed server leaves such an end, too, but that is not sent around.
    """
    lines = file.read_bytes().split(b"\n")
    is_empty = lines == [b""]
    if is_empty or (lines[-1].strip() and not _is_whole(lines[-1])):
        raise UserError(
            f"{file}: only its beginning is there, as it ends within line {len(lines)}; have it "
            "sent again, or remove that line"
        )


def first_problem(error: ValidationError) -> str:
    """Name the first thing that is wrong with a line, and where in it."""
    problem = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(map(str, problem["loc"]))
    return f"{place}: {problem['msg']}" if place else problem["msg"]


def _check_origin(file: Path, line: bytes, fingerprint: str) -> bool:
    """Say whether a line tells the grading. Raises UserError where that is another one."""
    try:
        origin = _Origin.model_validate_json(line)
    except ValidationError:
        return False
    if origin.grading != fingerprint:
        raise UserError(
            f"{file}: has grades of another grading ({origin.grading}, not {fingerprint}); combine "
            "it with the folder from which its page was written"
        )
    return True


def _as_row(grade: Grade) -> list[Any]:
    values = grade.model_dump(by_alias=True)
    return [values[column] for column in COLUMNS]
