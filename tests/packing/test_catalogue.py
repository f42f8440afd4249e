import json
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from astropy.table import Table

from lens_hpc import settings
from lens_hpc.errors import UserError
from lens_hpc.packing.catalogue import read_catalogue
from lens_hpc.packing.cells import make_table
from lens_hpc.packing.missing import (
    find_suspects,
    mark_missing,
    remedy,
    warn_of_suspects,
)
from lens_hpc.packing.reasons import one_reason
from lens_hpc.packing.recipe import Recipe
from tests.conftest import pack_survey, write_survey

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
                1: "radius = 'big' is not a finite number; if it stands for no value: "
                "columns.missing={'radius': ['big']}",
                2: "radius = '1e999' is not a finite number; if it stands for no value: "
                "columns.missing={'radius': ['1e999']}",
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
    reason = "a link leads out of the source folder; follow_links=true reads it"
    assert bad == {1: f"obj1.npy: {reason}"}
    assert read_catalogue(recipe("follow_links=true"), survey).bad == {}


def test_rows_without_a_group_are_bad(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=4, field=["a", "", "a", "b"])
    bad = read_catalogue(recipe("columns.group=field"), survey).bad
    assert bad == {1: "the group is empty"}


def test_a_split_must_be_a_name(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=4, part=["train", "a/b", "train", "test"])
    bad = read_catalogue(recipe("columns.split=part"), survey).bad
    assert bad == {1: "'a/b' is no name of a split"}


# ---- missing values ----


def write_table(folder: Path, **columns: list) -> Path:
    """A catalogue of ten rows and their images, with columns beside the id."""
    table = pd.DataFrame({"id": [f"obj{i}" for i in range(10)], "is_lens": [0, 1] * 5} | columns)
    write_survey(folder, rows=10)
    table.to_csv(folder / "catalogue.csv", index=False)
    return folder


FEATURE = "columns.features=[mag]"


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("[-99]", [True, True, True, False, False]),
        ("[-99.0, '-']", [True, True, True, True, False]),
        ("{mag: ['-99', '-', not measured]}", [True] * 5),
        ("{mag: ['-', Not Measured]}", [False, False, False, True, True]),
    ],
)
def test_a_word_for_no_value_is_a_missing_value(
    tmp_path: Path, missing: str, expected: list[bool]
) -> None:
    given = ["-99", "-99.0", "-9.9e1", "-", "not measured", *["20"] * 5]
    survey = write_table(tmp_path / "s", mag=given)
    catalogue = read_catalogue(recipe(FEATURE, f"columns.missing={missing}"), survey)
    is_text = [i in (3, 4) and not gone for i, gone in enumerate(expected)]
    assert np.isnan(catalogue.features[:5, 0]).tolist() == [
        gone or text for gone, text in zip(expected, is_text, strict=True)
    ]
    assert sorted(catalogue.bad) == np.flatnonzero(is_text).tolist()


def test_words_for_no_value_are_no_matter_of_ids(tmp_path: Path) -> None:
    survey = write_table(tmp_path / "s", part=["obj1", "a"] * 5)
    settings_ = ("columns.features=[]", "columns.missing=[obj1]", "columns.group=part")
    bad = read_catalogue(recipe(*settings_), survey).bad
    assert bad == dict.fromkeys(range(0, 10, 2), "the group is empty")
    reason = refusal(survey, "columns.features=[]", "columns.missing={mga: [-99]}")
    assert "no column 'mga' (columns.missing)" in reason


def test_float32_is_compared_as_float32(tmp_path: Path) -> None:
    survey = write_table(tmp_path / "s")
    mag = pa.array([-99.9] * 4 + [20.0] * 6, pa.float32())
    ids = [f"obj{i}" for i in range(10)]
    pq.write_table(pa.table({"id": ids, "is_lens": [0, 1] * 5, "mag": mag}), survey / "c.parquet")
    settings_ = ("catalogue=c.parquet", FEATURE, "columns.missing=[-99.9]")
    catalogue = read_catalogue(recipe(*settings_), survey)
    assert np.isnan(catalogue.features[:, 0]).sum() == 4


@pytest.mark.parametrize(
    ("values", "is_suspect"),
    [
        ([20 + i / 10 for i in range(28)] + [-999, -999], True),
        ([18 + i / 3 for i in range(28)] + [99, 99], True),
        ([i / 10 for i in range(28)] + [-99, -99], True),
        ([i / 10 for i in range(29)] + [-99], True),
        ([i / 10 for i in range(2800)] + [-99], False),
        ([i / 1000 for i in range(2800)] + [99], True),
        ([i / 1000 for i in range(2772)] + [-99] * 28, True),
        ([0, 1] * 15 + [-99, -99], True),
        ([2.0**i for i in range(30)], False),
        ([i / 10 for i in range(28)] + [3, 3], False),
        ([0, 1] * 15, False),
        ([5] * 28 + [-99] * 2, False),
        ([None] * 30, False),
    ],
)
def test_a_value_far_outside_is_warned_of(
    caplog: pytest.LogCaptureFixture, values: list[float | None], is_suspect: bool
) -> None:
    table = make_table({"mag": pa.array(values, pa.float64())}, ["mag"], ["mag"])
    warn_of_suspects(table, "mag", np.array(values, dtype=np.float32))
    assert ("columns.missing={'mag': ['" in caplog.text) == is_suspect


