"""A vetted list is the same in each of its formats."""

from pathlib import Path

import fitsio
import numpy as np
import pandas as pd
from astropy.io import fits
from astropy.table import Table

from lens_hpc.grading.list_files import write_list
from lens_hpc.packing.tables import read_table

TABLE = pd.DataFrame(
    {
        "rank": [1, 2],
        "id": ["é1, a", "=1+1"],
        "ra": [10.5, np.nan],
        "known_arcsec": [np.nan, np.nan],
        "grade": ["A", None],
        "known": pd.array([None, None], dtype="string"),
        "label": np.array([1, -1], np.int8),
        "target": [0.7, np.nan],
        "notes": ["anna: déjà vu\nbela: Å", ""],
    }
)


def test_parquet_keeps_types_and_nulls(tmp_path: Path) -> None:
    write_list(tmp_path, "graded", TABLE)
    read = pd.read_parquet(tmp_path / "graded.parquet")
    assert read["label"].dtype == np.int8
    assert read["id"].tolist() == TABLE["id"].tolist()
    assert read["grade"].isna().tolist() == [False, True]
    assert read["known"].isna().all()
    assert read["target"].tolist()[0] == 0.7


def test_csv_has_empty_cells_and_no_formulas(tmp_path: Path) -> None:
    write_list(tmp_path, "graded", TABLE)
    text = (tmp_path / "graded.csv").read_text(encoding="utf-8")
    assert text.splitlines()[0] == ",".join(TABLE)
    assert text.splitlines()[1] == '1,"é1, a",10.5,,A,,1,0.7,"anna: déjà vu'
    assert text.splitlines()[3] == "2,'=1+1,,,,,-1,,"


def test_fits_has_units_and_letters_beyond_ascii(tmp_path: Path) -> None:
    write_list(tmp_path, "graded", TABLE)
    read = Table.read(tmp_path / "graded.fits")
    assert list(read.columns) == list(TABLE)
    assert (read["ra"].unit, read["known_arcsec"].unit) == ("deg", "arcsec")
    assert list(read["id"]) == TABLE["id"].tolist()
    assert list(read["grade"].filled("")) == ["A", ""]
    assert list(read["target"].mask) == [False, True]


def test_other_letters_are_escaped_where_readers_of_fits_want_ascii(tmp_path: Path) -> None:
    write_list(tmp_path, "graded", TABLE)
    notes = fits.getdata(tmp_path / "graded.fits")["notes"]
    assert notes[0].encode("ascii") == rb"anna: d\xe9j\xe0 vu" + b"\n" + rb"bela: \xc5"

    # Where ids are ASCII, as those of surveys are, fitsio reads all of it.
    write_list(tmp_path, "ascii", TABLE.assign(id=["a", "b"]))
    assert fitsio.read(tmp_path / "ascii.fits")["rank"].tolist() == [1, 2]


def test_pack_reads_what_it_needs(tmp_path: Path) -> None:
    write_list(tmp_path, "graded", TABLE)
    for ending in ("parquet", "csv", "fits"):
        table = read_table(tmp_path / f"graded.{ending}", {"id", "label", "target"})
        assert table.texts("id").to_pylist()[0] == "é1, a"
        targets, _ = table.numbers("target")
        assert targets.to_pylist()[0] == 0.7


def test_a_list_may_be_empty(tmp_path: Path) -> None:
    write_list(tmp_path, "graded", TABLE.head(0))
    assert len(pd.read_parquet(tmp_path / "graded.parquet")) == 0
    assert len(Table.read(tmp_path / "graded.fits")) == 0
