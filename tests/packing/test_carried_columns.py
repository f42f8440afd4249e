"""Soft labels, weights and kept columns: stored beside the data, each value as it was."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.dataset.positions import find_position_columns, positions_of
from lens_hpc.errors import UserError
from tests.conftest import call, pack_survey, write_survey

ROWS = 40
TABLE = {
    "p_lens": ["" if i % 5 == 0 else f"{i / 40}" for i in range(ROWS)],
    "trust": ["" if i % 7 == 0 else f"{i}" for i in range(ROWS)],
    "ra": [f"{i}.25" for i in range(ROWS)],
    "dec": [f"-{i}.5" for i in range(ROWS)],
    "class": [("spiral", "ring, or arc", "", "é")[i % 4] for i in range(ROWS)],
    "source_id": [str(2**62 + i) if i % 3 else "" for i in range(ROWS)],
}
CARRIED = ("columns.target=p_lens", "columns.weight=trust")
KEEP = "columns.keep=[ra, dec, class, source_id]"


def test_targets_and_weights_are_stored(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", **TABLE)
    dataset = Dataset(pack_survey(survey, tmp_path / "d", *CARRIED))
    for split in dataset.values():
        for sample in split:
            row = int(sample.id.removeprefix("obj"))
            expected = np.float32("nan") if row % 5 == 0 else np.float32(row / 40)
            np.testing.assert_equal(np.float32(sample.target), expected)
            assert sample.weight == (1 if row % 7 == 0 else row)
    call("verify", tmp_path / "d")


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("p_lens", "1.5", "p_lens"),
        ("p_lens", "-0.1", "p_lens"),
        ("p_lens", "many", "p_lens"),
        ("trust", "-1", "trust"),
        ("trust", "inf", "trust"),
    ],
)
def test_a_wrong_target_or_weight_is_a_bad_row(
    tmp_path: Path, column: str, value: str, told: str
) -> None:
    values = [*TABLE[column]]
    values[11] = value
    survey = write_survey(tmp_path / "s", **(TABLE | {column: values}))
    with pytest.raises(UserError, match=f"row 12, id obj11: .*{told}"):
        pack_survey(survey, tmp_path / "d", *CARRIED)


def test_kept_columns_lie_beside_the_data_with_their_types(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", **TABLE)
    dataset = pack_survey(survey, tmp_path / "d", KEEP)
    table = pd.read_parquet(dataset / "columns.parquet", dtype_backend="pyarrow").set_index("id")
    assert len(table) == ROWS
    assert list(table.columns) == ["ra", "dec", "class", "source_id"]
    for row in range(ROWS):
        kept = table.loc[f"obj{row}"]
        assert (kept["ra"], kept["dec"]) == (row + 0.25, -row - 0.5)
        text = TABLE["class"][row]
        assert pd.isna(kept["class"]) if not text else kept["class"] == text
        number = TABLE["source_id"][row]
        assert pd.isna(kept["source_id"]) if not number else int(kept["source_id"]) == int(number)

    split = Dataset(dataset)["train"]
    kept = split.kept_columns()
    assert kept.index.tolist() == split.ids().tolist()
    assert positions_of(kept)[0].tolist() == [kept["ra"].iloc[0], kept["dec"].iloc[0]]
    frame = split.to_pandas()
    assert list(frame.columns[-4:]) == ["ra", "dec", "class", "source_id"]
    assert frame["ra"].tolist() == kept["ra"].tolist()
    assert len(read_manifest(dataset).features) == 2


def test_verify_reads_the_kept_columns(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", **TABLE)
    dataset = pack_survey(survey, tmp_path / "d", KEEP)
    call("verify", dataset)
    file = dataset / "columns.parquet"
    content = bytearray(file.read_bytes())
    content[50] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"1 of 4 files are damaged.*\n.*columns\.parquet: is dama"):
        call("verify", dataset)
    with pytest.raises(UserError, match=r"columns\.parquet: is damaged"):
        Dataset(dataset)["train"].kept_columns()
    file.unlink()
    with pytest.raises(UserError, match=r"columns\.parquet: is missing"):
        call("verify", dataset)


def test_rejected_rows_are_not_kept(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", **TABLE)
    (survey / "obj3.npy").write_bytes(b"junk")
    dataset = Dataset(pack_survey(survey, tmp_path / "d", KEEP, "on_bad=skip"))
    for split in dataset.values():
        for name, ra in split.kept_columns()["ra"].items():
            assert ra == int(str(name).removeprefix("obj")) + 0.25
    assert len(pd.read_parquet(tmp_path / "d" / "columns.parquet")) == ROWS - 1


def test_a_feature_must_not_be_a_target(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", **TABLE)
    with pytest.raises(UserError, match="features must not hold the id, label, target, weight"):
        pack_survey(survey, tmp_path / "d", *CARRIED, "columns.features=[p_lens]")


def test_an_absent_column_is_named(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", **TABLE)
    for setting in (
        "columns.keep=[redshift]",
        "columns.target=redshift",
        "columns.weight=redshift",
    ):
        with pytest.raises(
            UserError, match=r"no column 'redshift' \(columns\.(keep|target|weight)"
        ):
            pack_survey(survey, tmp_path / "d", setting)


# ---- zero points ----


def test_zero_point_and_gain_are_told_for_each_band(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s")
    manifest = read_manifest(
        pack_survey(survey, tmp_path / "d", "zero_point={g: 27.5, r: null}", "gain=4")
    )
    assert manifest.zero_point == {"g": 27.5, "r": None}
    assert manifest.gain == {"g": 4, "r": 4}
    unknown = read_manifest(pack_survey(survey, tmp_path / "e"))
    assert unknown.zero_point == unknown.gain == {"g": None, "r": None}
    with pytest.raises(UserError, match="zero_point must name the bands g, r"):
        pack_survey(survey, tmp_path / "f", "zero_point={g: 27.5}")


# ---- positions ----


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["ra", "dec"], ("ra", "dec")),
        (["ID", "RAJ2000", "DEJ2000"], ("RAJ2000", "DEJ2000")),
        (["RA_ICRS", "DE_ICRS"], ("RA_ICRS", "DE_ICRS")),
        (["ALPHA_J2000", "DELTA_J2000"], ("ALPHA_J2000", "DELTA_J2000")),
        (["RA [deg]", "Dec [deg]"], ("RA [deg]", "Dec [deg]")),
        (["raMean", "decMean", "e_ra"], ("raMean", "decMean")),
        (["right_ascension", "declination"], ("right_ascension", "declination")),
        (["TARGET_RA_ERR", "dec"], None),
        (["radius", "decay"], None),
        (["ra"], None),
    ],
)
def test_position_columns_are_recognised(names: list[str], found: tuple[str, str] | None) -> None:
    assert find_position_columns(names) == found


def test_what_is_no_position_is_unknown() -> None:
    table = pd.DataFrame({"ra": [10, "12:30:00", None, 400], "dec": [-5, "+02", 3, 4]})
    positions = positions_of(table)
    assert positions[0].tolist() == [10, -5]
    assert np.isnan(positions[1:]).all()
    assert positions_of(table[["ra"]]).shape == (4, 2)


# ---- surveys to be scored ----


def test_a_survey_without_labels_has_no_statistics(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", **TABLE)
    settings = ("columns.label=null", "splits={night1: 1.0}", KEEP)
    dataset = Dataset(pack_survey(survey, tmp_path / "d", *settings))
    assert dataset.manifest.statistics is None
    assert dataset["night1"].record.unlabelled == ROWS
    assert len(dataset["night1"].kept_columns()) == ROWS
    call("verify", tmp_path / "d")
    call("info", tmp_path / "d")


def test_a_labelled_survey_may_be_only_scored(tmp_path: Path) -> None:
    names = ["field7"] * ROWS
    survey = write_survey(tmp_path / "s", part=names)
    dataset = Dataset(pack_survey(survey, tmp_path / "d", "columns.split=part"))
    assert list(dataset) == ["field7"]
    assert dataset["field7"].record.lenses == ROWS // 2
    assert dataset.manifest.statistics is None

    drawn = Dataset(pack_survey(survey, tmp_path / "e", "splits={field7: 1.0}"))
    assert drawn["field7"].record.lenses == ROWS // 2
