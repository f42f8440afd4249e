"""An output is one prediction's: others are refused by name, and what is begun goes on."""

import json
from pathlib import Path

import pytest

from lens_hpc import files
from lens_hpc.errors import UserError
from lens_hpc.predicting.records import begin_output, check_output

RECORD = {
    "version": "1",
    "survey": "s",
    "models": [{"weights": "runs/a/best", "crc32": "01234567"}],
    "prevalence": None,
    "tta": "none",
    "batch_size": 256,
    "tile_memory": 512,
    "recipe": {"bands": ["g"]},
    "unlike_training": [],
}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tta": "flips"}, "another tta"),
        ({"batch_size": 8}, "another batch_size"),
        ({"prevalence": 0.1}, "another prevalence"),
        ({"recipe": {"bands": ["r"]}}, "another recipe"),
        ({"models": [{"weights": "runs/a/best", "crc32": "0"}]}, "another model"),
        ({"models": RECORD["models"] * 2}, "another model"),
    ],
)
def test_another_prediction_is_refused(tmp_path: Path, change: dict, named: str) -> None:
    begin_output(tmp_path / "out", RECORD)
    with pytest.raises(UserError, match=f"was begun with {named}, .*name another folder"):
        check_output(tmp_path / "out", RECORD | change)


@pytest.mark.parametrize(
    "change",
    [{"version": "2"}, {"models": [{"weights": "elsewhere", "crc32": "01234567"}]}],
)
def test_what_does_not_change_scores_may_differ(tmp_path: Path, change: dict) -> None:
    begin_output(tmp_path / "out", RECORD)
    begin_output(tmp_path / "out", RECORD | change)
    assert json.loads((tmp_path / "out/prediction.json").read_text()) == RECORD


def test_something_else_is_refused_and_a_begun_folder_is_not(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("a year")
    with pytest.raises(UserError, match="something else than a prediction"):
        begin_output(tmp_path, RECORD)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    # Killed while it wrote the record.
    out = tmp_path / "out"
    out.mkdir()
    (out / "prediction.json.partial-node-17").write_text("{")
    begin_output(out, RECORD)
    assert (out / "scores").is_dir()


def test_a_prediction_that_another_task_begins_at_this_instant_is_no_other_thing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One who does not hold the folder looks twice, and between the looks it may begin."""
    really_list = files.names_in

    def begin_and_list(folder: Path) -> set[str]:
        (folder / "prediction.json").touch()
        (folder / "scores").mkdir()
        return really_list(folder)

    monkeypatch.setattr(files, "names_in", begin_and_list)
    check_output(tmp_path, RECORD)


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"models": 3}', "[" * 100_000])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "prediction.json").write_text(text)
    with pytest.raises(UserError, match=r"prediction\.json: is damaged"):
        check_output(tmp_path, RECORD)
