from pathlib import Path

import numpy as np
import pytest

from lens_hpc import UserError, config
from lens_hpc.data import catalogue
from tests.conftest import write_survey


def recipe(*overrides: str) -> config.Recipe:
    base = ["name=toy", "catalogue=catalogue.csv", "images='{id}.npy'", "bands=[g, r]", "pixel_scale=0.2"]
    return config.load(config.Recipe, overrides=[*base, "units=x", "columns.features=[radius, colour]", *overrides])


def refusal(survey: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        catalogue.read(recipe(*overrides), survey)
    return str(error.value)


def test_rows_are_read_as_they_stand(survey: Path) -> None:
    rows = catalogue.read(recipe("columns.group=is_lens"), survey)
    assert list(rows.ids[:2]) == ["obj0", "obj1"]
    assert list(rows.labels[:4]) == [0, 1, 0, 1]
    assert rows.features.shape == (40, 2)
    assert rows.features.dtype == np.float32
    assert list(np.flatnonzero(np.isnan(rows.features[:, 1]))) == [0, 7, 14, 21, 28, 35]
    assert rows.paths[3].tolist() == ["obj3.npy"]
    assert rows.groups is not None
    assert rows.splits is None
    assert rows.bad == {}


def test_an_empty_label_is_unlabelled(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=4, is_lens=["1", "", "nan", "0.0"])
    assert list(catalogue.read(recipe(), survey).labels) == [1, -1, -1, 0]
    assert list(catalogue.read(recipe("columns.label=null"), survey).labels) == [-1] * 4


def test_a_column_that_is_not_there_is_named_with_those_that_are(survey: Path) -> None:
    said = refusal(survey, "columns.label=lens")
    assert "no column 'lens' (columns.label); it has: id, is_lens, radius, colour" in said
    assert "'nome' (images)" in refusal(survey, "images='{nome}.npy'")
    assert "'flux' (columns.features)" in refusal(survey, "columns.features=[flux]")


def test_a_feature_that_decides_the_label_is_refused(survey: Path) -> None:
    assert "radius decides the label" in refusal(survey, "columns.label=radius > 0.5")
    assert "must not hold the id, label" in refusal_of_settings("columns.features=[radius, is_lens]")
    assert "must differ from each other" in refusal_of_settings("columns.features=[radius, radius]")


def refusal_of_settings(*overrides: str) -> str:
    with pytest.raises(UserError) as error:
        recipe(*overrides)
    return str(error.value)


@pytest.mark.parametrize(
    ("column", "values", "bad"),
    [
        ("is_lens", ["0", "1", "2", "1"], {2: "is_lens = '2' is not 0, 1 or empty"}),
        ("radius", ["1", "big", "1e999", ""], {
            1: "radius = 'big' is not a finite number", 2: "radius = '1e999' is not a finite number",
        }),
        ("id", ["obj0", "obj1", "obj0", "obj3"], {0: "the id stands twice", 2: "the id stands twice"}),
        ("id", ["obj0", "", "obj2", "obj3"], {1: "the id is empty"}),
        ("id", ["obj0", "none", "obj2", "obj3"], {1: "none.npy: there is no such file"}),
        ("id", ["obj0", "../s/obj1", "obj2", "obj3"], {1: "../s/obj1.npy: leaves the source folder"}),
        ("id", ["obj0", "/obj1", "obj2", "obj3"], {1: "/obj1.npy: leaves the source folder"}),
    ],
)  # fmt: skip
def test_a_bad_row_is_known_with_its_reason(
    tmp_path: Path, column: str, values: list[str], bad: dict[int, str]
) -> None:
    survey = write_survey(tmp_path / "s", rows=4, **{column: values})
    assert catalogue.read(recipe(), survey).bad == bad


def test_links_may_not_lead_out_of_the_source(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=4)
    outside = tmp_path / "outside.npy"
    (survey / "obj1.npy").rename(outside)
    (survey / "obj1.npy").symlink_to(outside)
    (survey / "obj3.npy").unlink()
    (survey / "obj3.npy").symlink_to(survey / "obj2.npy")
    assert catalogue.read(recipe(), survey).bad == {1: "obj1.npy: a link leads out of the source folder"}


def test_rows_without_a_group_are_bad(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=4, field=["a", "", "a", "b"])
    assert catalogue.read(recipe("columns.group=field"), survey).bad == {1: "the group is empty"}


def test_a_catalogue_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "no such catalogue; is source= the folder that holds it?" in refusal(tmp_path)
    file = tmp_path / "catalogue.csv"
    for text, said in (
        ("id,is_lens\n", "has no rows"),
        ("", "has no rows"),
        ("id,is_lens\na,1,2\n", "row 1 has 3 cells, the header 2; mend the row"),
        ("id,is_lens,x\na,1,2\nb,1\n", "row 2 has 2 cells, the header 3"),
        ("id,is_lens,id\na,1,2\n", "the column 'id' stands twice"),
    ):
        file.write_text(text)
        assert said in refusal(tmp_path), text
    (tmp_path / "catalogue.fits").write_bytes(b"junk")
    assert "catalogue.fits: cannot be read as a catalogue" in refusal(tmp_path, "catalogue=catalogue.fits")


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=4)
    file = survey / "catalogue.csv"
    file.write_text("\ufeff" + file.read_text())
    assert catalogue.read(recipe(), survey).ids[0] == "obj0"