def test_suspects_do_not_hide_each_other() -> None:
    inner = np.random.default_rng(0).normal(20, 2, 1000).astype(np.float32)
    values = np.concatenate([inner, [-99] * 20, [99] * 20, [-9999] * 20, [np.nan]])
    found = find_suspects(values)
    assert {(one.value, one.rows) for one in found} == {(-99, 20), (99, 20), (-9999, 20)}


def test_long_tails_are_no_suspects() -> None:
    rng = np.random.default_rng(0)
    tails = [rng.lognormal(size=3000), rng.exponential(size=3000), rng.normal(size=3000)]
    assert not any(find_suspects(values.astype(np.float32)) for values in tails)


@pytest.mark.parametrize(
    ("column", "word"),
    [
        (pa.array([-99.12345] * 2 + [20 + i / 10 for i in range(28)], pa.float32()), "-99.12345"),
        (pa.array([-9999999] * 2 + [*range(20, 48)]), "-9999999"),
        (pa.array(["-99.1234567"] * 2 + [str(20 + i) for i in range(28)]), "-99.1234567"),
    ],
)
def test_the_word_that_is_suggested_is_the_cells_own(
    caplog: pytest.LogCaptureFixture, column: pa.Array, word: str
) -> None:
    table = make_table({"m'g": column}, ["m'g"], ["m'g"])
    values = np.array(column.to_pylist(), dtype=np.float32)
    warn_of_suspects(table, "m'g", values)
    suggested = caplog.text.strip().rpartition("columns.missing=")[2]
    assert yaml.safe_load(suggested) == {"m'g": [word]}
    assert mark_missing(table, {"m'g": [word]}, []).columns["m'g"].null_count == 2


@pytest.mark.parametrize("word", [-(2**63), 2**63 - 1, 2**53 + 1])
def test_large_numbers_for_no_value_are_compared_exactly(word: int) -> None:
    cells = pa.array([word, word + 1 if word < 0 else word - 1, 5])
    for column in (cells, cells.cast(pa.large_string())):
        table = make_table({"n": column}, ["n"], ["n"])
        marked = mark_missing(table, {"n": [str(word), f"{word:+d}"]}, []).columns["n"]
        assert marked.is_null().to_pylist() == [True, False, False]


@pytest.mark.parametrize("text", ["it's", "a\nb", "x: [1]", "", "\0"])
def test_a_remedy_is_yaml(text: str) -> None:
    suggested = remedy(text, text).removeprefix("columns.missing=")
    assert yaml.safe_load(suggested) == {text: [text]}


# ---- labels ----


def test_labels_by_condition_have_three_values(tmp_path: Path) -> None:
    """pandas-dev/pandas#24722 and #2434: a comparison with a missing value is no false."""
    survey = write_table(
        tmp_path / "s",
        kind=["", "lens", "galaxy", "nan", *["lens"] * 6],
        n=[0, 0, 1, 1, *[1] * 6],
        mag=["", "1", "2", "", *["1"] * 6],
        score=["bad", *range(9)],
    )
    none = "columns.features=[]"
    labels = read_catalogue(recipe(none, "columns.label=kind != 'galaxy'"), survey).labels
    assert labels[:4].tolist() == [-1, 1, 0, -1]
    labels = read_catalogue(recipe(none, "columns.label=n > 0 & mag > 1.6"), survey).labels
    assert labels[:4].tolist() == [0, 0, 1, -1]
    bad = read_catalogue(recipe(none, "columns.label=score > 5"), survey).bad
    assert bad == {0: "score = 'bad' is not a number, as columns.label needs"}


def test_labels_have_the_type_of_their_file(tmp_path: Path) -> None:
    survey = write_table(tmp_path / "s")
    ids = [f"obj{i}" for i in range(4)]
    for number, values in enumerate(
        ([True, False, None, True], [1.0, 0.0, None, 1.0], [1, 0, None, 1], ["1", "0", "", "TRUE"])
    ):
        pq.write_table(pa.table({"id": ids, "is_lens": values}), survey / f"{number}.parquet")
        catalogue = read_catalogue(
            recipe("columns.features=[]", f"catalogue={number}.parquet"), survey
        )
        assert catalogue.labels.tolist() == [1, 0, -1, 1]


