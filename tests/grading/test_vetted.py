"""All grades of a grading become one list, whole or not at all, and nothing hidden is in it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lens_hpc import layout
from lens_hpc.dataset.dataset import Dataset
from lens_hpc.errors import UserError
from lens_hpc.grading import vetted
from lens_hpc.grading.combine_settings import CombineSettings
from lens_hpc.grading.grading_folder import Grading, open_grading
from lens_hpc.grading.vetted import Vetted
from tests.conftest import pack_survey, write_survey
from tests.grading.gradings import CANDIDATES, grade_all, make_grading

LIST = [f"{layout.GRADED}.{ending}" for ending in ("csv", "fits", "parquet")]
ALWAYS = {*LIST, layout.GRADERS, layout.VETTING}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Grading:
    """A grading without grades; not to be changed."""
    return make_grading(tmp_path_factory.mktemp("vetted"))


@pytest.fixture
def grading(begun: Grading, tmp_path: Path) -> Grading:
    """A copy that two have graded: one is right, the other takes every fifth item for a B."""
    shutil.copytree(begun.folder, tmp_path / "grading")
    copy = open_grading(tmp_path / "grading")
    grade_all(copy, "anna", lambda number, lens: "A" if lens else "X")
    grade_all(copy, "bela", lambda number, lens: "B" if number % 5 == 0 else "A" if lens else "X")
    return copy


def combine(grading: Grading, *others: Path, **settings: Any) -> Vetted:
    """Combine without the contact sheet, which takes longest, unless it is asked for."""
    output = grading.folder.with_name("vetted")
    given = {"sources": [grading.folder, *others], "output": output, "sheet": "none"}
    return vetted.combine(CombineSettings.model_validate(given | settings))


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_the_list_has_each_candidate_once_and_nothing_hidden(grading: Grading) -> None:
    result = combine(grading)
    table = result.to_pandas()
    items = grading.items[grading.items["kind"] == "candidate"]
    assert sorted(table["item"]) == sorted(items["item"])
    assert table["rank"].tolist() == list(range(1, CANDIDATES + 1))
    assert (table["n_grades"] == 2).all()
    assert table["mean_grade"].is_monotonic_decreasing
    assert {file.name for file in result.output.iterdir()} == ALWAYS

    # Right wherever both agree, and of those that they do not agree on, half are lenses.
    is_odd = table["id"].str.removeprefix("obj").astype(int) % 2 == 1
    agreed = table["mean_grade"].isin([0.0, 3.0])
    assert agreed.sum() > CANDIDATES / 2
    assert (is_odd == (table["grade"] == "A"))[agreed].all()
    assert (table["label"] == table["grade"].isin(["A", "B"])).all()


def test_what_it_comes_of_is_noted(grading: Grading) -> None:
    result = combine(grading)
    facts = json.loads((result.output / layout.VETTING).read_text())
    assert facts == json.loads(json.dumps(result.record))
    assert facts["fingerprint"] == grading.record.fingerprint
    assert facts["candidates"] == facts["graded"] == facts["objects"] == CANDIDATES
    assert sum(facts["grades"].values()) == CANDIDATES
    assert facts["known"] is None
    assert facts["dataset"] is None
    # Each of the 10 of the slice stands for 5, and every other one is a lens.
    assert facts["survey"]["lenses"]["value"] == 15 + 5 * 5

    graders = json.loads((result.output / layout.GRADERS).read_text())
    assert graders == json.loads(json.dumps(result.graders))
    assert [grader["grader"] for grader in graders["graders"]] == ["anna", "bela"]


def test_a_grade_is_missing_where_nobody_gave_it(begun: Grading, tmp_path: Path) -> None:
    shutil.copytree(begun.folder, tmp_path / "grading")
    copy = open_grading(tmp_path / "grading")
    grade_all(copy, "anna", lambda number, lens: "C" if number < 10 else None)
    result = combine(copy, sheet="pdf")
    table = result.to_pandas()
    assert table["grade"].notna().sum() == (table["n_grades"] == 1).sum() > 0
    assert set(table.loc[table["grade"].isna(), "label"]) == {-1}
    assert "have no grade yet" in result.record["survey"]["why_not"]
    # No A and no B: nothing to show.
    assert {file.name for file in result.output.iterdir()} == ALWAYS


def test_a_file_that_a_page_saved_counts_too(grading: Grading, tmp_path: Path) -> None:
    saved = tmp_path / "cleo.jsonl"
    first = {"grading": grading.record.fingerprint, "grader": "cleo"}
    saved.write_text(json.dumps(first) + "\n")
    grade_all(grading, "cleo", lambda number, lens: "X", saved)
    assert set(combine(grading, saved).to_pandas()["n_grades"]) == {3}

    saved.write_text(json.dumps(first | {"grading": "another"}) + "\n")
    with pytest.raises(UserError, match=r"cleo\.jsonl: has grades of another grading"):
        combine(grading, saved)


@pytest.mark.parametrize("kept", [0, 30, 100, -2, -150])
def test_a_file_that_was_not_sent_whole_is_refused(
    kept: int, grading: Grading, tmp_path: Path
) -> None:
    saved = grade_all(grading, "cleo", lambda number, lens: "X", tmp_path / "cleo.jsonl")
    saved.write_bytes(saved.read_bytes()[:kept])
    lines = saved.read_bytes().count(b"\n") + 1
    with pytest.raises(UserError, match=rf"cleo\.jsonl: only its .* ends within line {lines}; "):
        combine(grading, saved)


def test_pictures_and_manifest_are_there_when_they_are_wanted(grading: Grading) -> None:
    result = combine(grading, sheet="png", zooniverse=True)
    names = {file.name for file in result.output.iterdir()}
    assert names == ALWAYS | {"contact_sheet.png", "zooniverse.csv", "zooniverse"}
    with Image.open(result.output / "contact_sheet.png") as picture:
        assert np.asarray(picture).std() > 10

    manifest = pd.read_csv(result.output / "zooniverse.csv")
    assert len(manifest) == CANDIDATES
    assert all((result.output / image).is_file() for image in manifest["image"])


def test_the_same_grades_make_the_same_files(grading: Grading) -> None:
    first = files_of(combine(grading).output)
    assert files_of(combine(grading).output) == first


# ---- known lenses, and the next dataset ----


def test_known_lenses_are_told_from_new_ones(grading: Grading, tmp_path: Path) -> None:
    (tmp_path / "known.csv").write_text("name,ra,dec\nSLACS 1,0.1,1.0001\nfar away,200,1\n")
    result = combine(grading, known=tmp_path / "known.csv")
    table = result.to_pandas().set_index("id")
    assert table.loc["obj1", "known_name"] == "SLACS 1"
    assert table.loc["obj1", "known_arcsec"] == pytest.approx(0.36, abs=1e-3)
    assert (table["known"].drop("obj1") == "new").all()
    assert result.record["known"]["objects"] == {"known": 1, "new": CANDIDATES - 1}


def test_candidates_join_the_next_dataset(grading: Grading, begun: Grading) -> None:
    """Those that are in it already, by their ids, do not join it again."""
    parent = begun.folder.with_name("hidden")
    result = combine(grading, into=parent)
    assert result.dataset is not None
    before, after = Dataset(parent)["train"], Dataset(result.dataset)["train"]
    added = {name: i for i, name in enumerate(after.ids().tolist()) if name not in before.ids()}
    assert len(added) == len(after) - len(before) == CANDIDATES - 20

    listed = result.to_pandas().set_index("id").loc[list(added)]
    rows = np.array(list(added.values()))
    assert after.take("labels", rows).tolist() == listed["label"].tolist()
    assert after.take("targets", rows) == pytest.approx(listed["target"].to_numpy())
    assert result.record["dataset"]["number"] == 1


def test_a_row_of_a_frozen_split_is_refused(grading: Grading, begun: Grading) -> None:
    parent = grading.folder.with_name("parent")
    pack_survey(begun.folder.with_name("hidden survey"), parent, "splits={train: 0.5, test: 0.5}")
    with pytest.raises(UserError, match="10 graded candidates belong to frozen splits"):
        combine(grading, into=parent)
    assert not grading.folder.with_name("vetted").exists()

    result = combine(grading, into=parent, frozen="leave_out")
    assert result.record["dataset"]["left_out"]["in_a_frozen_split"] == 10


# ---- what is refused, and what is kept ----


def test_what_is_read_is_never_replaced(grading: Grading) -> None:
    before = files_of(grading.folder)
    for output in (grading.folder, grading.folder.parent):
        with pytest.raises(UserError, match="all of it would be replaced; name another folder"):
            combine(grading, output=output)
    assert files_of(grading.folder) == before


def test_a_folder_of_something_else_is_refused(grading: Grading) -> None:
    output = grading.folder.with_name("vetted")
    output.mkdir()
    (output / "thesis.tex").write_text("all my work")
    with pytest.raises(UserError, match="holds something else than a vetted list"):
        combine(grading)
    assert (output / "thesis.tex").read_text() == "all my work"


def test_the_list_of_another_grading_is_refused(grading: Grading) -> None:
    output = combine(grading).output
    record = json.loads((output / layout.VETTING).read_text())
    other = json.dumps(record | {"fingerprint": "another", "grading": "of/somebody"})
    (output / layout.VETTING).write_text(other)
    with pytest.raises(UserError, match="the list of another grading, of/somebody; name another"):
        combine(grading)


def test_a_list_that_cannot_be_written_leaves_the_older_one(
    grading: Grading, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_of(combine(grading).output)

    def fail(folder: Path, *rest: Any) -> None:
        (folder / "half").write_text("of a list")
        raise OSError(28, "No space left on device", str(folder))

    grade_all(grading, "dora", lambda number, lens: "C")
    monkeypatch.setattr(vetted, "write_list", fail)
    with pytest.raises(UserError, match="No space left"):
        combine(grading)
    assert files_of(grading.folder.with_name("vetted")) == before


def test_without_a_grade_there_is_no_list(begun: Grading, tmp_path: Path) -> None:
    shutil.copytree(begun.folder, tmp_path / "grading")
    with pytest.raises(UserError, match="nobody has graded anything yet"):
        combine(open_grading(tmp_path / "grading"))
    assert not (tmp_path / "vetted").exists()


def test_a_grade_of_an_unknown_item_is_named(grading: Grading) -> None:
    file = grading.folder / layout.GRADES / "anna.jsonl"
    line = json.loads(file.read_text().splitlines()[1])
    with file.open("a") as lines:
        lines.write(json.dumps(line | {"item": "i999999"}) + "\n")
    with pytest.raises(UserError, match="no items of 1 grades, such as i999999 by anna"):
        combine(grading)


def test_other_candidates_than_were_graded_are_refused(grading: Grading) -> None:
    other = grading.folder.with_name("other")
    pack_survey(
        write_survey(other / "survey", rows=50), other / "packed", "splits={candidates: 1.0}"
    )
    record = json.loads((grading.folder / layout.GRADING).read_text())
    record["datasets"]["candidate"]["path"] = str(other / "packed")
    (grading.folder / layout.GRADING).write_text(json.dumps(record))
    with pytest.raises(UserError, match="has others than the candidates that were graded"):
        combine(open_grading(grading.folder), sheet="pdf")
    # The list alone needs no pixels.
    assert len(combine(open_grading(grading.folder)).to_pandas()) == CANDIDATES
