from pathlib import Path

import numpy as np
import pytest

from lens_hpc import UserError, config
from lens_hpc.data import catalogue
from tests.conftest import write_survey


def recipe(*overrides: str) -> config.Recipe:
    base = [
        "name=toy",
        "catalogue=catalogue.csv",
        "images='{id}.npy'",
        "bands=[g, r]",
        "pixel_scale=0.2",
        "units=counts",
    ]
    return config.load(config.Recipe, overrides=[*base, "columns.features=[radius, colour]", *overrides])


def refusal(survey: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        catalogue.read(recipe(*overrides), survey)
    return str(error.value)


def test_rows_are_read_as_they_stand(survey: Path) -> None:
    rows = catalogue.read(recipe("columns.group=radius"), survey)
    assert list(rows.ids[:2]) == ["obj0", "obj1"]
    assert list(rows.labels[:4]) == [0, 1, 0, 1]
    assert rows.features.shape == (40, 2)
    assert rows.features.dtype == np.float32
    assert list(np.flatnonzero(np.isnan(rows.features[:, 1]))) == [0, 7, 14, 21, 28, 35]
    assert rows.paths[3] == "obj3.npy"
    assert rows.groups is not None
    assert rows.splits is None


def test_an_empty_label_is_unlabelled(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=4, is_lens=["1", "", "nan", "0.0"])
    assert list(catalogue.read(recipe(), survey).labels) == [1, -1, -1, 0]
    assert list(catalogue.read(recipe("columns.label=null"), survey).labels) == [-1] * 4


def test_a_column_that_is_not_there_is_named_with_those_that_are(survey: Path) -> None:
    said = refusal(survey, "columns.label=lens")
    assert "no column 'lens' (columns.label); it has: id, is_lens, radius, colour" in said
    assert "'nome' (images {nome})" in refusal(survey, "images='{nome}.npy'")
    assert "'flux' (columns.features[0])" in refusal(survey, "columns.features=[flux]")


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        (
            "is_lens",
            ["0", "1", "2", "1"],
            "1 of 4 rows have is_lens values that are not 0, 1 or empty:\n  line 4, id obj2: '2'",
        ),
        (
            "radius",
            ["1", "big", "1e999", ""],
            "2 of 4 rows have radius values that are not finite numbers:\n  line 3, id obj1: 'big'",
        ),
        ("id", ["a", "b", "a", "c"], "ids that stand twice:\n  line 2, id a"),
        ("id", ["obj0", "", "obj2", "obj3"], "empty ids:\n  line 3"),
        ("id", ["obj0", "none", "obj2", "obj3"], "no image file in"),
        ("id", ["obj0", "../s/obj1", "obj2", "obj3"], "leave the source folder"),
    ],
)
def test_a_bad_cell_is_named_with_its_line(tmp_path: Path, column: str, values: list[str], said: str) -> None:
    survey = write_survey(tmp_path / "s", rows=4, **{column: values})
    assert said in refusal(survey)


def test_twenty_bad_rows_are_listed_and_the_rest_counted(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=30, is_lens=["x"] * 30)
    said = refusal(survey)
    assert said.count("line ") == 20
    assert said.endswith("and 10 more")


def test_a_missing_or_empty_catalogue_is_named(tmp_path: Path) -> None:
    assert "no such catalogue; is source= the folder that holds it?" in refusal(tmp_path)
    (tmp_path / "catalogue.csv").write_text("id,is_lens\n")
    assert "has no rows" in refusal(tmp_path)
    (tmp_path / "catalogue.csv").write_text('id,is_lens\n"a')
    assert "cannot be read as CSV" in refusal(tmp_path)
