"""The grades of a grading while it is served: several graders and windows append at once."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lens_hpc.errors import UserError
from lens_hpc.grading.grade_files import GivenGrade, Grade, append_grades, grade_files, read_lines
from lens_hpc.layout import grades_file


class GradeBook:
    """Appends grades, one request after the other, and knows those that were given before.

    Raises UserError for a file of grades that is damaged.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self._lock = threading.Lock()
        self._is_closed = False
        self._counts = {}
        self._known: set[tuple[str, str, int]] = set()
        for file in grade_files(folder):
            lines = list(read_lines(file, fingerprint))
            self._counts[file.stem] = len(lines)
            self._known.update(filter(None, map(_identity, lines)))

    @property
    def counts(self) -> dict[str, int]:
        """Lines so far, by grader."""
        return dict(self._counts)

    def add(self, given: Sequence[GivenGrade]) -> int:
        """Append grades of one grader, and return how many lines there are now, all on disk.

        A grade that is there already is not appended again: its window sends it twice where the
        answer was lost, and by then a later one may stand below it. Raises UserError when the
        system refuses to write, or when the book is closed.
        """
        grader = given[0].grader
        with self._lock:
            if self._is_closed:
                raise UserError("the server ends; start it again")
            time = _now()
            new = [one for one in given if _identity(one) not in self._known]
            grades = [Grade(**one.model_dump(), time=time) for one in new]
            if grades:
                append_grades(grades_file(self.folder, grader), self.fingerprint, grades)
            self._known.update(filter(None, map(_identity, grades)))
            self._counts[grader] = self._counts.get(grader, 0) + len(grades)
            return self._counts[grader]

    def latest(self, grader: str) -> dict[str, dict[str, Any]]:
        """Return grade, class and note of each item that a grader has graded."""
        file = grades_file(self.folder, grader)
        found = {}
        if file.is_file():
            for line in read_lines(file, self.fingerprint):
                found[line.item] = line
        return {
            item: {"grade": line.grade, "class": line.class_, "note": line.note}
            for item, line in found.items()
            if line.grade is not None
        }

    def close(self) -> None:
        """Append nothing more. What was being appended is on disk when this returns."""
        with self._lock:
            self._is_closed = True


def _identity(grade: GivenGrade) -> tuple[str, str, int] | None:
    """Return what no other grade has; None for one that is not numbered."""
    return None if grade.number is None else (grade.grader, grade.window, grade.number)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