def test_large_ids_beside_a_missing_one_stay_as_they_are(tmp_path: Path) -> None:
    """astrolabsoftware/fink-client#235: an int64 column with a null is no column of floats."""
    survey = write_table(tmp_path / "s")
    parents = [2305843033332768000 + 100 * i for i in range(9)]
    columns = {"id": [f"obj{i}" for i in range(10)], "is_lens": [0, 1] * 5}
    table = pa.table(columns | {"parent": pa.array([*parents, None], pa.int64())})
    pq.write_table(table, survey / "c.parquet")
    catalogue = read_catalogue(
        recipe("catalogue=c.parquet", "columns.features=[]", "columns.group=parent"), survey
    )
    assert catalogue.groups.tolist() == [*map(str, parents), ""]


# ---- rows and columns that a recipe chooses ----


def test_where_chooses_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    survey = write_table(tmp_path / "s", snr=["1", "9", "", "9", "bad", *["9"] * 5])
    caplog.set_level("INFO", logger="lens_hpc")
    catalogue = read_catalogue(recipe("columns.features=[]", "where=snr > 5"), survey)
    assert catalogue.table_rows.tolist() == [1, 3, 4, 5, 6, 7, 8, 9]
    assert catalogue.ids.tolist() == [f"obj{i}" for i in catalogue.table_rows]
    assert catalogue.table_length == 10
    assert catalogue.bad == {2: "snr = 'bad' is not a number, as where needs"}
    assert "leaves out 1 rows, and 1 for which it is unknown" in caplog.text
    reason = refusal(survey, "columns.features=[]", "where=is_lens == 7")
    assert "where = is_lens == 7: holds for none of 10 rows" in reason


def test_tables_are_joined_by_a_key(tmp_path: Path) -> None:
    survey = write_table(tmp_path / "s", object_id=[700 + i for i in range(10)])
    other = pd.DataFrame({"OBJ": [709.0, 701.0, 55.0], "mag": [9, 1, 5], "unused": [1, 2, 3]})
    Table.from_pandas(other).write(survey / "more.fits")
    (survey / "grades.csv").write_text("id,grade\nobj1,A\nobj2,B\n")
    joins = (
        "join=[{catalogue: more.fits, key: object_id, key_there: OBJ}, "
        "{catalogue: grades.csv, key: id}]"
    )
    catalogue = read_catalogue(recipe(FEATURE, joins, "columns.label=grade == 'A'"), survey)
    assert np.flatnonzero(~np.isnan(catalogue.features[:, 0])).tolist() == [1, 9]
    assert catalogue.features[[1, 9], 0].tolist() == [1, 9]
    assert catalogue.labels.tolist() == [-1, 1, 0, *[-1] * 7]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("id,mag\nobj1,1\nobj1,2\n", "1 values of id stand more than once, such as obj1"),
        ("id,mag\nx,1\n", "no id is any row's id, such as obj0, obj1, obj2; here it is such as x"),
        ("name,mag\nx,1\n", "join: no column 'id' in"),
        ("id,mag,is_lens\nobj1,1,1\n", "the column 'is_lens' stands in an earlier catalogue"),
    ],
)
def test_a_join_that_is_not_clear_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    survey = write_table(tmp_path / "s")
    (survey / "more.csv").write_text(text)
    assert reason in refusal(survey, FEATURE, "join={catalogue: more.csv, key: id}")


def test_targets_weights_and_kept_columns(tmp_path: Path) -> None:
    survey = write_table(
        tmp_path / "s",
        vote=["0.5", "", "2", *["1"] * 7],
        weight=["2", "", "1", "-1", *["1"] * 6],
        ra=["150.1", "", *["2.5"] * 8],
        source=[2305843033332768001] * 10,
        note=["a", "1", *["x"] * 8],
    )
    catalogue = read_catalogue(
        recipe(
            "columns.features=[]",
            "columns.target=vote",
            "columns.weight=weight",
            "columns.keep=[note, ra, source]",
        ),
        survey,
    )
    np.testing.assert_array_equal(catalogue.targets[:2], [0.5, np.nan])
    assert catalogue.weights[:2].tolist() == [2, 1]
    assert catalogue.bad == {2: "vote is not from 0 to 1", 3: "weight is negative"}
    kept = pa.Table.from_pandas(catalogue.kept, preserve_index=False)
    assert kept.column_names == ["note", "ra", "source"]
    assert [str(kind) for kind in kept.schema.types] == ["large_string", "double", "int64"]
    assert kept["ra"][:3].to_pylist() == [150.1, None, 2.5]
    assert kept["source"][0].as_py() == 2305843033332768001


