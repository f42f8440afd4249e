"""grade: candidates are looked at by people, on a page of this machine's own."""

from typing import TYPE_CHECKING

from lens_hpc.grading.grade_settings import GradeSettings as Settings

if TYPE_CHECKING:
    from lens_hpc.grading.serving import Graded

TARGET = "CANDIDATES"
TARGET_SETTING = "candidates"
EXTRA = "grade"
SUMMARY = (
    "Show candidates in the browser to be graded: serves a page on this machine alone until it is "
    "interrupted. Each grade is on disk at once, and the same line goes on. Known lenses, painted "
    "arcs and ordinary galaxies may be hidden among them, to measure the graders."
)
EXAMPLE = "lens-hpc grade data/demo/scored/candidates output=data/demo/grading"


def run(settings: Settings) -> "Graded":
    """Serve the page until SIGINT or SIGTERM, or write it as a file of its own."""
    from lens_hpc.grading.serving import grade_candidates  # imports pandas

    return grade_candidates(settings)


def text(graded: "Graded") -> str:
    """Say how many grades there are, and what comes next."""
    lines = [f"{graded.folder}: {graded.items:,} items"]
    for grader, count in sorted(graded.grades.items()):
        lines.append(f"  grades by {grader}: {count:,}")
    saved = ""
    if graded.page:
        size = f"{graded.page.stat().st_size / 1e6:,.1f} MB"
        lines.append(f"the page is {graded.page} ({size}); graders send back what it saves")
        saved = " anna.jsonl ..."
    lines.append("the same line goes on; one list of all graders:")
    lines.append(f"  lens-hpc combine {graded.folder}{saved} output=...")
    return "\n".join(lines)
