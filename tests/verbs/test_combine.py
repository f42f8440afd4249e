"""combine from the terminal and from Python: the settings, and what is told."""

from pathlib import Path

import pytest

import lens_hpc
from lens_hpc import cli, verbs
from lens_hpc.errors import UserError
from tests.grading.gradings import grade_all, make_grading


def test_files_of_grades_follow_the_grading() -> None:
    paths = [Path("grading"), Path("anna.jsonl"), Path("bela.jsonl")]
    settings = verbs.read_settings("combine", paths, ["output=vetted", "targets.A=0.95"])
    assert (settings.grading, settings.files) == (paths[0], tuple(paths[1:]))
    assert (settings.targets.A, settings.targets.B) == (0.95, 0.7)


def test_all_that_is_wrong_is_told_at_once() -> None:
    words = ["targets.Q=1", "contaminants.ring=-1", "prevalence=1"]
    with pytest.raises(UserError) as raised:
        verbs.read_settings("combine", [Path("grading")], words)
    told = str(raised.value)
    assert "output: missing" in told
    assert "targets.Q = 1: unknown setting" in told
    assert "contaminants.ring = -1: must be" in told
    assert "prevalence = 1: must be less than 1" in told


def test_both_doors_make_the_same_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grading, saved = make_grading(tmp_path), tmp_path / "a.jsonl"
    grade_all(grading, "anna", lambda number, lens: "A" if lens else "X", saved)
    capsys.readouterr()

    words = ["combine", str(grading.folder), str(saved), f"output={tmp_path / 'v'}", "sheet=none"]
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    assert f"{tmp_path / 'v'}: 40 of 40 candidates are graded\n" in told

    vetted = lens_hpc.combine([grading.folder, saved], output=tmp_path / "w", sheet="none")
    assert vetted.text == told.rstrip("\n").replace(str(tmp_path / "v"), str(tmp_path / "w"))
    assert (tmp_path / "v/graded.csv").read_text() == (tmp_path / "w/graded.csv").read_text()
    assert "are graded" in repr(vetted)


def test_a_folder_that_is_no_grading_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["combine", str(tmp_path), f"output={tmp_path / 'v'}"]) == 2
    assert f"combine: {tmp_path}: is no grading" in capsys.readouterr().err
