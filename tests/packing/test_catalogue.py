from pathlib import Path

import numpy as np
import pytest

from lens_hpc import settings
from lens_hpc.errors import UserError
from lens_hpc.packing.catalogue import read_catalogue
from lens_hpc.packing.recipe import Recipe
from tests.conftest import write_survey

RECIPE = (
    "name=toy",
    "catalogue=catalogue.csv",
    "images='{id}.npy'",
    "bands=[g, r]",
    "pixel_scale=0.2",
    "units=x",
    "columns.features=[radius, colour]",
)


def recipe(*overrides: str) -> Recipe:
    return settings.load(Recipe, overrides=[*RECIPE, *overrides])


def refusal(survey: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        read_catalogue(recipe(*overrides), survey)
    return str(error.value)


def test_rows_are_read_as_they_stand(survey: Path) -> None:
    catalogue = read_catalogue(recipe("columns.group=is_lens"), survey)
    assert len(catalogue) == 40
    assert list(catalogue.ids[:2]) == ["obj0", "obj1"]
    assert list(catalogue.labels[:4]) == [0, 1, 0, 1]
    assert catalogue.features.shape == (40, 2)
    assert catalogue.features.dtype == np.float32
    assert list(np.flatnonzero(np.isnan(catalogue.features[:, 1]))) == [0, 7, 14, 21, 28, 35]
    assert catalogue.paths[3].tolist() == ["obj3.npy"]
    assert catalogue.groups is not None
    assert catalogue.splits is None
    assert catalogue.bad == {}


def test_an_empty_label_is_unlabelled(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=4, is_lens=["1", "", "nan", "0.0"])
    assert list(read_catalogue(recipe(), survey).labels) == [1, -1, -1, 0]
    assert list(read_catalogue(recipe("columns.label=null"), survey).labels) == [-1] * 4


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "there is no such folder" in refusal(tmp_path / "nowhere")


def test_a_column_that_is_not_there_is_named_with_those_that_are(survey: Path) -> None:
    reason = refusal(survey, "columns.label=lens")
    assert "no column 'lens' (columns.label); it has: id, is_lens, radius, colour" in reason
    assert "'nome' (images)" in refusal(survey, "images='{nome}.npy'")
    assert "'flux' (columns.features)" in refusal(survey, "columns.features=[flux]")


def test_a_feature_that_decides_the_label_is_refused(survey: Path) -> None:
    assert "radius decides the label" in refusal(survey, "columns.label=radius > 0.5")


@pytest.mark.parametrize(
    ("column", "values", "bad"),
    [
        ("is_lens", ["0", "1", "2", "1"], {2: "is_lens = '2' is not 0, 1 or empty"}),
        (
            "radius",
            ["1", "big", "1e999", ""],
            {
                1: "radius = 'big' is not a finite number",
                2: "radius = '1e999' is not a finite number",
            },
        ),
        (
            "id",
            ["obj0", "obj1", "obj0", "obj3"],
            {0: "the id stands twice", 2: "the id stands twice"},
        ),
        ("id", ["obj0", "", "obj2", "obj3"], {1: "the id is empty"}),
        ("id", ["obj0", "none", "obj2", "obj3"], {1: "none.npy: there is no such file"}),
        (
            "id",
            ["obj0", "../s/obj1", "obj2", "obj3"],
            {1: "../s/obj1.npy: leaves the source folder"},
        ),
        ("id", ["obj0", "/obj1", "obj2", "obj3"], {1: "/obj1.npy: leaves the source folder"}),
    ],
)
def test_a_bad_row_is_known_with_its_reason(
    tmp_path: Path, column: str, values: list[str], bad: dict[int, str]
) -> None:
    survey = write_survey(tmp_path / "s", rows=4, **{column: values})
    assert read_catalogue(recipe(), survey).bad == bad


def test_links_may_not_lead_out_of_the_source(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=4)
    outside = tmp_path / "outside.npy"
    (survey / "obj1.npy").rename(outside)
    (survey / "obj1.npy").symlink_to(outside)
    (survey / "obj3.npy").unlink()
    (survey / "obj3.npy").symlink_to(survey / "obj2.npy")
    bad = read_catalogue(recipe(), survey).bad
    assert bad == {1: "obj1.npy: a link leads out of the source folder"}


def test_rows_without_a_group_are_bad(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=4, field=["a", "", "a", "b"])
    bad = read_catalogue(recipe("columns.group=field"), survey).bad
    assert bad == {1: "the group is empty"}


def test_a_split_must_be_a_name(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=4, part=["train", "a/b", "train", "test"])
    bad = read_catalogue(recipe("columns.split=part"), survey).bad
    assert bad == {1: "'a/b' is no name of a split"}
