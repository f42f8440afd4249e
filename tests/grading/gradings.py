"""A grading on disk that tests may copy, and graders who know what they look at."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from lens_hpc.grading.grade_files import Grade, append_grades
from lens_hpc.grading.grade_settings import GradeSettings
from lens_hpc.grading.grading_folder import Grading, begin_grading
from lens_hpc.layout import grades_file
from tests.conftest import pack_survey, write_survey

CANDIDATES = 40
SPACING_DEGREES = 0.1
KEPT = ("ra", "dec", "logit", "probability", "drawn", "inclusion_probability")


def make_grading(folder: Path, random: int = 10) -> Grading:
    """Begin folder/grading: candidates, the last few drawn at random, and hidden galaxies.

    Candidate i lies at right ascension i / 10, and is a lens where i is odd, as each toy survey has
    it. Among the random ones stand for five each.
    """
    numbers = np.arange(CANDIDATES)
    is_random = numbers >= CANDIDATES - random
    survey = write_survey(
        folder / "survey",
        rows=CANDIDATES,
        ra=[f"{SPACING_DEGREES * i:.6f}" for i in numbers],
        dec=["1.0"] * CANDIDATES,
        logit=[f"{9 - 0.1 * i:.3f}" for i in numbers],
        probability=["0.5"] * CANDIDATES,
        drawn=np.where(is_random, "random", "top").tolist(),
        inclusion_probability=np.where(is_random, "0.2", "1.0").tolist(),
    )
    recipe = survey / "recipe.yaml"
    features = "features: [radius, colour]"
    recipe.write_text(recipe.read_text().replace(features, f"{features}, keep: {list(KEPT)}"))
    pack_survey(survey, folder / "candidates", "splits={candidates: 1.0}")

    hidden = write_survey(folder / "hidden survey", rows=20)
    text = (hidden / "recipe.yaml").read_text()
    (hidden / "recipe.yaml").write_text(text.replace("name: toy", "name: hidden"))
    pack_survey(hidden, folder / "hidden", "splits={train: 1.0}")
    settings = GradeSettings(
        candidates=folder / "candidates",
        output=folder / "grading",
        known=folder / "hidden",
        ordinary=folder / "hidden",
        hidden_share=0.2,
    )
    return begin_grading(settings)


def is_lens(grading: Grading) -> np.ndarray:
    """Say which items are lenses, (N,): those whose id ends in an odd number."""
    ids = grading.items["id"].to_numpy(dtype=str)
    return np.array([int(name.removeprefix("obj")) % 2 == 1 for name in ids])


def grade_all(
    grading: Grading,
    grader: str,
    letter: Callable[[int, bool], str | None],
    file: Path | None = None,
) -> Path:
    """Let a grader grade each item as `letter` says of its number and of what it is; None: not."""
    file = file or grades_file(grading.folder, grader)
    lines = []
    for number, lens in enumerate(is_lens(grading)):
        given = letter(number, bool(lens))
        if given is not None:
            lines.append(
                Grade(
                    item=f"i{number:06d}",
                    grader=grader,
                    grade=given,
                    class_=None if lens else "spiral",
                    seconds=2.0,
                    time="2026-11-27T10:00:00.000Z",
                )
            )
    append_grades(file, grading.record.fingerprint, lines)
    return file