def test_a_row_has_its_number(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=4)
    for i in range(4):
        (survey / f"obj{i}.npy").rename(survey / f"cutout_{i:05d}.npy")
    catalogue = read_catalogue(
        recipe("images='cutout_{row:05d}.npy'", "where=radius != 99"), survey
    )
    assert catalogue.paths[3].tolist() == ["cutout_00003.npy"]
    assert catalogue.bad == {}


def test_each_row_has_its_own_alternative(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=4)
    (survey / "more").mkdir()
    (survey / "obj2.npy").rename(survey / "more" / "obj2.npy")
    catalogue = read_catalogue(recipe("images=['{id}.npy', 'more/{id}.npy']"), survey)
    assert catalogue.bad == {}
    assert catalogue.paths[:, 0].tolist() == ["obj0.npy", "obj1.npy", "more/obj2.npy", "obj3.npy"]


def test_a_tar_is_like_a_folder(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=4)
    with tarfile.open(survey / "all.tar", "w") as archive:
        for i in range(3):
            (survey / f"obj{i}.json").write_text(json.dumps({"id": f"obj{i}", "is_lens": i % 2}))
            for name in (f"obj{i}.npy", f"obj{i}.json"):
                archive.add(survey / name, name)
                (survey / name).unlink()
    none = "columns.features=[]"
    catalogue = read_catalogue(recipe(none, "images='all.tar/{id}.npy'"), survey)
    assert catalogue.bad == {3: "all.tar/obj3.npy: there is no such member of the archive"}
    assert len(set(catalogue.stamps.tolist())) == 4

    told = ("catalogue=all.tar", "images='{__tar__}/{__key__}.npy'")
    catalogue = read_catalogue(recipe(none, *told), survey)
    assert catalogue.bad == {}
    assert catalogue.labels.tolist() == [0, 1, 0]
    found = ("catalogue=null", "images='{id}.npy'", "columns.label=null")
    catalogue = read_catalogue(recipe(none, *found, "images='all.tar/{id}.npy'"), survey)
    assert catalogue.ids.tolist() == ["obj0", "obj1", "obj2"]
    (survey / "all.tar").write_bytes(b"junk")
    reason = "all.tar: cannot be read as a tar archive"
    bad = read_catalogue(recipe(none, "images='all.tar/{id}.npy'"), survey).bad
    assert bad[0].startswith(reason)
    assert "cannot be read as a catalogue" in refusal(survey, *told)


@pytest.mark.parametrize(
    ("images", "guess"),
    [
        ("cutouts/{id}.npy", "There is no folder 'cutouts'"),
        ("cutouts/{id}.npy", "but obj0.npy is there: mend the folders in images"),
        ("{id}.fits", "There is obj0.npy in"),
        ("cutout_{id}.npy", "holds catalogue.csv, obj0.npy, obj1.npy and more"),
    ],
)
def test_that_no_row_has_its_file_is_said_once(survey: Path, images: str, guess: str) -> None:
    reason = refusal(survey, f"images='{images}'")
    assert "none of the 40 rows has its file, such as " in reason
    assert guess in reason
    assert reason.count("obj0") <= 3


def test_a_label_column_that_is_not_there_may_be_none(survey: Path) -> None:
    assert refusal(survey, "columns.label=lens") == (
        "catalogue.csv: no column 'lens' (columns.label); it has: id, is_lens, radius, colour. "
        "Name the right columns in the recipe; if there are no labels, say columns.label: null"
    )


def test_a_reason_that_all_rows_share_is_said_once() -> None:
    bad = {row: f"score = 'a{row}' is not a number" for row in range(4)}
    assert one_reason(bad, 5) is None
    reason = one_reason(bad, 4)
    assert reason == "all of them for one reason, as row 1: score = 'a0' is not a number"
    assert one_reason(bad | {3: "the id is empty"}, 4) is None


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("images", "{"),
        ("images", "{id:(}.npy"),
        ("images", "}.npy"),
        ("hdu", "{id!r}"),
        ("key", "{band"),
        ("columns", "{id: '{id:x}', label: is_lens}"),
    ],
)
def test_a_setting_that_is_no_template_is_named(
    survey: Path, tmp_path: Path, setting: str, value: str
) -> None:
    value = value if setting == "columns" else f"'{value}'"
    named = "columns.id" if setting == "columns" else setting
    with pytest.raises(UserError, match=f"^{named}: .*(is not a template|a number's width)"):
        pack_survey(survey, tmp_path / "d", f"{setting}={value}")


@pytest.mark.parametrize("images", ["[]", "{g: [], r: r.npy}"])
def test_an_empty_list_of_images_is_named(survey: Path, tmp_path: Path, images: str) -> None:
    with pytest.raises(UserError, match=r"^images: an empty list names no file"):
        pack_survey(survey, tmp_path / "d", f"images={images}")
