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
        for file in grade_files(folder):
            self._counts[file.stem] = sum(1 for _ in read_lines(file, fingerprint))

    @property
    def counts(self) -> dict[str, int]:
        """Lines so far, by grader."""
        return dict(self._counts)

    def add(self, given: Sequence[GivenGrade]) -> int:
        """Append grades of one grader, and return how many lines there are now, all on disk.

        Raises UserError when the system refuses to write, or when the book is closed.
        """
        grader = given[0].grader
        with self._lock:
            if self._is_closed:
                raise UserError("the server ends; start it again")
            time = _now()
            grades = [Grade(**one.model_dump(), time=time) for one in given]
            append_grades(grades_file(self.folder, grader), grades)
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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
